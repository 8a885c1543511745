//! Rows and pictures for tests.

use std::time::Duration;

use hangwatch::{ClockKind, LaneView, Nanos, TimerView};
use hangwatch_core::wire::lane::LaneState;

use super::model::{Model, Place, Seen, Watchdog};
use super::row::Row;

/// An armed timer of this age and allowance, in seconds.
pub(super) fn timer(scope: &str, age: u64, allowance: u64) -> TimerView {
    let left = allowance.cast_signed() - age.cast_signed();
    let mut timer = TimerView::default();
    timer.scope = scope.to_owned();
    timer.age = Duration::from_secs(age);
    timer.timeout = Duration::from_secs(allowance);
    timer.left_ns = Some(left * 1_000_000_000);
    timer
}

/// The row of lane `lane`, of rank `lane` and pid 1000 and `lane`.
pub(super) fn row(lane: u32, command: &str, timers: &[TimerView]) -> Row {
    let mut seen = LaneView::default();
    (seen.lane, seen.pid, seen.tid) = (lane, 1000 + lane, 1000 + lane);
    seen.pid_namespace = 1;
    seen.state = Some(LaneState::Attached);
    seen.thread = format!("thread-{lane}");
    "jobs".clone_into(&mut seen.job);
    (seen.rank, seen.world_size) = (Some(lane), 8);
    (seen.clock, seen.attached_at, seen.records) = (ClockKind::Counter, Nanos(1), 1234);
    seen.timers = timers.to_vec();
    Row { lane: seen, command: command.to_owned(), rate: Some(12.0), incident: None }
}

/// A picture of these rows.
pub(super) fn seen(rows: Vec<Row>) -> Place {
    Place::Watching(Box::new(Seen {
        segment: "train".to_owned(),
        watchdog: Watchdog::Serving(77),
        lane_count: 256,
        rows,
        counters: vec![("ticks", 9), ("reaped", 2)],
        detail: None,
    }))
}

/// A model that shows these rows.
pub(super) fn model(rows: Vec<Row>) -> Model {
    let mut model = Model::new();
    model.show(seen(rows));
    model
}
