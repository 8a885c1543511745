//! Claims: what a lane says of its worker and of its timers, in the words of the [`schema`](hangwatch_incident::schema).

use hangwatch::{LaneView, Operation, RecordView};

use hangwatch_incident::schema::{Record, Worker};

/// What a lane's owner said about itself; no word of the kernel's is in it.
pub fn worker(view: &LaneView) -> Worker {
    Worker {
        job: view.job.clone(),
        rank: view.rank.map(u64::from),
        world_size: Some(u64::from(view.world_size)).filter(|&size| size > 0),
        local_rank: view.local_rank.map(u64::from),
        ..Worker::default()
    }
}

/// One record of a lane's ring.
pub fn record(view: RecordView) -> Record {
    Record {
        at_ns: view.at.0,
        operation: operation_name(view.operation).to_owned(),
        lane: view.lane,
        timer: view.timer,
        scope: view.scope,
        deadline_ns: view.deadline.map(|deadline| deadline.0),
    }
}

/// The name of an operation, as [`Record::operation`] has it.
fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Acquire => "acquire",
        Operation::Rearm => "rearm",
        Operation::Release => "release",
        Operation::TooLate => "too_late",
        Operation::Pause => "pause",
        Operation::Resume => "resume",
    }
}
