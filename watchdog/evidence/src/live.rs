//! What a segment holds now, as if it were an incident's: its workers and their lanes.

use std::collections::HashMap;

use hangwatch::{LaneView, RecordView, Segment, TimerView};
use hangwatch_core::wire::timer::TimerState;

use crate::claims;
use hangwatch_incident::schema::{Lane, Moment, Timer, Worker};

/// More records than any ring holds.
const ALL: usize = usize::MAX;

/// A segment at one time.
pub struct Seen {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// The workers, by rank, with their lanes.
    pub workers: Vec<(Worker, Vec<Lane>)>,
}

/// What is in a segment now.
pub fn seen(segment: Segment) -> Seen {
    // The timers first: records that are younger than they complete them.
    let picture = segment.picture();
    let at_ns = picture.at.0;
    let mut workers: Vec<(Worker, Vec<Lane>)> = Vec::new();
    let mut places: HashMap<u32, usize> = HashMap::new();
    for view in &picture.lanes {
        let lane = lane(view, segment.recent_records(view.lane, ALL), at_ns);
        let place = *places.entry(view.pid).or_insert_with(|| {
            workers.push((Worker { pid: Some(view.pid), ..claims::worker(view) }, Vec::new()));
            workers.len() - 1
        });
        workers[place].1.push(lane);
    }
    workers.sort_by_key(|(worker, _)| (worker.rank.is_none(), worker.rank, worker.pid));
    Seen { at_ns, workers }
}

fn lane(view: &LaneView, records: Vec<RecordView>, at_ns: u64) -> Lane {
    Lane {
        lane: view.lane,
        tid: u64::from(view.tid),
        thread: view.thread.clone(),
        timers: view.timers.iter().map(|timer| open(timer, view.lane, at_ns)).collect(),
        records: records.into_iter().map(claims::record).collect(),
        records_lost: 0,
    }
}

fn open(view: &TimerView, lane: u32, at_ns: u64) -> Timer {
    let nanos =
        |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let at = |monotonic_ns| Moment { monotonic_ns, ..Moment::default() };
    let (age_ns, allowance_ns) = (nanos(view.age), nanos(view.timeout));
    let acquired_ns = at_ns.saturating_sub(age_ns);
    let is_paused = view.state == TimerState::Paused;
    Timer {
        task: view.task,
        lane,
        timer: view.timer,
        scope: view.scope.clone(),
        kind: view.kind.name().to_owned(),
        state: view.state.name().to_owned(),
        acquired: at(acquired_ns),
        deadline: (!is_paused).then(|| at(acquired_ns.saturating_add(allowance_ns))),
        age_ns,
        allowance_ns,
    }
}
