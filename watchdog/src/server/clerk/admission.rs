//! Admission: what the kernel's answers about a lane's lock mean for the lane.

use std::os::fd::RawFd;
use std::sync::Arc;

use hangwatch::lane_lock_byte;
use hangwatch::sys::identity::{AttestError, Attestation, Claim, Claimed, attest, claimed_process};
use hangwatch::sys::pidfd::OpenPidfdError;
use hangwatch_core::expiry::Admission;
use hangwatch_core::lane::{Lane, LaneState, OwnerWord};

use super::super::facts::{Admitted, LaneFacts};
use super::super::inspector::Inspection;
use super::super::journal::Note;
use super::Clerk;

/// How often a lane is asked about whose lock changes hands meanwhile.
const TRIES: u32 = 3;

/// What is to be done about a lane.
enum Verdict {
    Admit(Arc<Admitted>),
    Tell(Admission),
    /// The lock is free and the claimant lives.
    Inspect,
}

fn claim_of(lane: Lane<'_>, owner: OwnerWord) -> Claim {
    let identity = lane.identity();
    Claim {
        pid: owner.pid(),
        start_ticks: identity.start_ticks,
        pidfd_inode: identity.pidfd_inode,
        pid_namespace: identity.pid_namespace,
    }
}

impl Clerk {
    /// Finds out who owns a lane, and tells the tick.
    pub(super) fn admit(&mut self, index: u32, owner: OwnerWord) {
        let lane = self.segment.words().lane(index);
        if lane.owner() != owner {
            return; // news of the next owner follow
        }
        let facts = Arc::new(LaneFacts::of(lane));
        let mut claim = claim_of(lane, owner);
        let whole = owner.state() == Some(LaneState::Attached) && !lane.is_quarantined();
        if owner.state() == Some(LaneState::Claimed) {
            // Its identity is not written yet: what stands there is an earlier owner's.
            claim = Claim { pid: claim.pid, ..Claim::default() };
        }
        let verdict = match self.asked(index, &claim, whole) {
            Ok(verdict) => verdict,
            Err(error) => {
                self.say(&error);
                Verdict::Tell(Admission::Unknown)
            }
        };
        let question = (index, owner);
        match verdict {
            Verdict::Admit(worker) => {
                let admission = Admission::Worker(worker.id);
                self.tell_admission(question, admission, Some(worker), facts);
            }
            Verdict::Tell(admission) => self.tell_admission(question, admission, None, facts),
            Verdict::Inspect => {
                let inspection = Inspection::Claimant { lane: index, owner, claim, facts };
                let _ = self.inspections.try_send(inspection);
            }
        }
    }

    /// Asks the kernel. `whole`: the owner has attached and not lied.
    fn asked(&mut self, lane: u32, claim: &Claim, whole: bool) -> Result<Verdict, AttestError> {
        let file = self.segment.file();
        let hint = self.segment.words().lane(lane).identity().descriptor;
        let hint = RawFd::try_from(hint).ok();
        let mut attestation = Attestation::Unlocked;
        for _ in 0..TRIES {
            attestation = attest(file, file.id(), lane_lock_byte(lane), hint)?;
            if !matches!(attestation, Attestation::Mismatch { .. }) {
                break;
            }
        }
        let claimed = || claimed_or_nobody(claim, whole);
        Ok(match attestation {
            Attestation::Attested(process) => match self.enrol(process) {
                Some(worker) => Verdict::Admit(worker),
                None => Verdict::Tell(Admission::Unknown),
            },
            Attestation::Unlocked => match claimed() {
                Claimed::Dead => Verdict::Tell(Admission::Gone),
                Claimed::Alive => Verdict::Inspect,
                Claimed::Unknown => Verdict::Tell(Admission::Unattestable),
            },
            // The lock is someone's who is not the claimant any more, or no longer alive.
            Attestation::Gone | Attestation::Mismatch { .. } => match claimed() {
                Claimed::Dead => Verdict::Tell(Admission::Gone),
                _ if matches!(attestation, Attestation::Gone) => Verdict::Tell(Admission::Unknown),
                _ => Verdict::Tell(Admission::Unattestable),
            },
            Attestation::Unseen | Attestation::Denied { .. } => {
                Verdict::Tell(Admission::Unattestable)
            }
        })
    }

    /// Says once what keeps lanes from being admitted.
    fn say(&mut self, error: &AttestError) {
        let no_descriptors =
            matches!(error, AttestError::Pidfd(OpenPidfdError::NoDescriptors { .. }));
        if no_descriptors && std::mem::replace(&mut self.said_no_descriptors, true) {
            return;
        }
        self.journal.note(Note::Admission(error.to_string()));
    }
}

/// What became of the claimant. One that was only half-way, or whose lane lies, and of whom nothing
/// can be said, counts as dead: nobody holds the lock, which every owner takes before it claims.
fn claimed_or_nobody(claim: &Claim, whole: bool) -> Claimed {
    match claimed_process(claim) {
        Claimed::Unknown if !whole && !may_live(claim) => Claimed::Dead,
        claimed => claimed,
    }
}

/// Whether a process could live that is meant by a claim that says too little.
fn may_live(claim: &Claim) -> bool {
    let pid = i32::try_from(claim.pid).ok().and_then(rustix::process::Pid::from_raw);
    // Of another namespace, or garbage, it cannot be asked about; half-way, only the pid is known.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}
