//! Points in time and the unit of a deadline on the wire.
//!
//! Every time is `CLOCK_MONOTONIC` in nanoseconds since boot ([`Nanos`]); no decision reads the
//! wall clock. A deadline travels in a timer word as a count of [`UNIT_NS`], rounded up.

use core::ops::Add;
use core::time::Duration;

/// Nanoseconds of one deadline unit: a deadline fires up to this much late, never early.
pub const UNIT_NS: u64 = 1 << UNIT_SHIFT;
const UNIT_SHIFT: u32 = 10;

/// The bits a deadline has in a timer word: 2^50 units of 1,024 ns, 36 years of uptime.
pub const DEADLINE_BITS: u32 = 50;

/// The longest time a timer may be armed for: ten years. Anything above is refused as absurd.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(10 * 365 * 24);

/// A point in time: nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Later than everything: the deadline of a timer that has none.
    pub const NEVER: Nanos = Nanos(u64::MAX);

    /// Nanoseconds from `earlier` to `self`; 0 where `earlier` is the later one.
    #[inline]
    pub fn since(self, earlier: Nanos) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` moved on by `ns`, at most to [`Nanos::NEVER`].
    #[inline]
    #[must_use]
    pub fn plus(self, ns: u64) -> Nanos {
        Nanos(self.0.saturating_add(ns))
    }
}

impl Add<Duration> for Nanos {
    type Output = Nanos;

    #[inline]
    fn add(self, duration: Duration) -> Nanos {
        self.plus(duration_ns(duration))
    }
}

/// A duration in nanoseconds, at most `u64::MAX`.
#[inline]
pub fn duration_ns(duration: Duration) -> u64 {
    // Two 64-bit operations where `as_nanos` would take 128-bit ones on the hot path.
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(duration.subsec_nanos()))
}

/// A deadline as the wire carries it: whole units, rounded up, clamped to [`DEADLINE_BITS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(u64);

impl Units {
    /// The last deadline the wire can express.
    pub const MAX: Units = Units((1 << DEADLINE_BITS) - 1);

    /// The first unit at or after `at`.
    #[inline]
    pub fn at_or_after(at: Nanos) -> Units {
        Units((at.0.saturating_add(UNIT_NS - 1) >> UNIT_SHIFT).min(Units::MAX.0))
    }

    /// The last unit that has begun at `now`: a timer is due when its deadline is at most this.
    #[inline]
    pub fn begun_by(now: Nanos) -> Units {
        Units((now.0 >> UNIT_SHIFT).min(Units::MAX.0))
    }

    /// Reads the low [`DEADLINE_BITS`] of `bits`.
    #[inline]
    pub fn from_bits(bits: u64) -> Units {
        Units(bits & Units::MAX.0)
    }

    /// The count of units, at most [`Units::MAX`].
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The instant this unit begins.
    #[inline]
    pub fn begins(self) -> Nanos {
        Nanos(self.0 << UNIT_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_round_up_and_are_due_no_earlier_than_asked() {
        for at in [0, 1, 1023, 1024, 1025, 123_456_789, u64::MAX >> 8] {
            let units = Units::at_or_after(Nanos(at));
            assert!(units.begins().0 >= at, "{at} came early");
            assert!(units.begins().0 - at < UNIT_NS, "{at} came more than a unit late");
            if at > 0 {
                assert!(Units::begun_by(Nanos(at - 1)) < units, "{at} was due before its time");
            }
            assert!(Units::begun_by(units.begins()) >= units, "{at} was not due at its time");
        }
    }

    #[test]
    fn absurd_deadlines_clamp() {
        assert_eq!(Units::at_or_after(Nanos::NEVER), Units::MAX);
        assert_eq!(Nanos(5).plus(u64::MAX), Nanos::NEVER);
        assert_eq!(duration_ns(Duration::MAX), u64::MAX);
    }
}
