//! Who is behind a lane: proof for the living, and what a claim is worth.
//!
//! [`attest`] takes nobody's word but the kernel's. Each step closes a hole of
//! the one before:
//!
//! 1. `F_GETLK` names the holder of the lane's lock by the pid it had when it
//!    took it, in our PID namespace.
//! 2. A pidfd on that pid, which from now on cannot come to mean another.
//! 3. That process's `fdinfo` lists the lock. Without this, the lock of a dead
//!    process that lives on in a sibling's shared file table would pass for
//!    one of whoever has the pid by now.
//! 4. The pidfd's process is not dead. So it had the pid all along, and what
//!    was read in step 3 was read of it and of no successor.
//! 5. `F_GETLK` again names the same pid.
//!
//! Both ask `/proc` and walk the file's locks: never in the tick.

use std::io;
use std::os::fd::{AsFd, RawFd};

use rustix::process::{Pid, getpid};

pub use hangwatch::sys::claim::Claim;
use hangwatch::sys::file::FileId;
use hangwatch::sys::host::pid_namespace;
use hangwatch::sys::lock::{Holder, LockError, holder};

use crate::fdinfo::{lists_lock, own_lists_lock};
use crate::pidfd::{OpenPidfdError, Pidfd};
use crate::proc::start_time;

/// What tells a process from every other of this boot, also to a watchdog that
/// comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Its inode on pidfs (Linux 6.9 and newer): unique.
    PidfdInode(u64),
    /// Its pid and the clock tick in which it started: nearly so. A pid would
    /// have to come round within one tick.
    StartTime {
        /// The pid, in our PID namespace.
        pid: i32,
        /// Field 22 of `/proc/PID/stat`.
        ticks: u64,
    },
}

/// A process that the kernel vouches for.
#[derive(Debug)]
pub struct Process {
    /// Its pid in our PID namespace, for messages and `/proc`; not to be
    /// signalled by.
    pub pid: Pid,
    /// The handle to signal it by.
    pub pidfd: Pidfd,
    /// What it is recognised by later.
    pub identity: Identity,
}

