//! The calibration: how a worker turns the processor's counter into `CLOCK_MONOTONIC`.
//!
//! The watchdog publishes (counter, time, multiplier) in the header under a sequence word. A worker
//! takes only the rate from it, and only once two readings of its own prove that rate
//! ([`Calibration::proved_by`]): it counts from its own last reading, for [`VALID_NS`] at most, which is
//! no longer than the time the proof spans. Absent, stale or absurd, a calibration is not used: the
//! worker reads the system clock.
//!
//! What the counter clock may be off by is [`TOLERANCE_NS`], the sum of three parts:
//!
//! * the last reading, half of [`WINDOW_NS`];
//! * the rate as proved, [`RATE_NS`] over [`VALID_NS`];
//! * a change of the kernel's rate after the proof, [`SLEW_NS`] over [`VALID_NS`]: NTP steers the
//!   system clock by up to 500 ppm to either side (`MAXFREQ` in the kernel), so by 1,000 ppm from one
//!   rate to the next. (`adjtimex` may also set a tick of another length, by up to 10 %; the counter
//!   clock is then wrong by up to 0.3 ms until the next proof refuses it.)

use crate::wire::clock::ClockKind;
use crate::wire::segment::{CALIBRATION, Segment};
use crate::wire::stamped::Stamped;
use crate::wire::time::Nanos;

/// How often the watchdog renews the calibration, ns.
pub const RENEW_NS: u64 = 500_000_000;
/// How long a worker trusts a rate before it reads both clocks again, and the least time between the
/// two readings that prove it, ns.
pub const VALID_NS: u64 = 3_000_000;
/// A calibration older than this is stale, ns: the watchdog is gone or stopped.
pub const STALE_NS: u64 = 3_000_000_000;
/// The widest window, ns, in which a worker may have read both clocks together.
pub const WINDOW_NS: u64 = 4_000;
/// What a proved rate may be off by over [`VALID_NS`], ns.
pub const RATE_NS: u64 = 5_000;
/// What the kernel's rate may change by over [`VALID_NS`], ns: 1,000 ppm.
pub const SLEW_NS: u64 = VALID_NS / 1_000;
/// How far the counter clock may be from the system clock, ns: a deadline is put off by as much.
pub const TOLERANCE_NS: u64 = WINDOW_NS / 2 + RATE_NS + SLEW_NS;

const SHIFT: u32 = 32;

/// How far behind the system clock `CLOCK_MONOTONIC_COARSE` may be, ns: a tick of the slowest kernel.
pub const COARSE_TOLERANCE_NS: u64 = 10_000_000;

impl ClockKind {
    /// How far a time by this clock may be from the system clock, ns.
    pub fn tolerance_ns(self) -> u64 {
        match self {
            ClockKind::System => 0,
            ClockKind::Counter => TOLERANCE_NS,
            ClockKind::Coarse => COARSE_TOLERANCE_NS,
        }
    }
}

/// One point where counter and clock were read together, and the rate between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    /// The counter.
    pub counter: u64,
    /// The time then.
    pub at: Nanos,
    /// Nanoseconds a count, times 2^32. Never 0 in a usable calibration.
    pub multiplier: u64,
}

/// The counter and the system clock, read together by a worker itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The counter.
    pub counter: u64,
    /// The time then.
    pub at: Nanos,
    /// `at` is right within this much to either side, ns.
    pub uncertainty_ns: u64,
}

impl Calibration {
    /// The calibration through two readings, `None` where they lie too close or run backwards.
    pub fn between(from: (u64, Nanos), to: (u64, Nanos)) -> Option<Calibration> {
        let counts = to.0.checked_sub(from.0)?;
        let ns = to.1.0.checked_sub(from.1.0)?;
        if counts < 1000 || ns < 1000 {
            return None;
        }
        let multiplier = (u128::from(ns) << SHIFT) / u128::from(counts);
        Some(Calibration { counter: to.0, at: to.1, multiplier: u64::try_from(multiplier).ok()? })
    }

    /// The time when the counter read `counter`.
    #[inline]
    pub fn time(&self, counter: u64) -> Nanos {
        Nanos(self.at.0.wrapping_add(self.span_ns(counter.wrapping_sub(self.counter))))
    }

    /// The nanoseconds of `counts` counts.
    #[inline]
    pub fn span_ns(&self, counts: u64) -> u64 {
        ((u128::from(counts) * u128::from(self.multiplier)) >> SHIFT) as u64
    }

    /// The counts of `ns` nanoseconds, at least 1; `u64::MAX` where there is no rate.
    pub fn counts(&self, ns: u64) -> u64 {
        (u128::from(ns) << SHIFT)
            .checked_div(u128::from(self.multiplier))
            .map_or(u64::MAX, |counts| u64::try_from(counts).unwrap_or(u64::MAX).max(1))
    }

    /// Whether it was published lately: its rate is worth a proof.
    pub fn is_current(&self, now: Nanos) -> bool {
        self.multiplier != 0 && self.at <= now && now.since(self.at) <= STALE_NS
    }

