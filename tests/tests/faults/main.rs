//! Faults, injected into real processes: nothing lost, nobody wrongly killed.
//!
//! * `abuse`: workers that do what they please with the segment, and themselves
//! * `cascade`: the one the others wait for, reaped before them
//! * `clocks`: the wall clock stepped, the counter's calibration wrong
//! * `exec`: `hangwatch exec` killed while it removes its command
//! * `files`: the segment's file full, cut short, removed
//! * `held`: workers stopped, traced, frozen
//! * `hostile`: memory that lies
//! * `listener`: what the listener tells of a watchdog that is not well
//! * `hook`: the command that hears of each expiry
//! * `kin`: the processes that are removed with a worker
//! * `load`: many processes at once
//! * `container`: the example in `examples/container`, in namespaces
//! * `main_job`: the main job end to end, through the binary
//! * `namespaces`: workers in other PID namespaces
//! * `promises`: what the security page names
//! * `protection`: panics, refused protections, warnings
//! * `races`: releases against expiry
//! * `recycled_pids`: another process has a dead worker's pid
//! * `service_manager`: what systemd hears of a watchdog
//! * `settings`: settings read again while deadlines run
//! * `stalls`: time that stood still
//! * `storm`: every worker expires at once
//! * `strangers`: other users' workers, and files that are no segment
//! * `stubborn`: workers that do not die
//! * `takeover`: one watchdog a segment, whatever becomes of it
//! * `watchdog_kills`: the watchdog killed anywhere, and a successor
//! * `worker_kills`: workers killed anywhere

mod abuse;
mod cascade;
mod clocks;
mod container;
mod exec;
mod files;
mod held;
mod hook;
mod hostile;
mod kin;
mod listener;
mod load;
mod main_job;
mod namespaces;
mod promises;
mod protection;
mod races;
mod recycled_pids;
mod service_manager;
mod settings;
mod stalls;
mod storm;
mod strangers;
mod stubborn;
mod takeover;
mod watchdog_kills;
mod worker_kills;
