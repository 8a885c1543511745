//! What the hands know of workers and lanes, and what they have asked about them.

use std::sync::Arc;

use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;

use super::super::case::{CascadeDecision, Case};
use super::super::descendant_killer::KillTask;
use super::super::error_file::Ordered;
use super::super::worker::Admitted;
use super::{AGAIN_NS, SOON_NS};

/// How old an answer about a worker may be when it is signalled, ns.
pub(super) const FRESH_NS: u64 = 5_000_000;
/// How often that doubles at most.
const DOUBLINGS: u32 = 4;

/// A worker, and what was asked about it last.
pub(super) struct Tracked {
    pub(super) worker: Arc<Admitted>,
    /// It runs another program now: nothing may be sent to it, and it counts as dead.
    pub(super) execd: bool,
    /// Its expiry, as the witness knows it: from the condemnation to the end of the reap.
    pub(super) case: Option<Arc<Case>>,
    /// What was decided about it with a look at others: its next case tells of it.
    pub(super) decisions: Vec<CascadeDecision>,
    /// When it was last given an incident for a report.
    pub(super) reported_at: Option<Nanos>,
    pub(super) status: Option<(Nanos, Option<Hold>)>,
    pub(super) asked: Asked,
    /// The verdict that it waits for.
    pub(super) awaited: Awaited,
    /// Whether a signal was sent to it, or tried.
    pub(super) is_signalled: bool,
    /// Its error file, and until when its signal waits for it.
    pub(super) error_file: Option<(Option<Ordered>, Nanos)>,
    /// Its descendants, which are killed with it, since it is condemned.
    pub(super) descendants: Option<Arc<KillTask>>,
    /// The lane that it was last judged for.
    pub(super) lane: u32,
}

/// A verdict that cannot be given yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Awaited {
    pub(super) since: Option<Nanos>,
    /// Answers that were given since.
    pub(super) answers: u32,
    /// Why it cannot be verified, as was said last.
    pub(super) why: Option<Box<str>>,
    /// Whether it was said that nobody is signalled.
    pub(super) is_said: bool,
}

/// How old an answer about a worker may be when it is signalled, ns, after so many answers that were too
/// old: that doubles, since on a machine with too much to do none would ever be fresh enough.
pub(super) fn fresh_ns(answers: u32) -> u64 {
    FRESH_NS << answers.saturating_sub(1).min(DOUBLINGS)
}

/// When something was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    first_at: Option<Nanos>,
    last_at: Option<Nanos>,
}

impl Asked {
    /// Whether to ask (again) now, so long after the last time.
    pub(super) fn is_due(&mut self, now: Nanos, apart_ns: u64) -> bool {
        self.first_at.get_or_insert(now);
        if self.last_at.is_some_and(|at| now.since(at) < apart_ns) {
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
    /// Answers that were given since it was last signalled.
    pub(super) answers: u32,
    pub(super) asked: Asked,
}
