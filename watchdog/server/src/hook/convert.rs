//! Converts events to the types of an incident.

use hangwatch::sys::clock;
use hangwatch_core::wire::time::Nanos;

use crate::events::{ExpiryOutcome, TimerFacts, WorkerFacts};
use crate::{Command, LaneFacts};
use hangwatch_incident::moment::Clocks;
use hangwatch_incident::schema::{Moment, Timer, Worker};

/// The worker.
pub(super) fn worker_of(worker: Option<&WorkerFacts>, owner: &LaneFacts) -> Worker {
    let Command { name, .. } = worker.map(|worker| worker.command.clone()).unwrap_or_default();
    Worker {
        pid: worker.map(|worker| worker.pid),
        name,
        // Arguments may contain secrets. Captured evidence has them redacted.
        command: Vec::new(),
        job: owner.job.clone(),
        rank: owner.rank,
        world_size: owner.world_size,
        local_rank: owner.local_rank,
    }
}

/// A timer whose expiry has this outcome.
pub(super) fn timer_of(timer: &TimerFacts, outcome: ExpiryOutcome) -> Timer {
    Timer {
        task: 0,
        lane: timer.lane,
        timer: timer.timer,
        scope: timer.scope.clone(),
        kind: timer.kind.name().to_owned(),
        state: if outcome.is_report() { "reported" } else { "condemned" }.to_owned(),
        acquired: moment(timer.acquired_at_ns),
        deadline: Some(moment(timer.deadline_ns)),
        age_ns: clock::monotonic_ns().saturating_sub(timer.acquired_at_ns),
        allowance_ns: timer.allowance_ns(),
    }
}

/// The current moment.
pub(super) fn now() -> Moment {
    moment(clock::monotonic_ns())
}

/// Converts a monotonic time to a moment on both clocks. The wall clock is for people and decides nothing.
fn moment(ns: u64) -> Moment {
    Clocks::now().moment(Nanos(ns))
}
