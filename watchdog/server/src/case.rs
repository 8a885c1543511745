//! A case: one worker's expiry as the tick, the witness and the log refer to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hangwatch_core::watchdog::expiry::ExpiredTimer;
use hangwatch_core::wire::time::Nanos;

use super::event_log::CascadeNote;
use super::worker::{Admitted, LaneFacts};
use hangwatch_incident::moment::Clocks;

/// Whether a case's worker is to be signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaseKind {
    /// It is condemned.
    Condemned,
    /// Its timer is only reported: it must not notice.
    Reported,
}

/// A look at the others of a worker's job, as far as it is about that worker.
#[derive(Clone, Debug)]
pub(super) struct CascadeDecision {
    pub(super) at: Nanos,
    pub(super) role: Role,
    pub(super) note: CascadeNote,
}

/// What the worker is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The one who ran out of time.
    Overdue,
    /// The one who was not there.
    Suspect,
}

/// One worker's expiry.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) segment: &'static str,
    pub(super) worker: Arc<Admitted>,
    /// What its first lane's owner said about itself.
    pub(super) facts: Option<Arc<LaneFacts>>,
    /// Those that expired at first, the earliest deadline first. A suspect's may not have expired,
    /// and it may have none.
    pub(super) timers: Vec<ExpiredTimer>,
    /// What was decided about it before.
    pub(super) decisions: Vec<CascadeDecision>,
    pub(super) kind: CaseKind,
    /// When it was opened.
    pub(super) at: Nanos,
    /// When the evidence is over, whatever has come of it.
    pub(super) until: Nanos,
    clocks: OnceLock<Clocks>,
    has_snapshot: AtomicBool,
    is_captured: AtomicBool,
}

/// Until when evidence may be taken that is begun now: for the budget after the deadline, and where the
/// watchdog itself comes late for half of it at least.
pub(super) fn evidence_ends(now: Nanos, deadline: Option<Nanos>, budget_ns: u64) -> Nanos {
    // A suspect's deadline may not have passed, or it has none.
    let from = deadline.map_or(now, |deadline| deadline.min(now));
    from.plus(budget_ns).max(now.plus(budget_ns / 2))
}

impl Case {
    pub(super) fn new(
        segment: &'static str,
        worker: Arc<Admitted>,
        facts: Option<Arc<LaneFacts>>,
        timers: &[ExpiredTimer],
        decisions: Vec<CascadeDecision>,
        kind: CaseKind,
        (at, until): (Nanos, Nanos),
    ) -> Case {
        Case {
            segment,
            worker,
            facts,
            timers: timers.to_vec(),
            decisions,
            kind,
            at,
            until,
            clocks: OnceLock::new(),
            has_snapshot: AtomicBool::new(false),
            is_captured: AtomicBool::new(false),
        }
    }

    /// Both clocks, as they were when somebody first asked: a moment after it was opened, and not by
    /// the tick.
    pub(super) fn clocks(&self) -> Clocks {
        *self.clocks.get_or_init(Clocks::now)
    }

    /// The incident's name: when, in which segment, which process.
    pub(super) fn id(&self) -> String {
        self.clocks().incident_id(self.at, self.segment, self.worker.pid())
    }

    /// What the segment says has been taken down: its lanes may be given to others.
    pub(super) fn set_has_snapshot(&self) {
        // Release: pairs with the Acquire in `has_snapshot`; the reads of the lanes came before.
        self.has_snapshot.store(true, Ordering::Release);
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.has_snapshot.load(Ordering::Acquire)
    }

    /// There is no more evidence to come.
    pub(super) fn set_captured(&self) {
        // Release: pairs with the Acquire in `is_captured`.
        self.is_captured.store(true, Ordering::Release);
    }

    pub(super) fn is_captured(&self) -> bool {
        self.is_captured.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_counts_from_the_deadline() {
        let check = |now: u64, deadline: Option<u64>, ends: u64| {
            assert_eq!(evidence_ends(Nanos(now), deadline.map(Nanos), 100), Nanos(ends));
        };
        check(1000, Some(1000), 1100);
        check(1030, Some(1000), 1100);
        // Late: it has half of the budget all the same.
        check(1070, Some(1000), 1120);
        // A suspect's, which is not overdue, or has no timer.
        check(1000, Some(5000), 1100);
        check(1000, None, 1100);
    }
}
