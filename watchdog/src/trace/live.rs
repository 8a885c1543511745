//! What a segment holds now, as if it were an incident's: its workers and their lanes.

use hangwatch::{LaneView, RecordView, Segment, TimerView};
use hangwatch_core::record::Operation;
use hangwatch_core::timer::TimerState;

use crate::incident::schema::{Lane, Moment, Record, Timer, Worker};

/// More records than any ring holds.
const ALL: usize = usize::MAX;

/// A segment at one time.
pub(super) struct Seen {
    pub(super) at_ns: u64,
    pub(super) workers: Vec<(Worker, Vec<Lane>)>,
}

/// What is in a segment now.
pub(super) fn seen(segment: Segment) -> Seen {
    // The timers first: records that are younger than they complete them.
    let picture = segment.picture();
    let at_ns = picture.at.0;
    let mut workers: Vec<(Worker, Vec<Lane>)> = Vec::new();
    for view in &picture.lanes {
        let lane = lane(view, segment.recent_records(view.lane, ALL), at_ns);
        match workers.iter_mut().find(|(worker, _)| worker.pid == Some(view.pid)) {
            Some((_, lanes)) => lanes.push(lane),
            None => workers.push((worker(view), vec![lane])),
        }
    }
    workers.sort_by_key(|(worker, _)| (worker.rank.is_none(), worker.rank, worker.pid));
    Seen { at_ns, workers }
}

fn worker(view: &LaneView) -> Worker {
    Worker {
        pid: Some(view.pid),
        job: view.job.clone(),
        rank: view.rank.map(u64::from),
        world_size: (view.world_size > 0).then_some(u64::from(view.world_size)),
        local_rank: view.local_rank.map(u64::from),
        ..Worker::default()
    }
}

fn lane(view: &LaneView, records: Vec<RecordView>, at_ns: u64) -> Lane {
    Lane {
        lane: view.lane,
        tid: u64::from(view.tid),
        thread: view.thread.clone(),
        timers: view.timers.iter().map(|timer| open(timer, view.lane, at_ns)).collect(),
        records: records.into_iter().map(record).collect(),
        records_lost: 0,
    }
}

fn open(view: &TimerView, lane: u32, at_ns: u64) -> Timer {
    let nanos =
        |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let at = |monotonic_ns| Moment { monotonic_ns, ..Moment::default() };
    let (age_ns, allowance_ns) = (nanos(view.age), nanos(view.allowance));
    let acquired_ns = at_ns.saturating_sub(age_ns);
    let is_paused = view.state == TimerState::Paused;
    Timer {
        lane,
        timer: view.timer,
        scope: view.scope.clone(),
        kind: format!("{:?}", view.kind).to_lowercase(),
        state: format!("{:?}", view.state).to_lowercase(),
        acquired: at(acquired_ns),
        deadline: (!is_paused).then(|| at(acquired_ns.saturating_add(allowance_ns))),
        age_ns,
        allowance_ns,
    }
}

fn record(view: RecordView) -> Record {
    Record {
        at_ns: view.at.0,
        operation: match view.operation {
            Operation::Acquire => "acquire",
            Operation::Rearm => "rearm",
            Operation::Release => "release",
            Operation::TooLate => "too_late",
            Operation::Pause => "pause",
            Operation::Resume => "resume",
            Operation::Abandon => "abandon",
        }
        .to_owned(),
        lane: view.lane,
        timer: view.timer,
        scope: view.scope,
        deadline_ns: view.deadline.map(|deadline| deadline.0),
    }
}
