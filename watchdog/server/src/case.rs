//! One worker's expiry as the tick, the evidence collector and the event log share it: [`Case`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hangwatch_core::watchdog::expiry::ExpiredTimer;
use hangwatch_core::wire::time::Nanos;

use super::event_log::CascadeNote;
use super::worker::{Admitted, LaneFacts};
use hangwatch_incident::moment::Clocks;

/// Whether the worker of a case is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaseKind {
    /// The worker is condemned and will be signalled.
    Condemned,
    /// The worker is only reported, so evidence must not disturb it.
    Reported,
}

/// A cascade decision about the worker of a case.
#[derive(Clone, Debug)]
pub(super) struct CascadeDecision {
    pub(super) at: Nanos,
    pub(super) role: Role,
    pub(super) note: CascadeNote,
}

/// The worker's part in the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It was overdue.
    Overdue,
    /// The others waited for it.
    Suspect,
}

/// One worker's expiry.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) segment: &'static str,
    pub(super) worker: Arc<Admitted>,
    /// What the owner of its first lane wrote about itself.
    pub(super) facts: Option<Arc<LaneFacts>>,
    /// The timers that expired first, earliest deadline first. A suspect's timers may not have expired, and it
    /// may have none.
    pub(super) timers: Vec<ExpiredTimer>,
    /// Cascade decisions about it before the case was opened.
    pub(super) decisions: Vec<CascadeDecision>,
    pub(super) kind: CaseKind,
    /// When the case was opened.
    pub(super) at: Nanos,
    /// When the evidence budget ends.
    pub(super) until: Nanos,
    clocks: OnceLock<Clocks>,
    has_snapshot: AtomicBool,
    is_captured: AtomicBool,
}

/// Returns when the evidence budget ends: `budget_ns` after the deadline, but at least half of it from now.
pub(super) fn evidence_ends(now: Nanos, deadline: Option<Nanos>, budget_ns: u64) -> Nanos {
    // A suspect's deadline may be in the future, or there is none.
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

    /// Returns both clocks, read at the first call. The tick never calls it, because it reads the wall clock.
    pub(super) fn clocks(&self) -> Clocks {
        *self.clocks.get_or_init(Clocks::now)
    }

    /// Returns the incident's id: time, segment and pid.
    pub(super) fn id(&self) -> String {
        self.clocks().incident_id(self.at, self.segment, self.worker.pid())
    }

    /// Records that the snapshot is taken: the worker's lanes may be recycled.
    pub(super) fn set_has_snapshot(&self) {
        // Release: pairs with the Acquire in `has_snapshot`; the lanes were read before.
        self.has_snapshot.store(true, Ordering::Release);
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.has_snapshot.load(Ordering::Acquire)
    }

    /// Records that no more evidence will come.
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
    fn evidence_budget_counts_from_the_deadline() {
        let check = |now: u64, deadline: Option<u64>, ends: u64| {
            assert_eq!(evidence_ends(Nanos(now), deadline.map(Nanos), 100), Nanos(ends));
        };
        check(1000, Some(1000), 1100);
        check(1030, Some(1000), 1100);
        // The watchdog is late: half of the budget is left.
        check(1070, Some(1000), 1120);
        // A suspect that is not overdue, or has no timer.
        check(1000, Some(5000), 1100);
        check(1000, None, 1100);
    }
}
