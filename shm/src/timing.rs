//! The worker's clock: the counter where it can be trusted, the system clock, or the coarse one.

use hangwatch_core::shared::calibration::{
    Calibration, Reading, TOLERANCE_NS, VALID_NS, WINDOW_NS,
};
use hangwatch_core::wire::clock::ClockKind;
use hangwatch_core::wire::segment::Segment;
use hangwatch_core::wire::time::{Nanos, UNIT_NS, Units};

use crate::sys::clock::{self, ClockId};

/// How often both clocks are read before the system clock is used instead: a try may be interrupted
/// between its readings.
const TRIES: u32 = 3;

/// One thread's clock over one segment.
#[derive(Debug)]
pub(crate) struct Timing {
    kind: ClockKind,
    /// The system's clock that is read where the counter is not.
    system: ClockId,
    /// What a deadline is put off by so that it is never early, ns: the clock's resolution, and
    /// what rounds it up to a whole unit.
    round_up_ns: u64,
    /// The published rate, counted from this thread's own last reading.
    calibration: Calibration,
    /// Counts after the calibration's own for which it is trusted; 0 where there is none.
    valid_counts: u64,
    /// This thread's last reading of both clocks: with the next one it proves a rate.
    earlier: Option<Reading>,
    /// Without a calibration: when to try for one again.
    retry_at: Nanos,
}

impl Timing {
    /// A clock of `kind`; the counter only where the kernel's own clock is that counter.
    pub(crate) fn new(kind: ClockKind) -> Timing {
        let kind = match kind {
            ClockKind::Counter if !clock::counter_is_system_clock() => ClockKind::System,
            kind => kind,
        };
        let resolution_ns = match kind {
            ClockKind::System => 0,
            ClockKind::Counter => TOLERANCE_NS,
            ClockKind::Coarse => clock::coarse_resolution_ns(),
        };
        Timing {
            kind,
            system: match kind {
                ClockKind::Coarse => ClockId::MonotonicCoarse,
                ClockKind::System | ClockKind::Counter => ClockId::Monotonic,
            },
            round_up_ns: resolution_ns + (UNIT_NS - 1),
            calibration: Calibration::default(),
            valid_counts: 0,
            earlier: None,
            retry_at: Nanos(0),
        }
    }

    /// Which clock it is.
    pub(crate) fn kind(&self) -> ClockKind {
        self.kind
    }

    /// When a deadline `timeout_ns` from `now` is due: never early by the clock's resolution.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn deadline(&self, now: Nanos, timeout_ns: u64) -> Units {
        // No addition can wrap: the time is no more than 2^60 ns, the timeout below 2^59. `now` is added
        // last, for it is ready last: the release's locked instruction waits for this chain.
        let ahead_ns = timeout_ns + self.round_up_ns;
        Units::begun_by(Nanos(now.0 + ahead_ns))
    }

    /// The time.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn now(&mut self, segment: &Segment<'_>) -> Nanos {
        match self.kind {
            ClockKind::Counter => {
                let counter = clock::counter();
                let counts = counter.wrapping_sub(self.calibration.counter);
                if counts < self.valid_counts {
                    self.calibration.time(counter)
                } else {
                    self.recalibrate(segment)
                }
            }
            // One call for both: a second would spill every register around it once more.
            ClockKind::System | ClockKind::Coarse => Nanos(clock::read_ns(self.system)),
        }
    }

    /// The calibration has expired, or there is none: reads both clocks, and takes the published rate
    /// if this reading and the one before it prove it.
    #[cold]
    fn recalibrate(&mut self, segment: &Segment<'_>) -> Nanos {
        let now = Nanos(clock::monotonic_ns());
        if now < self.retry_at {
            return now;
        }
        self.valid_counts = 0;
        self.retry_at = now.plus(VALID_NS);
        let Some(published) = segment.calibration().filter(|made| made.is_current(now)) else {
            return now;
        };
        let reading = read_together();
        let earlier = std::mem::replace(&mut self.earlier, reading);
        let Some(reading) = reading else { return now };
        if let Some(proved) = earlier.and_then(|earlier| published.proved_by(earlier, reading)) {
            self.calibration = proved;
            self.valid_counts = proved.counts(VALID_NS);
            self.retry_at = Nanos(0);
        }
        reading.at
    }
}

