//! Faults, injected into real processes: nothing lost, nobody wrongly killed.
//!
//! * `main_job`: the main job end to end, through the binary

mod main_job;
