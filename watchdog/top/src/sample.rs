//! Rows and pictures for tests.

use std::time::Duration;

use hangwatch::{ClockKind, LaneView, Nanos, TimerView};
use hangwatch_core::wire::lane::{LaneState, TimerKind, TimerSignal};
use hangwatch_core::wire::timer::TimerState;

use super::model::{Model, Place, Seen, Watchdog};
use super::row::Row;

/// An armed timer of this age and allowance, in seconds.
pub(super) fn timer(scope: &str, age: u64, allowance: u64) -> TimerView {
    let left = allowance.cast_signed() - age.cast_signed();
    TimerView {
        task: 0,
        timer: 0,
        state: TimerState::Armed,
        scope: scope.to_owned(),
        kind: TimerKind::Guard,
        signal: TimerSignal::Default,
        age: Duration::from_secs(age),
        timeout: Duration::from_secs(allowance),
        left_ns: Some(left * 1_000_000_000),
        meeting: None,
    }
}

/// The row of lane `lane`, of rank `lane` and pid 1000 and `lane`.
pub(super) fn row(lane: u32, command: &str, timers: &[TimerView]) -> Row {
    Row {
        lane: LaneView {
            lane,
            pid: 1000 + lane,
            pid_namespace: 1,
            tid: 1000 + lane,
            state: Some(LaneState::Attached),
            quarantined: false,
            thread: format!("thread-{lane}"),
            job: "jobs".to_owned(),
            host: String::new(),
            rank: Some(lane),
            world_size: 8,
            local_rank: None,
            clock: ClockKind::Counter,
            attached_at: Nanos(1),
            records: 1234,
            timers: timers.to_vec(),
            attended: Vec::new(),
        },
        command: command.to_owned(),
        rate: Some(12.0),
        incident: None,
    }
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
