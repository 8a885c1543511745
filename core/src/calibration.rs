//! The calibration: how a worker turns the processor's counter into `CLOCK_MONOTONIC`.
//!
//! The watchdog publishes (counter, time, multiplier) in the header under a sequence word. A worker
//! copies it, checks the copy against the system clock itself ([`Calibration::holds_at`]) and keeps it
//! for [`VALID_NS`]. Absent, stale or absurd, it is not used: the worker reads the system clock.

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::segment::{CALIBRATION, Segment};
use crate::time::Nanos;

/// How often the watchdog renews the calibration, ns.
pub const RENEW_NS: u64 = 500_000_000;
/// How long a worker trusts its copy before it reads and checks it anew, ns.
pub const VALID_NS: u64 = 1_000_000_000;
/// A calibration older than this is stale, ns: the watchdog is gone or stopped.
pub const STALE_NS: u64 = 3_000_000_000;
/// A calibration younger than this is not used yet, ns. A rate is proved by the time that has passed
/// since: at this age, one that is off by more than 0.04 % is off by more than [`TOLERANCE_NS`].
pub const RIPE_NS: u64 = 10_000_000;
/// How far a calibration may be from the system clock before a worker refuses it, ns.
pub const TOLERANCE_NS: u64 = 4_000;

const SHIFT: u32 = 32;

/// Which clock times an acquire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClockKind {
    /// `clock_gettime(CLOCK_MONOTONIC)`, about 1 ns of resolution.
    #[default]
    System = 0,
    /// The processor's counter, where the kernel's own clock source is that counter.
    Counter = 1,
    /// `CLOCK_MONOTONIC_COARSE`, one kernel tick (1 to 10 ms) of resolution.
    Coarse = 2,
}

impl ClockKind {
    /// From the wire; anything unknown is the system clock.
    pub fn from_bits(bits: u64) -> ClockKind {
        match bits {
            1 => ClockKind::Counter,
            2 => ClockKind::Coarse,
            _ => ClockKind::System,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ClockKind::System => "system",
            ClockKind::Counter => "counter",
            ClockKind::Coarse => "coarse",
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

    /// When this calibration can first be checked, where that is still to come.
    pub fn ripens_after(&self, now: Nanos) -> Option<Nanos> {
        let ripe_at = self.at.plus(RIPE_NS);
        (self.multiplier != 0 && self.at <= now && now < ripe_at).then_some(ripe_at)
    }

    /// Whether this calibration tells the right time, and has done so for long enough to tell its
    /// rate: `counter` and `now` were read together.
    pub fn holds_at(&self, counter: u64, now: Nanos) -> bool {
        self.multiplier != 0
            && self.at.plus(RIPE_NS) <= now
            && now.since(self.at) <= STALE_NS
            && counter >= self.counter
            && self.time(counter).0.abs_diff(now.0) <= TOLERANCE_NS
    }
}

impl Segment<'_> {
    /// Publishes a calibration. The watchdog's alone.
    pub fn publish_calibration(&self, calibration: Calibration) {
        let [sequence, counter, at, multiplier] = self.block::<4>(CALIBRATION);
        let next = sequence.load(Ordering::Relaxed).wrapping_add(1) | 1;
        sequence.store(next, Ordering::Relaxed);
        // Release fence: the odd sequence comes before the values; pairs with the Acquire fence below.
        fence(Ordering::Release);
        counter.store(calibration.counter, Ordering::Relaxed);
        at.store(calibration.at.0, Ordering::Relaxed);
        multiplier.store(calibration.multiplier, Ordering::Relaxed);
        // Release: the values come before the even sequence; pairs with the Acquire load below.
        sequence.store(next.wrapping_add(1), Ordering::Release);
    }

    /// The published calibration; `None` where there is none or it is being written.
    pub fn calibration(&self) -> Option<Calibration> {
        let [sequence, counter, at, multiplier]: &[AtomicU64; 4] = self.block(CALIBRATION);
        let before = sequence.load(Ordering::Acquire);
        let calibration = Calibration {
            counter: counter.load(Ordering::Relaxed),
            at: Nanos(at.load(Ordering::Relaxed)),
            multiplier: multiplier.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let whole = before != 0 && before % 2 == 0 && sequence.load(Ordering::Relaxed) == before;
        whole.then_some(calibration)
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
        assert!(made.holds_at(6_000_001_000, Nanos(2_000_000_050)));
    }

    #[test]
    fn stale_absurd_and_absent_calibrations_do_not_hold() {
        let good = Calibration { counter: 1000, at: Nanos(1000), multiplier: 1 << SHIFT };
        let ripe = 1000 + RIPE_NS;
        assert!(good.holds_at(ripe, Nanos(ripe)));
        assert_eq!(good.ripens_after(Nanos(ripe)), None);
        assert!(!good.holds_at(ripe - 1, Nanos(ripe - 1)), "too young to tell");
        assert_eq!(good.ripens_after(Nanos(ripe - 1)), Some(Nanos(ripe)));
        let slow = Calibration { multiplier: (1 << SHIFT) - (1 << (SHIFT - 11)), ..good };
        assert!(!slow.holds_at(ripe, Nanos(ripe)), "0.05 % slow");
        assert!(!good.holds_at(1000 + STALE_NS + 1, Nanos(1000 + STALE_NS + 1)), "stale");
        assert!(!good.holds_at(ripe, Nanos(ripe + TOLERANCE_NS + 1)), "wrong rate");
        assert!(!good.holds_at(999, Nanos(ripe)), "the counter ran backwards");
        assert!(!Calibration::default().holds_at(5, Nanos(5)), "absent");
        let absurd = Calibration { counter: u64::MAX, at: Nanos(u64::MAX), multiplier: u64::MAX };
        assert!(!absurd.holds_at(5, Nanos(5)));
        assert_eq!(Calibration::default().counts(5), u64::MAX);
    }
}
