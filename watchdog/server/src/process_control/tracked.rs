//! What process control knows about workers and lanes, and what it has asked the attestor.

use std::sync::Arc;

use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;

use super::super::case::{CascadeDecision, Case};
use super::super::descendant_killer::KillTask;
use super::super::error_file::Ordered;
use super::super::worker::Admitted;
use super::{AGAIN_NS, SOON_NS};

/// Maximum age of a status when the worker is signalled, ns.
pub(super) const FRESH_NS: u64 = 5_000_000;
/// How often that age may double.
const DOUBLINGS: u32 = 4;

/// A worker, its pending questions and its course.
pub(super) struct Tracked {
    pub(super) worker: Arc<Admitted>,
    /// It runs another program: it gets no signal and counts as dead.
    pub(super) execd: bool,
    /// Its case, from the condemnation to the outcome.
    pub(super) case: Option<Arc<Case>>,
    /// Cascade decisions for its next case.
    pub(super) decisions: Vec<CascadeDecision>,
    /// When it last got an incident for a report.
    pub(super) reported_at: Option<Nanos>,
    pub(super) status: Option<(Nanos, Option<Hold>)>,
    pub(super) asked: Asked,
    /// The verdict that its reap waits for.
    pub(super) awaited: Awaited,
    /// Whether a signal was sent or attempted.
    pub(super) is_signalled: bool,
    /// Its error file, and until when its signal waits for it.
    pub(super) error_file: Option<(Option<Ordered>, Nanos)>,
    /// The kill of its descendants, since it was condemned.
    pub(super) kill_task: Option<Arc<KillTask>>,
    /// The lane for which it was last judged.
    pub(super) lane: u32,
}

/// A verdict that is still open.
#[derive(Clone, Debug, Default)]
pub(super) struct Awaited {
    pub(super) since: Option<Nanos>,
    /// Number of answers since then.
    pub(super) answers: u32,
    /// Why it cannot be verified, from the last answer.
    pub(super) why: Option<Box<str>>,
    /// Whether the missing verdict was logged.
    pub(super) is_said: bool,
}

/// Returns the maximum age of a status, ns, after `answers` answers that were too old. It doubles, because on
/// an overloaded machine no answer would be fresh enough.
pub(super) fn fresh_ns(answers: u32) -> u64 {
    FRESH_NS << answers.saturating_sub(1).min(DOUBLINGS)
}

/// When a question was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    first_at: Option<Nanos>,
    last_at: Option<Nanos>,
}

impl Asked {
    /// Whether to ask now, at least `apart_ns` after the last time.
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

    /// Returns when to check for the answer.
    pub(super) fn next_check(&self, now: Nanos) -> Nanos {
        let is_overdue = self.since_first_ns(now) > AGAIN_NS;
        now.plus(if is_overdue { AGAIN_NS } else { SOON_NS })
    }
}

/// A lane without a lock, and whether its owner still runs the admitted program.
pub(super) struct Unlocked {
    pub(super) owner: OwnerWord,
    pub(super) same_program_at: Option<Nanos>,
    /// Number of answers since it was last signalled.
    pub(super) answers: u32,
    pub(super) asked: Asked,
}
