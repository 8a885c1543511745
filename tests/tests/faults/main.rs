//! Faults, injected into real processes: nothing lost, nobody wrongly killed.
//!
//! * `main_job`: the main job end to end, through the binary
//! * `worker_kills`: workers killed anywhere

mod main_job;
mod worker_kills;
