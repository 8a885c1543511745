//! Limits the log: a token bucket of bytes.
//!
//! So endless logging cannot fill a disk. Lines left out are counted; the next line that fits has the count.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The most that can be written at once, bytes: about an hour of log of a large job with errors.
const MOST_AT_ONCE: u64 = 16 << 20;
/// The long-term limit, bytes per second.
const BYTES_PER_S: u64 = 128 << 10;

/// Whether a line may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes; this many lines were left out since the last one.
    Written { left_out: u64 },
    /// No, it is left out.
    LeftOut,
}

/// The token bucket.
#[derive(Debug)]
pub(super) struct Meter(Mutex<Level>);

#[derive(Debug)]
struct Level {
    bytes: u64,
    at: Instant,
    left_out: u64,
}

impl Meter {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Meter {
        Meter(Mutex::new(Level { bytes: MOST_AT_ONCE, at: now, left_out: 0 }))
    }

    /// Takes this many bytes, if the bucket has them.
    pub(super) fn take(&self, bytes: usize, now: Instant) -> Verdict {
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since_ms = now.saturating_duration_since(level.at).as_millis();
        let earned = u64::try_from(since_ms).unwrap_or(u64::MAX).saturating_mul(BYTES_PER_S) / 1000;
        if earned > 0 {
            level.bytes = level.bytes.saturating_add(earned).min(MOST_AT_ONCE);
            level.at = now;
        }
        let Some(left) = level.bytes.checked_sub(bytes as u64) else {
            level.left_out += 1;
            return Verdict::LeftOut;
        };
        level.bytes = left;
        Verdict::Written { left_out: std::mem::take(&mut level.left_out) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_what_is_left_out_is_counted() {
        let begun = Instant::now();
        let meter = Meter::new(begun);
        let line = 8 << 10;
        let written =
            |now| (0..100_000).filter(|_| meter.take(line, now) != Verdict::LeftOut).count();
        assert_eq!(written(begun), (MOST_AT_ONCE as usize) / line);
        let later = begun + Duration::from_secs(1);
        let left_out = 100_000 - MOST_AT_ONCE / line as u64;
        assert_eq!(meter.take(line, later), Verdict::Written { left_out });
        assert_eq!(written(later), (BYTES_PER_S as usize) / line - 1);
        let long_after = begun + Duration::from_secs(100_000);
        assert!(matches!(meter.take(line, long_after), Verdict::Written { left_out: 1.. }));
        assert_eq!(meter.take(line, long_after), Verdict::Written { left_out: 0 });
    }
}