    /// This calibration's rate, counted from the reading `now`, where the reading `earlier` proves the
    /// rate: what it returns is right within [`TOLERANCE_NS`] for [`VALID_NS`] after `now`.
    ///
    /// Nothing else of the calibration is used, so its counter and time need not be right.
    pub fn proved_by(&self, earlier: Reading, now: Reading) -> Option<Calibration> {
        let age_ns = now.at.since(earlier.at);
        let counts = now.counter.checked_sub(earlier.counter)?;
        let is_narrow = |reading: Reading| reading.uncertainty_ns <= WINDOW_NS / 2;
        if self.multiplier == 0 || age_ns < VALID_NS || !is_narrow(earlier) || !is_narrow(now) {
            return None;
        }
        let told_ns = u64::try_from((u128::from(counts) * u128::from(self.multiplier)) >> SHIFT);
        let off_ns = told_ns.ok()?.abs_diff(age_ns) + earlier.uncertainty_ns + now.uncertainty_ns;
        // What it was off by over the whole age, brought down to the time it is trusted for.
        let is_proved =
            u128::from(off_ns) * u128::from(VALID_NS) <= u128::from(RATE_NS) * u128::from(age_ns);
        is_proved.then_some(Calibration {
            counter: now.counter,
            at: now.at,
            multiplier: self.multiplier,
        })
    }
}

impl Segment<'_> {
    /// Publishes a calibration. The watchdog's alone.
    pub fn publish_calibration(&self, calibration: Calibration) {
        let words = self.calibration_words();
        // Culprit while it is written.
        let writing = words.stamp().wrapping_add(1) | 1;
        let Calibration { counter, at, multiplier } = calibration;
        words.write(writing, [counter, at.0, multiplier], writing.wrapping_add(1));
    }

    /// The published calibration; `None` where there is none or it is being written.
    pub fn calibration(&self) -> Option<Calibration> {
        let words = self.calibration_words();
        let stamp = words.stamp();
        if stamp == 0 || !stamp.is_multiple_of(2) {
            return None;
        }
        let [counter, at, multiplier] = words.read(stamp)?;
        Some(Calibration { counter, at: Nanos(at), multiplier })
    }

    fn calibration_words(&self) -> Stamped<'_, 3> {
        let [stamp, words @ ..] = self.block::<4>(CALIBRATION);
        Stamped { stamp, words: words.each_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_tells_the_time_it_was_made_from() {
        let made = Calibration::between((1_000, Nanos(50)), (3_000_001_000, Nanos(1_000_000_050)));
        let made = made.unwrap();
        assert_eq!(made.time(3_000_001_000), Nanos(1_000_000_050));
        assert!(made.time(6_000_001_000).0.abs_diff(2_000_000_050) <= 1);
        assert!(made.counts(1_000_000_000).abs_diff(3_000_000_000) <= 1);
    }

    fn reading(counter: u64, at: u64) -> Reading {
        Reading { counter, at: Nanos(at), uncertainty_ns: 100 }
    }

    /// The smallest error that passed: 399 ppm off, for a whole second.
    #[test]
    fn a_rate_is_trusted_no_longer_than_it_was_proved_for() {
        let off_by_399_ppm = Calibration {
            counter: 0,
            at: Nanos(0),
            multiplier: (1 << SHIFT) - (1 << SHIFT) * 399 / 1_000_000,
        };
        let (base, now) = (10_000_000, 20_000_000);
        let kept = off_by_399_ppm.proved_by(reading(base, base), reading(now, now)).unwrap();
        let last = now + kept.counts(VALID_NS);
        assert!(kept.time(last).0.abs_diff(last) <= TOLERANCE_NS, "{kept:?}");
        assert!(VALID_NS <= now - base, "it is proved for longer than it is trusted");
    }

    #[test]
    fn a_calibration_is_proved_by_two_readings_far_enough_apart() {
        let right = Calibration { counter: 77, at: Nanos(5), multiplier: 1 << SHIFT };
        let first = reading(1_000, 1_000);
        let second = reading(1_000 + VALID_NS, 1_000 + VALID_NS);
        let kept = right.proved_by(first, second).unwrap();
        assert_eq!((kept.counter, kept.at), (second.counter, second.at), "counted from there");
        let too_soon = reading(VALID_NS, VALID_NS);
        assert_eq!(right.proved_by(first, too_soon), None);
        assert_eq!(right.proved_by(second, first), None, "backwards");
        let wide = Reading { uncertainty_ns: WINDOW_NS / 2 + 1, ..second };
        assert_eq!(right.proved_by(first, wide), None);
        assert_eq!(right.proved_by(Reading { counter: first.counter, ..wide }, second), None);
        let counter_stopped = Reading { counter: first.counter, ..second };
        assert_eq!(right.proved_by(first, counter_stopped), None);
        for multiplier in [0, 1, (1 << SHIFT) / 2, (1 << SHIFT) * 2, u64::MAX] {
            let absurd = Calibration { multiplier, ..right };
            assert_eq!(absurd.proved_by(first, second), None, "{multiplier}");
        }
    }

    #[test]
    fn a_stale_or_absent_calibration_is_not_current() {
        let good = Calibration { counter: 1000, at: Nanos(1000), multiplier: 1 << SHIFT };
        assert!(good.is_current(Nanos(1000)) && good.is_current(Nanos(1000 + STALE_NS)));
        assert!(!good.is_current(Nanos(1000 + STALE_NS + 1)), "stale");
        assert!(!good.is_current(Nanos(999)), "from the future");
        assert!(!Calibration::default().is_current(Nanos(5)), "absent");
        assert_eq!(Calibration::default().counts(5), u64::MAX);
    }
}
