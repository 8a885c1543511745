//! What a worker says of its own process when it takes a lane.

use std::os::fd::AsFd;

use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use super::host::pid_namespace;
use super::stat::Stat;

/// `PID_FS_MAGIC`: the file system of pidfds since Linux 6.9.
const PIDFS: u64 = 0x5049_4446;

/// What the owner word of a lane says about its process. A claim of anyone who
/// can write to the segment; 0 is *not said*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// The pid, in the PID namespace named below.
    pub pid: u32,
    /// When it started: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    /// Its inode on pidfs.
    pub pidfd_inode: u64,
    /// The inode of its PID namespace.
    pub pid_namespace: u64,
}

impl Claim {
    /// What this process has to say of itself. What the kernel does not tell
    /// is not said.
    pub fn own() -> Self {
        let pid = getpid();
        Self {
            pid: pid.as_raw_pid().unsigned_abs(),
            start_ticks: Stat::of(pid).ok().flatten().map_or(0, |stat| stat.start_ticks),
            pidfd_inode: own_pidfd_inode(pid).unwrap_or(0),
            pid_namespace: pid_namespace().unwrap_or(0),
        }
    }
}

fn own_pidfd_inode(own: Pid) -> Option<u64> {
    pidfd_inode(pidfd_open(own, PidfdFlags::empty()).ok()?)
}

/// The inode of a pidfd on pidfs, unique to its process for the whole boot; `None` before Linux 6.9,
/// where all pidfds share one inode.
pub fn pidfd_inode(pidfd: impl AsFd) -> Option<u64> {
    let fs = rustix::fs::fstatfs(&pidfd).ok()?;
    if u64::try_from(fs.f_type) != Ok(PIDFS) {
        return None;
    }
    rustix::fs::fstat(&pidfd).ok().map(|stat| stat.st_ino)
}