/// The counter and the system clock, if they can be read within [`WINDOW_NS`].
fn read_together() -> Option<Reading> {
    (0..TRIES).find_map(|_| {
        let sample = clock::sample_once();
        (sample.uncertainty_ns <= WINDOW_NS / 2).then_some(Reading {
            counter: sample.counter,
            at: Nanos(sample.monotonic_ns),
            uncertainty_ns: sample.uncertainty_ns,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use hangwatch_core::shared::calibration::STALE_NS;
    use hangwatch_core::wire::layout::Geometry;
    use hangwatch_core::wire::segment::Fixed;

    use super::*;

    /// One second in counts and multiplier, measured here.
    fn true_calibration(age_ns: u64) -> Calibration {
        let first = clock::sample_pair();
        while clock::monotonic_ns() < first.monotonic_ns + 20_000_000 {}
        let last = clock::sample_pair();
        let pair = |sample: clock::CounterSample| (sample.counter, Nanos(sample.monotonic_ns));
        let made = Calibration::between(pair(first), pair(last)).unwrap();
        Calibration {
            counter: made.counter - made.counts(age_ns),
            at: Nanos(made.at.0 - age_ns),
            ..made
        }
    }

    /// A clock over a segment with `published` in its header tells the time of the system; whether it
    /// has gone by what was published.
    fn uses(published: Option<Calibration>) -> bool {
        uses_made(|| published)
    }

    /// As [`uses`], of a calibration made at the last moment.
    fn uses_made(make: impl FnOnce() -> Option<Calibration>) -> bool {
        let fixed = Fixed {
            geometry: Geometry { lanes: 1, ..Geometry::default() },
            compatible_features: 0,
            incompatible_features: 0,
            boot_id: [1, 2],
            time_namespace: 3,
            incarnation: 4,
            max_interval_ns: 100_000_000,
            created_at: Nanos(5),
        };
        let words: Vec<AtomicU64> =
            (0..fixed.geometry.check().unwrap().words()).map(|_| AtomicU64::new(0)).collect();
        let segment = Segment::format(&words, fixed).unwrap();
        let mut timing = Timing::new(ClockKind::Counter);
        let until = clock::monotonic_ns() + 30_000_000;
        let published = make();
        if let Some(published) = published {
            segment.publish_calibration(published);
        }
        timing.now(&segment);
        loop {
            let before = clock::monotonic_ns();
            let now = timing.now(&segment).0;
            let after = clock::monotonic_ns();
            let window = before - 2 * TOLERANCE_NS..=after + 2 * TOLERANCE_NS;
            assert!(window.contains(&now), "{published:?}: {now} is not within {window:?}");
            if after > until {
                return timing.valid_counts > 0;
            }
        }
    }

    #[test]
    fn a_calibration_is_used_if_and_only_if_it_tells_the_time() {
        if !clock::counter_is_system_clock() {
            println!("skipped: the kernel does not keep time by the counter here");
            return;
        }
        // A calibration that cannot be checked closely enough, since this thread was interrupted each time,
        // is not used: so it is with one of a few.
        assert!((0..100).any(|_| uses(Some(true_calibration(0)))));
        let good = true_calibration(0);
        assert!(!uses(None), "absent");
        assert!(!uses(Some(Calibration::default())), "withdrawn");
        assert!(!uses(Some(true_calibration(STALE_NS + 1_000_000_000))), "stale");
        for multiplier in [1, good.multiplier / 1000, good.multiplier * 2, u64::MAX] {
            let made = || {
                let at = Nanos(clock::monotonic_ns());
                Some(Calibration { counter: clock::counter(), at, multiplier })
            };
            assert!(!uses_made(made), "right for now, but at an absurd rate: {multiplier}");
        }
        for absurd in
            [Calibration { at: Nanos(u64::MAX), ..good }, Calibration { at: Nanos(0), ..good }]
        {
            assert!(!uses(Some(absurd)), "{absurd:?}");
        }
        for only_the_rate_is_right in [
            Calibration { counter: u64::MAX, ..true_calibration(0) },
            Calibration { counter: 0, ..true_calibration(0) },
        ] {
            uses(Some(only_the_rate_is_right));
        }
    }
}
