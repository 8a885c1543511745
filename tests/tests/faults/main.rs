//! Faults, injected into real processes: nothing lost, nobody wrongly killed.
//!
//! * `main_job`: the main job end to end, through the binary
//! * `takeover`: one watchdog a segment, whatever becomes of it

mod main_job;
mod takeover;
