//! The flight record, with names: what anyone may read of what a thread did last.

use hangwatch_core::shared::flight;
use hangwatch_core::wire::record::{Operation, Record};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::segment::Segment as Words;
use hangwatch_core::wire::time::Nanos;

use crate::observe::timer_scope_name;
use crate::segment::Segment;

/// One record of a lane's ring. The owner's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordView {
    /// What happened.
    pub operation: Operation,
    /// When, by the owner's clock: see [`LaneView::clock`](crate::LaneView::clock).
    pub at: Nanos,
    /// The timer it happened to, an index in `lane`.
    pub timer: u16,
    /// The lane of that timer: another one, where a guard was moved to this thread.
    pub lane: u32,
    /// The scope's name; of a pause, its reason.
    pub scope: String,
    /// The new deadline, of an acquire, an extension or a kick.
    pub deadline: Option<Nanos>,
}

impl Default for RecordView {
    /// An acquire at time 0; for tests of what shows views.
    fn default() -> Self {
        RecordView {
            operation: Operation::Acquire,
            at: Nanos(0),
            timer: 0,
            lane: 0,
            scope: String::new(),
            deadline: None,
        }
    }
}

impl Segment {
    /// The flight record of a lane: the newest records in its ring, up to `most`, the oldest first
    /// and without a gap. Empty where there is no such lane, or nothing was recorded since its owner
    /// attached.
    ///
    /// It may be read while the owner works, and after its death for as long as the lane has not been
    /// given to another. Its releases by other threads stand in *their* lanes' rings.
    ///
    /// ```
    /// use std::time::Duration;
    /// # let name = format!("doc-records-{}", std::process::id());
    /// # hangwatch::Segment::create(&name, hangwatch::CreateOptions::default())?;
    /// let worker = hangwatch::Worker::attach(name.as_str())?;
    /// drop(worker.expires("forward", Duration::from_secs(30))?);
    ///
    /// let segment = hangwatch::Segment::open(&name)?;
    /// let records = segment.recent_records(0, 10);
    /// assert_eq!(records.len(), 2, "an acquire and its release");
    /// assert!(records.iter().all(|record| record.scope == "forward"));
    /// # hangwatch::Segment::remove(&name)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recent_records(&self, lane: u32, most: usize) -> Vec<RecordView> {
        recent_records(&self.words(), lane, most)
    }
}

/// As [`Segment::recent_records`].
pub(crate) fn recent_records(words: &Words<'_>, lane: u32, most: usize) -> Vec<RecordView> {
    if lane >= words.geometry().lanes {
        return Vec::new();
    }
    let view = |record: Record| RecordView {
        operation: record.operation,
        at: record.at,
        timer: record.timer,
        lane: record.lane,
        scope: timer_scope_name(words, record.lane, record.timer, ScopeId(record.scope)),
        deadline: Some(record.deadline).filter(|deadline| *deadline != Nanos(0)),
    };
    flight::latest(words.lane(lane), most).into_iter().map(view).collect()
}
