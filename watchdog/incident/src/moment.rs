//! Moments: one point in time on both clocks.

use std::time::{Duration, SystemTime};

use hangwatch_core::wire::time::Nanos;

use crate::schema::Moment;

/// The last second of the year 9999, counted from 1970.
const LAST_SECOND: u64 = 253_402_300_799;

/// `CLOCK_MONOTONIC` in nanoseconds.
fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = now.tv_sec.unsigned_abs();
    seconds.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}

/// The wall clock beside the monotonic one, read at the same time. For people: nothing is decided by
/// it, and a step of the wall clock later changes nothing of what is told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    wall: SystemTime,
    monotonic: Nanos,
}

impl Clocks {
    /// Both clocks, now.
    pub fn now() -> Clocks {
        let monotonic = Nanos(monotonic_ns());
        Clocks { wall: SystemTime::now(), monotonic }
    }

    /// What the wall clock said, or will say, at a time of the monotonic one: from 1970 to 9999, however
    /// wrong the clock is, since RFC 3339 has no form for other years and to write one panics.
    pub fn wall(self, at: Nanos) -> SystemTime {
        let Clocks { wall, monotonic } = self;
        let first = SystemTime::UNIX_EPOCH;
        let last = first + Duration::from_secs(LAST_SECOND);
        let moved = if at >= monotonic {
            wall.checked_add(Duration::from_nanos(at.since(monotonic))).unwrap_or(last)
        } else {
            wall.checked_sub(Duration::from_nanos(monotonic.since(at))).unwrap_or(first)
        };
        moved.clamp(first, last)
    }

    /// The name of an incident: when, in which segment, which process.
    pub fn incident_id(self, at: Nanos, segment: &str, pid: u32) -> String {
        let time = humantime::format_rfc3339_micros(self.wall(at)).to_string();
        format!("{}-{segment}-{pid}", time.replace(['-', ':'], ""))
    }

    /// A time of the monotonic clock on both.
    pub fn moment(self, at: Nanos) -> Moment {
        let utc = humantime::format_rfc3339_nanos(self.wall(at)).to_string();
        Moment { utc, monotonic_ns: at.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_on_both_clocks() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let clocks = Clocks { wall, monotonic: Nanos(5_000_000_000) };
        let utc = |ns| clocks.moment(Nanos(ns)).utc;
        assert_eq!(utc(5_000_000_000), "1970-01-01T00:16:40.000000000Z");
        assert_eq!(utc(4_500_000_000), "1970-01-01T00:16:39.500000000Z");
        assert_eq!(utc(6_000_000_001), "1970-01-01T00:16:41.000000001Z");
        assert!(utc(u64::MAX).starts_with("2554-"), "{}", utc(u64::MAX));
    }

    #[test]
    fn a_clock_before_1970_or_after_9999_is_told_at_its_end() {
        let day = Duration::from_hours(24);
        let check = |wall: SystemTime, year: &str| {
            let clocks = Clocks { wall, monotonic: Nanos(5_000_000_000) };
            for at in [0, 5_000_000_000, u64::MAX] {
                let (id, utc) =
                    (clocks.incident_id(Nanos(at), "job", 7), clocks.moment(Nanos(at)).utc);
                assert!(id.starts_with(year) && id.ends_with("-job-7"), "{id}");
                assert!(utc.starts_with(year), "{utc}");
            }
        };
        check(SystemTime::UNIX_EPOCH - 400_000 * day, "1970");
        check(SystemTime::UNIX_EPOCH + 4_000_000 * day, "9999");
    }
}
