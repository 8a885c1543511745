//! The system-call layer: safe faces over what the kernel offers.
//!
//! Each file holds one concept and knows nothing of lanes, timers or records:
//! offsets, bytes and words are numbers here. In the order of the data:
//!
//! - [`clock`]: what time it is, and what the processor's counter says.
//! - [`host`]: facts of this boot, these namespaces, this process's limits.
//! - [`mapping`], [`file`]: the shared memory and the named file behind it.
//! - [`lock`]: the POSIX record locks by which the kernel says who owns a lane.
//! - [`proc_file`]: reading files of `/proc`, as bytes and within bounds.
//! - [`process`], [`freezer`], [`fdinfo`]: what `/proc` tells about a process.
//! - [`pidfd`], [`identity`]: a handle on a process, and the proof that it is
//!   the one behind a lane.
//! - [`futex`]: sleeping on the doorbell and ringing it.
//! - [`crash`]: named points at which a test makes a process die or stop.
//! - [`fork`]: the canary that tells a forked child from its parent.
//!
//! The module is public for the sibling crates of this workspace only. It
//! carries no promise of stability.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("hangwatch runs on Linux, on x86_64 and aarch64");

pub mod clock;
pub mod crash;
pub mod fdinfo;
pub mod file;
pub mod fork;
pub mod freezer;
pub mod futex;
pub mod host;
pub mod identity;
pub mod lock;
pub mod mapping;
pub mod name;
pub mod pidfd;
pub mod proc_file;
pub mod process;

#[cfg(test)]
pub(crate) mod testing;

pub use rustix::process::{Pid, Signal};