impl Process {
    /// The process of this pid, if it is there.
    ///
    /// The pid must be known to be right by other means (it is one's own, or
    /// that of a child not yet waited for).
    ///
    /// # Errors
    /// [`AttestError`]; `Ok(None)` if it is dead.
    pub fn open(pid: Pid) -> Result<Option<Self>, AttestError> {
        let pidfd = match Pidfd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(OpenPidfdError::Gone { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(identity) = identify(pid, &pidfd)? else { return Ok(None) };
        // Only a process that is alive still has its pid for sure, and only
        // then the start time was its own.
        Ok((!pidfd.is_dead()).then_some(Self { pid, pidfd, identity }))
    }
}

/// What the kernel says about the lock of a lane.
#[derive(Debug)]
pub enum Attestation {
    /// This living process holds it.
    Attested(Process),
    /// Nobody holds it.
    Unlocked,
    /// Whoever holds it is not to be seen from our PID namespace, or is no
    /// process: unattestable, never to be signalled.
    Unseen,
    /// The lock names this pid, but the process that has the pid now does not
    /// hold it, or the lock changed hands meanwhile. Never to be signalled; ask
    /// again later.
    Mismatch {
        /// The pid named.
        pid: Pid,
    },
    /// The holder is dead; the lock lives on in a process that shared its file
    /// table, or falls any moment.
    Gone,
    /// We may not look into the process that the lock names.
    Denied {
        /// The pid named.
        pid: Pid,
    },
}

/// Why nothing could be said.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The lock could not be asked about.
    #[error("cannot ask who owns a lane: {0}")]
    Lock(#[from] LockError),
    /// The holder could not be opened, though it is there.
    #[error("cannot get hold of a lane's owner: {0}")]
    Pidfd(#[from] OpenPidfdError),
    /// `/proc` failed in another way than by refusing.
    #[error(
        "cannot read /proc/{pid}: {source}; check that /proc is mounted for this PID namespace"
    )]
    Proc {
        /// The pid.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Proves which process holds the lock on `byte` of the segment's file, which
/// `fd` refers to.
///
/// `hint` is the number of the worker's own descriptor of the file, as the lane
/// claims: only where to look first. Locks of this process itself, which
/// `F_GETLK` keeps silent about, are found too.
///
/// # Errors
/// [`AttestError`].
pub fn attest(
    fd: impl AsFd,
    file: FileId,
    byte: u64,
    hint: Option<RawFd>,
) -> Result<Attestation, AttestError> {
    let pid = match holder(&fd, byte)? {
        Holder::Process(pid) => pid,
        Holder::Unseen | Holder::Description => return Ok(Attestation::Unseen),
        Holder::Free => return attest_self(fd, file, byte),
    };
    let Some(process) = Process::open(pid)? else { return Ok(Attestation::Gone) };
    let listed = lists_lock(pid, hint, file, byte);
    if process.pidfd.is_dead() {
        return Ok(Attestation::Gone);
    }
    match listed {
        Ok(true) => {}
        Ok(false) => return Ok(Attestation::Mismatch { pid }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Attestation::Denied { pid });
        }
        Err(source) => return Err(AttestError::Proc { pid: pid.as_raw_pid(), source }),
    }
    Ok(match holder(&fd, byte)? {
        Holder::Process(again) if again == pid => Attestation::Attested(process),
        Holder::Process(other) => Attestation::Mismatch { pid: other },
        Holder::Free => Attestation::Unlocked,
        Holder::Unseen | Holder::Description => Attestation::Unseen,
    })
}

/// A lock that `F_GETLK` calls free: nobody's, or this process's.
fn attest_self(fd: impl AsFd, file: FileId, byte: u64) -> Result<Attestation, AttestError> {
    let own = getpid();
    match own_lists_lock(fd, file, byte) {
        Ok(true) => Ok(Process::open(own)?.map_or(Attestation::Gone, Attestation::Attested)),
        Ok(false) => Ok(Attestation::Unlocked),
        Err(source) => Err(AttestError::Proc { pid: own.as_raw_pid(), source }),
    }
}

/// What became of the process of a [`Claim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// No such process lives: the pid is nobody's, or another's by now.
    Dead,
    /// A process lives that the claim fits.
    Alive,
    /// It cannot be said: the claim is of another PID namespace, or too little
    /// of it, or the kernel would not tell.
    Unknown,
}

/// Whether the process that a lane claims to be of is dead. For lanes never
/// admitted, whose lock is free; good for recycling a lane, never for a signal.
pub fn claimed_process(claim: &Claim) -> Claimed {
    let same_namespace = pid_namespace().is_ok_and(|own| own == claim.pid_namespace);
    let Some(pid) = i32::try_from(claim.pid).ok().filter(|&pid| pid > 0).and_then(Pid::from_raw)
    else {
        return Claimed::Unknown;
    };
    if !same_namespace {
        return Claimed::Unknown;
    }
    let pidfd = match Pidfd::open(pid) {
        Ok(pidfd) => pidfd,
        Err(OpenPidfdError::Gone { .. }) => return Claimed::Dead,
        Err(_) => return Claimed::Unknown,
    };
    let fits = match (claim.pidfd_inode, pidfd.inode()) {
        (claimed, Some(inode)) if claimed != 0 => Some(claimed == inode),
        _ if claim.start_ticks == 0 => None,
        _ => match start_time(pid) {
            Ok(ticks) => Some(ticks == Some(claim.start_ticks)),
            Err(_) => None,
        },
    };
    // Asked last: as long as it is alive, what was read above was read of it.
    if fits == Some(false) || pidfd.is_dead() {
        return Claimed::Dead;
    }
    if fits == Some(true) { Claimed::Alive } else { Claimed::Unknown }
}

fn identify(pid: Pid, pidfd: &Pidfd) -> Result<Option<Identity>, AttestError> {
    if let Some(inode) = pidfd.inode() {
        return Ok(Some(Identity::PidfdInode(inode)));
    }
    let pid_number = pid.as_raw_pid();
    match start_time(pid) {
        Ok(ticks) => Ok(ticks.map(|ticks| Identity::StartTime { pid: pid_number, ticks })),
        Err(source) => Err(AttestError::Proc { pid: pid_number, source }),
    }
}

#[cfg(test)]
mod tests;
