//! The worker's clock: the counter where it can be trusted, the system clock, or the coarse one.

use hangwatch_core::calibration::{Calibration, ClockKind, TOLERANCE_NS, VALID_NS};
use hangwatch_core::segment::Segment;
use hangwatch_core::time::{Nanos, UNIT_NS, Units};

use crate::sys::clock::{self, ClockId};

/// How often a calibration is tried before the system clock is used instead: one try may have been
/// interrupted between its two readings.
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
    calibration: Calibration,
    /// Counts after the calibration's own for which it is trusted; 0 where there is none.
    valid_counts: u64,
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
            retry_at: Nanos(0),
        }
    }

    /// Which clock it is.
    pub(crate) fn kind(&self) -> ClockKind {
        self.kind
    }

    /// When a deadline `allowance_ns` from `now` is due: never early by the clock's resolution.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn deadline(&self, now: Nanos, allowance_ns: u64) -> Units {
        // No addition can wrap: the time is no more than 2^60 ns, the allowance below 2^59. `now` is added
        // last, for it is ready last: the release's locked instruction waits for this chain.
        let ahead_ns = allowance_ns + self.round_up_ns;
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

    /// The calibration has come of age: takes the published one, if it tells the time.
    #[cold]
    fn recalibrate(&mut self, segment: &Segment<'_>) -> Nanos {
        let now = Nanos(clock::monotonic_ns());
        if now < self.retry_at {
            return now;
        }
        for _ in 0..TRIES {
            let (counter, now) = (clock::counter(), Nanos(clock::monotonic_ns()));
            let published = segment.calibration();
            if let Some(calibration) = published.filter(|made| made.holds_at(counter, now)) {
                self.calibration = calibration;
                let age = counter.wrapping_sub(calibration.counter);
                self.valid_counts = age.saturating_add(calibration.counts(VALID_NS));
                return now;
            }
        }
        // Absent, stale, absurd or too young to tell: the system clock until the next try.
        self.valid_counts = 0;
        let ripe_at = segment.calibration().and_then(|made| made.ripens_after(now));
        self.retry_at = ripe_at.unwrap_or(now.plus(VALID_NS));
        now
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use hangwatch_core::calibration::{RIPE_NS, STALE_NS};
    use hangwatch_core::layout::Geometry;
    use hangwatch_core::segment::Fixed;

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
            horizon_ns: 100_000_000,
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
        let good = true_calibration(2 * RIPE_NS);
        assert!(uses(Some(good)));
        assert!(uses(Some(true_calibration(0))), "used once it is ripe");
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
        for absurd in [
            Calibration { counter: u64::MAX, ..good },
            Calibration { at: Nanos(u64::MAX), ..good },
            Calibration { at: Nanos(0), ..good },
            Calibration { counter: 0, ..good },
        ] {
            assert!(!uses(Some(absurd)), "{absurd:?}");
        }
    }
}
