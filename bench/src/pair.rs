//! Acquire and release on the worker, everything on, beside a bare clock read.

use std::hint::black_box;
use std::time::Duration;

use hangwatch::sys::clock;
use hangwatch::{ClockKind, CreateOptions, Nanos, Scope, Segment, WorkerOptions};
use hangwatch_core::shared::calibration::Calibration;

use crate::measure::{median, ns_each};

/// The clocks a worker may have.
pub const CLOCKS: [ClockKind; 3] = [ClockKind::Counter, ClockKind::System, ClockKind::Coarse];

/// A segment of this process, with the calibration a watchdog would publish.
pub struct Bench {
    segment: Segment,
}

impl Bench {
    /// Makes the segment.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new() -> Bench {
        let name = format!("bench-pair-{}", std::process::id());
        let segment = Segment::create(&name, CreateOptions::default()).expect("a segment");
        let bench = Bench { segment };
        bench.calibrate();
        bench
    }

    /// The segment.
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// Publishes the counter's rate: see [`calibrate`].
    pub fn calibrate(&self) {
        calibrate(self.segment);
    }

    /// Calls `with` on a thread of its own, for a lane has one clock, with a scope timed by `kind`.
    ///
    /// # Panics
    /// Where the thread cannot attach, or `with` panics.
    pub fn with_scope<R: Send>(&self, kind: ClockKind, with: impl FnOnce(Scope) -> R + Send) -> R {
        let options = WorkerOptions::new().clock(kind);
        let run = || {
            let worker = options.attach_to(self.segment).expect("a free lane");
            with(worker.scope("pair").expect("a name"))
        };
        std::thread::scope(|threads| threads.spawn(run).join().expect("the pair ran"))
    }

    /// The medians of a pair and of a bare `clock_gettime(CLOCK_MONOTONIC)`, ns, in `rounds`
    /// rounds of `count` each, in turn: what disturbs one disturbs the other.
    pub fn beside_clock(&self, kind: ClockKind, rounds: usize, count: usize) -> (f64, f64) {
        self.with_scope(kind, |scope| {
            let mut times = (Vec::new(), Vec::new());
            for round in 0..rounds {
                if round % 100 == 0 {
                    self.calibrate();
                }
                times.0.push(ns_each(count, || pair(&scope)));
                times.1.push(ns_each(count, clock_read));
            }
            (median(&times.0), median(&times.1))
        })
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The name alone: this process keeps the mapping.
        let _ = Segment::remove(self.segment.name());
    }
}

/// Publishes the counter's rate, as a watchdog does twice a second, where none is at work. Within
/// [`STALE_NS`](hangwatch_core::shared::calibration::STALE_NS) it must be done again: from then on a worker goes
/// by the system clock.
///
/// # Panics
/// Where the clock stands still.
pub fn calibrate(segment: Segment) {
    let sample = || {
        let sample = clock::sample_pair();
        (sample.counter, Nanos(sample.monotonic_ns))
    };
    let first = sample();
    std::thread::sleep(Duration::from_millis(20));
    let calibration = Calibration::between(first, sample()).expect("the clock runs");
    segment.words().publish_calibration(calibration);
}

/// One acquire and its release. The guard is in memory in between, as it is around any real work.
///
/// # Panics
/// Where no timer is free.
#[inline]
pub fn pair(scope: &Scope) {
    let guard = scope.expires(Duration::from_secs(30)).expect("a free timer");
    black_box(&guard);
}

/// One bare `clock_gettime(CLOCK_MONOTONIC)`.
#[inline]
pub fn clock_read() {
    black_box(clock::monotonic_ns());
}
