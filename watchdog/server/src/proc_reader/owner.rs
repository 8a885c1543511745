//! Verifies the owner of a lane from the lane's lock, its claim and the process's memory.

use std::os::fd::RawFd;
use std::sync::Arc;

use hangwatch::lane_lock_byte;
use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::wire::lane::{Lane, LaneState, OwnerWord};
use hangwatch_process::attest::{Attestation, Claim, Claimed, Process, attest, claimed_process};
use hangwatch_process::proc::{Memory, image, standing};
use rustix::process::Pid;

use super::super::worker::{LaneFacts, Origin};
use super::{Finding, Found, ProcReader, VerifiedProcess};

/// How often a lane is checked whose lock changes its holder meanwhile.
const TRIES: u32 = 3;

pub(super) fn claim_of(lane: Lane<'_>, owner: OwnerWord) -> Claim {
    if owner.state() == Some(LaneState::Claimed) {
        // Its identity is not written yet; the words still hold those of an earlier owner.
        return Claim { pid: owner.pid(), ..Claim::default() };
    }
    let identity = lane.identity();
    Claim {
        pid: owner.pid(),
        start_ticks: identity.start_ticks,
        pidfd_inode: identity.pidfd_inode,
        pid_namespace: identity.pid_namespace,
    }
}

impl ProcReader {
    /// Finds the owner of a lane.
    pub(super) fn owner(&self, index: u32) -> Finding {
        let lane = self.segment.words().lane(index);
        let owner = lane.owner();
        let facts = Arc::new(LaneFacts::of(lane));
        // A process that died or ran exec meanwhile is checked again, so that its lane is freed at once.
        let mut found = Found::Tell(Admission::Unknown);
        for _ in 0..TRIES {
            found = self.found(index, lane, owner).unwrap_or_else(Found::Unverified);
            if !matches!(found, Found::Tell(Admission::Unknown)) {
                break;
            }
        }
        Finding::Owner { lane: index, owner, facts, found }
    }

    fn found(&self, index: u32, lane: Lane<'_>, owner: OwnerWord) -> Result<Found, String> {
        let file = self.segment.file();
        let claim = claim_of(lane, owner);
        let whole = owner.state() == Some(LaneState::Attached) && !lane.is_quarantined();
        let hint = RawFd::try_from(lane.identity().descriptor).ok();
        let mut attestation = Attestation::Unlocked;
        for _ in 0..TRIES {
            attestation = attest(file, file.id(), lane_lock_byte(index), hint)
                .map_err(|error| error.to_string())?;
            if !matches!(attestation, Attestation::Mismatch { .. }) {
                break;
            }
        }
        let claimed = || claimed_or_nobody(&claim, whole);
        Ok(match attestation {
            Attestation::Attested(process) => self.proved(process)?,
            Attestation::Unlocked => match claimed() {
                Claimed::Dead => Found::Tell(Admission::Gone),
                Claimed::Alive => Found::Tell(self.claimant(&claim)),
                Claimed::Unknown => Found::Tell(Admission::Unattestable),
            },
            // The lock's holder is not the claimant, or is dead.
            Attestation::Gone | Attestation::Mismatch { .. } => match claimed() {
                Claimed::Dead => Found::Tell(Admission::Gone),
                _ if matches!(attestation, Attestation::Gone) => Found::Tell(Admission::Unknown),
                _ => Found::Tell(Admission::Unattestable),
            },
            Attestation::Unseen | Attestation::Denied { .. } => {
                Found::Tell(Admission::Unattestable)
            }
        })
    }

    /// Checks that the holder of a lane's lock is a worker.
    ///
    /// A lock passes through exec with its descriptor, but a mapping does not. So the program that runs now must
    /// have the segment mapped; otherwise it never attached.
    fn proved(&self, process: Process) -> Result<Found, String> {
        let pid = process.pid;
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!("cannot verify process {}: {what}: {error}", pid.as_raw_pid())
        };
        let unread = |error: std::io::Error| failed("/proc cannot be read", &error);
        let before = image(pid).map_err(unread)?;
        let memory = match Memory::of(pid) {
            // Then only the image tells one program from the next.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => None,
            memory => memory.map_err(unread)?.map(Arc::new),
        };
        let is_known = before.is_some_and(|image| self.mapped.is_known(process.identity, image));
        let is_mapped = is_known
            || self.maps(pid).map_err(|error| failed("its mappings cannot be read", &error))?;
        let (after, seen) = (image(pid).map_err(unread)?, standing(pid).map_err(unread)?);
        // Checked last: if it lives, the reads before were of this process.
        if process.pidfd.is_dead() {
            return Ok(Found::Tell(Admission::Unknown));
        }
        let (Some(image), Some(seen)) = (before, seen) else {
            return Err(failed("its program or its users cannot be read", &"it may be ending"));
        };
        if after != before || memory.as_ref().is_some_and(|memory| !memory.is_in_use()) {
            return Ok(Found::Tell(Admission::Unknown)); // it has just run exec: checked again
        }
        if !is_mapped {
            return Ok(Found::Tell(Admission::Gone));
        }
        if !is_known {
            self.mapped.note(process.identity, image, memory.as_ref());
        }
        let origin = Origin { users: seen.users, privileges: seen.privileges };
        Ok(Found::Process(Box::new(VerifiedProcess { process, image, memory, origin })))
    }

    /// Judges a living claimant of a lane without a lock: it has closed its descriptors or run exec.
    fn claimant(&self, claim: &Claim) -> Admission {
        let Some(pid) = i32::try_from(claim.pid).ok().and_then(Pid::from_raw) else {
            return Admission::Unknown;
        };
        let maps = self.maps(pid);
        // A dying process gives up its memory first and then maps nothing: its death will be seen.
        let has_memory = image(pid).is_ok_and(|image| image.is_some());
        // Checked again: if it lives, the reads before were of this process.
        match (claimed_process(claim), maps) {
            (Claimed::Dead, _) => Admission::Gone,
            (Claimed::Alive, Ok(false)) if has_memory => Admission::Gone,
            (Claimed::Alive, Ok(true)) => Admission::Unattestable,
            _ => Admission::Unknown,
        }
    }
}

/// Whether the claimant lives. If the claim is incomplete or invalid and says nothing useful, the claimant
/// counts as dead: the lock is free, and every owner takes the lock before it claims.
fn claimed_or_nobody(claim: &Claim, whole: bool) -> Claimed {
    match claimed_process(claim) {
        Claimed::Unknown if !whole && !may_live(claim) => Claimed::Dead,
        claimed => claimed,
    }
}

/// Whether a process with an incomplete claim may be alive.
fn may_live(claim: &Claim) -> bool {
    let pid = i32::try_from(claim.pid).ok().and_then(Pid::from_raw);
    // Half-way through an attach only the pid is known. A pid of another namespace cannot be checked. EPERM
    // also means that the process exists.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}
