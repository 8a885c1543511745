//! Moments: one point in time on both clocks.

use std::time::{Duration, SystemTime};

use hangwatch_core::time::Nanos;

use super::schema::Moment;

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
        let monotonic = Nanos(hangwatch::sys::clock::monotonic_ns());
        Clocks { wall: SystemTime::now(), monotonic }
    }

    /// What the wall clock said, or will say, at a time of the monotonic one.
    pub fn wall(self, at: Nanos) -> SystemTime {
        let Clocks { wall, monotonic } = self;
        let moved = if at >= monotonic {
            wall.checked_add(Duration::from_nanos(at.since(monotonic)))
        } else {
            wall.checked_sub(Duration::from_nanos(monotonic.since(at)))
        };
        moved.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// The name of an incident: when, in which segment, which process.
    pub fn incident_id(self, at: Nanos, segment: &str, pid: u32) -> String {
        let time = humantime::format_rfc3339_micros(self.wall(at)).to_string();
        format!("{}-{segment}-{pid}", time.replace(['-', ':'], ""))
    }

    /// A time of the monotonic clock on both.
    pub fn moment(self, at: Nanos) -> Moment {
        // Beyond the year 9999, which no deadline of use is, RFC 3339 has no form.
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        let utc = humantime::format_rfc3339_nanos(self.wall(at).min(last)).to_string();
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
}
