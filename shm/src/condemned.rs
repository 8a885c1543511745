//! What the watchdog has condemned of the calling process: why it gets the signal it gets.

use std::time::Duration;

use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::TimerState;

use crate::error::OpenError;
use crate::observe::{LaneView, TimerView};
use crate::segment::Segment;
use crate::sys::claim::Claim;

/// A timer of this process whose deadline has passed, and for which the watchdog is about to signal
/// it, or has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condemned {
    /// The segment's name.
    pub segment: String,
    /// Its lane.
    pub lane: u32,
    /// Its index in the lane.
    pub timer: u16,
    /// When it was acquired or last kicked, `CLOCK_MONOTONIC`: with the three above, which acquire of
    /// this process it was.
    pub acquired_at: Nanos,
    /// The name of the thread whose lane it is in, empty where it has none.
    pub thread: String,
    /// Its scope's name.
    pub scope: String,
    /// The time it had.
    pub timeout: Duration,
    /// How long ago that was over.
    pub late: Duration,
}

impl Segment {
    /// The timers of the calling process that the watchdog has condemned, in all segments this process
    /// has open, the longest overdue first.
    ///
    /// A process that catches a signal knows by this whether the watchdog sent it for a deadline: a
    /// timer is condemned before its process is signalled, and stays so until the process is dead.
    ///
    /// ```no_run
    /// for overdue in hangwatch::Segment::condemned()? {
    ///     eprintln!("overdue in {:?}, which had {:?}", overdue.scope, overdue.timeout);
    /// }
    /// # Ok::<(), hangwatch::OpenError>(())
    /// ```
    ///
    /// It takes locks and allocates: do not call it in a signal handler itself, which may have interrupted
    /// a holder of those locks. Let the handler wake a thread (or, in Python, let the interpreter run the
    /// handler), and call it there.
    ///
    /// # Errors
    /// [`OpenError`], where the kernel has no memory for it.
    pub fn condemned() -> Result<Vec<Condemned>, OpenError> {
        let own = Claim::own();
        let mut found = Vec::new();
        for segment in Segment::opened()? {
            let seen = segment.picture();
            let own_lanes = seen
                .lanes
                .iter()
                .filter(|lane| lane.pid == own.pid && segment.is_lane_of(lane.lane, &own));
            found.extend(own_lanes.flat_map(|lane| condemned_of(segment, lane, seen.at)));
        }
        found.sort_by_key(|condemned| std::cmp::Reverse(condemned.late));
        Ok(found)
    }

    /// Whether a process of this very claim attached to the lane; pids alone may be of another PID
    /// namespace.
    fn is_lane_of(self, lane: u32, claim: &Claim) -> bool {
        let identity = self.words().lane(lane).identity();
        identity.start_ticks == claim.start_ticks && identity.pid_namespace == claim.pid_namespace
    }
}

fn condemned_of(segment: Segment, lane: &LaneView, at: Nanos) -> Vec<Condemned> {
    let condemned = |timer: &TimerView| {
        let left_ns = timer.left_ns.unwrap_or(0);
        Condemned {
            segment: segment.name().to_owned(),
            lane: lane.lane,
            timer: timer.timer,
            acquired_at: Nanos(at.0.saturating_sub(timer.age.as_nanos() as u64)),
            thread: lane.thread.clone(),
            scope: timer.scope.clone(),
            timeout: timer.timeout,
            late: Duration::from_nanos(left_ns.min(0).unsigned_abs()),
        }
    };
    let timers = lane.timers.iter().filter(|timer| timer.state == TimerState::Condemned);
    timers.map(condemned).collect()
}
