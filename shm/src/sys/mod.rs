//! The system-call layer: safe faces over what the kernel offers.
//!
//! Each file holds one concept and knows nothing of lanes, timers or records: offsets, bytes and words
//! are numbers here. In the order of the data:
//!
//! - [`clock`]: the time, and the processor's counter.
//! - [`host`]: identifiers of this boot and these namespaces.
//! - [`mapping`], [`file`]: the shared memory and the named file behind it.
//! - [`lock`]: the POSIX record locks by which the kernel says who owns a lane.
//! - [`proc_file`], [`stat`], [`maps`]: files of `/proc`, read as bytes and within bounds.
//! - [`claim`]: what a worker says of its own process.
//! - [`futex`]: sleeping on the doorbell and ringing it.
//! - [`crash`]: named points at which a test makes a process die or stop.
//! - [`fork`]: the canary that tells a forked child from its parent.
//!
//! It is public for the crates of the watchdog, which need the same calls on the other side, and carries
//! no promise of stability. What only a watchdog needs (pidfds, attestation, the freezer) is in
//! `hangwatch-process`.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("hangwatch runs on Linux, on x86_64 and aarch64");

pub mod claim;
pub mod clock;
pub mod crash;
pub mod file;
pub mod fork;
pub mod futex;
pub mod host;
pub mod lock;
pub mod mapping;
pub mod maps;
pub mod name;
pub mod proc_file;
pub mod stat;

pub use rustix::process::{Pid, Signal};
