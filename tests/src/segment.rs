//! A segment for one test.

use std::sync::atomic::{AtomicU32, Ordering};

use hangwatch::sys::clock::monotonic_ns;
use hangwatch::{CreateOptions, Geometry, Observation, Segment};
use hangwatch_core::wire::lane::{AllowedBy, LaneState, TimerDetail, TimerKind, TimerSignal};
use hangwatch_core::wire::scope::OTHER;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::stats::Counts;
use hangwatch_core::wire::time::{Nanos, Units};

use crate::{Actor, Watchdog};

/// A segment of a test's own, removed at its end.
pub struct Stage {
    /// The segment.
    pub segment: Segment,
}

impl Stage {
    /// A small segment: 16 lanes of 8 timers.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new(test: &str) -> Stage {
        Stage::with(test, CreateOptions { geometry: Stage::geometry(16), ..Default::default() })
    }

    /// A segment with these options.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn with(test: &str, options: CreateOptions) -> Stage {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{test}-{}-{count}", std::process::id());
        Stage { segment: Segment::create(&name, options).unwrap() }
    }

    /// A small geometry of so many lanes.
    pub fn geometry(lanes: u32) -> Geometry {
        Geometry { lanes, timers: 8, records: 64, scopes: 32, lane_scopes: 8 }
    }

    /// The segment's name.
    pub fn name(&self) -> &'static str {
        self.segment.name()
    }

    /// Where its file is.
    pub fn path(&self) -> String {
        format!("/dev/shm/hangwatch.{}", self.name())
    }

    /// A watchdog process over it, serving.
    pub fn watchdog(&self, options: &[&str]) -> Watchdog {
        Watchdog::start(self.name(), options, &[])
    }

    /// A worker process attached to it.
    pub fn actor(&self) -> Actor {
        let mut actor = Actor::start(self.name(), &[]);
        actor.tell("attach");
        actor
    }

    /// A picture of it.
    pub fn picture(&self) -> Observation {
        self.segment.picture()
    }

    /// One of the watchdog's counters.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.segment.words().counter(counter).load(Ordering::Relaxed)
    }

    /// The lanes that are not free, also those on their way to or from a worker.
    pub fn lanes_in_use(&self) -> Vec<u32> {
        let words = self.segment.words();
        let is_used = |lane: &u32| words.lane(*lane).owner().state() != Some(LaneState::Free);
        (0..words.geometry().lanes).filter(is_used).collect()
    }

    /// What of a lane its owner alone writes: the owner word, the timers, how much it has recorded.
    pub fn words_of(&self, lane: u32) -> Vec<u64> {
        let lane = self.segment.words().lane(lane);
        let timers = lane.timers().iter().map(|word| word.load(Ordering::Acquire));
        timers.chain([lane.owner().0, lane.head().load(Ordering::Acquire)]).collect()
    }

    /// The sum of all scopes' counts.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.picture().scopes.iter().for_each(|scope| sum.add(&scope.counts));
        sum
    }

    /// Arms the first timer of a lane as its owner would, with a deadline that has passed.
    ///
    /// # Panics
    /// Where there is no such lane.
    pub fn arm_overdue(&self, lane: u32) {
        let lane = self.segment.words().lane(lane);
        let now = Nanos(monotonic_ns());
        let detail = TimerDetail {
            acquired_at: now,
            scope: OTHER,
            signal: TimerSignal::Signal(9),
            kind: TimerKind::Guard,
            allowed_by: AllowedBy::Acquire,
            meeting: None,
        };
        lane.write_detail(0, detail);
        lane.timer(0).expect("a lane has timers").arm(Units::at_or_after(now));
    }

    /// How many lanes somebody owns.
    pub fn lanes_taken(&self) -> usize {
        self.picture().lanes.len()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // A test may have removed it itself.
        let _ = Segment::remove(self.segment.name());
    }
}
