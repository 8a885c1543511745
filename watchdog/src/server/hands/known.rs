//! What the hands know of workers and lanes, and what they have asked about them.

use std::sync::Arc;

use hangwatch_core::lane::OwnerWord;
use hangwatch_core::reap::Hold;
use hangwatch_core::time::Nanos;

use super::super::case::{Case, Weighed};
use super::super::error_file::Ordered;
use super::super::facts::Admitted;
use super::super::kin::KinCase;
use super::{AGAIN_NS, SOON_NS};

/// A worker, and what was asked about it last.
pub(super) struct Known {
    pub(super) worker: Arc<Admitted>,
    /// It runs another program now: nothing may be sent to it, and it counts as dead.
    pub(super) execd: bool,
    /// Its expiry, as the witness knows it: from the condemnation to the end of the reap.
    pub(super) case: Option<Arc<Case>>,
    /// What was decided about it with a look at others: its next case tells of it.
    pub(super) weighed: Vec<Weighed>,
    /// When it was last given an incident for a report.
    pub(super) reported_at: Option<Nanos>,
    pub(super) standing: Option<(Nanos, Option<Hold>)>,
    pub(super) asked: Asked,
    /// Its error file, and until when its signal waits for it.
    pub(super) error_file: Option<(Option<Ordered>, Nanos)>,
    /// Its descendants, which are killed with it, since it is condemned.
    pub(super) kin: Option<Arc<KinCase>>,
}

/// When something was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    first_at: Option<Nanos>,
    last_at: Option<Nanos>,
}

impl Asked {
    /// Whether to ask (again) now.
    pub(super) fn is_due(&mut self, now: Nanos) -> bool {
        self.first_at.get_or_insert(now);
        if self.last_at.is_some_and(|at| now.since(at) < AGAIN_NS) {
            return false;
        }
        self.last_at = Some(now);
        true
    }

    pub(super) fn since_first_ns(&self, now: Nanos) -> u64 {
        self.first_at.map_or(0, |at| now.since(at))
    }

    /// When to look for the answer.
    pub(super) fn look_at(&self, now: Nanos) -> Nanos {
        let is_overdue = self.since_first_ns(now) > AGAIN_NS;
        now.plus(if is_overdue { AGAIN_NS } else { SOON_NS })
    }
}

/// A lane of which an answer about its missing lock is awaited or known.
pub(super) struct Unlocked {
    pub(super) owner: OwnerWord,
    pub(super) same_program_at: Option<Nanos>,
    pub(super) asked: Asked,
}
