//! Statistics of one scope: counts and a duration histogram with four sub-buckets an octave.
//!
//! A lane holds one such block for each scope its thread used, written by that thread alone; the
//! segment holds one total a scope, written by the watchdog alone when it recycles a lane
//! ([`crate::watchdog::fold`]). Both have the same shape, so whoever reads adds them up.
//!
//! Buckets: durations under 256 ns in four steps of 64 ns; from there to 4.9 hours four equal steps
//! an octave, so that a bucket's bounds lie at most 25 % apart; anything longer in the last.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::atomic::{AtomicU64, add_single_writer};

/// The buckets of a histogram.
pub const BUCKETS: usize = 4 + 36 * 4;
/// The words of one block.
pub const STATS_WORDS: usize = FIRST_BUCKET + BUCKETS;

/// One block's words.
pub type StatsWords = [AtomicU64; STATS_WORDS];

const FIRST_OCTAVE: u32 = 8;
const FIRST_BUCKET: usize = 8;

pub(crate) const SCOPE: usize = 0;
pub(crate) const ACQUIRED: usize = 1;
const SUM_NS: usize = 2;
pub(crate) const MAX_NS: usize = 3;
const REPORTED: usize = 4;
pub(crate) const CONDEMNED: usize = 5;
pub(crate) const ABANDONED: usize = 6;
const REARMED: usize = 7;

/// The bucket a duration falls into.
#[inline]
pub fn bucket(duration_ns: u64) -> usize {
    if duration_ns < 1 << FIRST_OCTAVE {
        return (duration_ns >> (FIRST_OCTAVE - 2)) as usize;
    }
    let octave = duration_ns.ilog2();
    let step = (duration_ns >> (octave - 2)) as usize & 3;
    (((octave - FIRST_OCTAVE) as usize + 1) * 4 + step).min(BUCKETS - 1)
}

/// The first duration, in ns, that falls into `bucket`; of `BUCKETS` and above, `u64::MAX`.
pub fn bucket_begins_ns(bucket: usize) -> u64 {
    match bucket {
        0..4 => (bucket as u64) << (FIRST_OCTAVE - 2),
        4..BUCKETS => {
            let octave = FIRST_OCTAVE + (bucket / 4 - 1) as u32;
            (1 << octave) + ((bucket % 4) as u64) * (1 << (octave - 2))
        }
        _ => u64::MAX,
    }
}

/// One scope's block in shared memory.
#[derive(Clone, Copy)]
pub struct ScopeStats<'a>(pub &'a StatsWords);

impl ScopeStats<'_> {
    /// The scope this block counts, `None` where the block is unused. In a total the block's place
    /// says it, and this is unused.
    pub fn scope(self) -> Option<u16> {
        // Acquire: pairs with the Release in `take_for`: the block's counts belong to this scope.
        self.0[SCOPE].load(Acquire).checked_sub(1).map(|scope| scope as u16)
    }

    /// Takes an unused block for `scope`. Only the lane's thread may.
    pub fn take_for(self, scope: u16) {
        self.0[SCOPE].store(u64::from(scope) + 1, Release);
    }

    /// Counts an acquire.
    #[inline]
    pub fn acquired(self) {
        add_single_writer(&self.0[ACQUIRED], 1);
    }

    /// Counts a release in time after `duration_ns`.
    #[inline]
    pub fn released(self, duration_ns: u64) {
        add_single_writer(&self.0[FIRST_BUCKET + bucket(duration_ns)], 1);
        add_single_writer(&self.0[SUM_NS], duration_ns);
        if duration_ns > self.0[MAX_NS].load(Relaxed) {
            self.0[MAX_NS].store(duration_ns, Relaxed);
        }
    }

    /// Counts a release after the deadline had been reported; its duration counts too.
    pub fn reported(self, duration_ns: u64) {
        add_single_writer(&self.0[REPORTED], 1);
        self.released(duration_ns);
    }

    /// Counts a change of deadline while armed.
    #[inline]
    pub fn rearmed(self) {
        add_single_writer(&self.0[REARMED], 1);
    }

    /// How often it was acquired.
    pub fn acquires(self) -> u64 {
        self.0[ACQUIRED].load(Relaxed)
    }

    /// A private copy of the counts.
    pub fn snapshot(self) -> Counts {
        let word = |index: usize| self.0[index].load(Relaxed);
        Counts {
            acquired: word(ACQUIRED),
            sum_ns: word(SUM_NS),
            max_ns: word(MAX_NS),
            reported: word(REPORTED),
            condemned: word(CONDEMNED),
            abandoned: word(ABANDONED),
            rearmed: word(REARMED),
            buckets: core::array::from_fn(|index| word(FIRST_BUCKET + index)),
        }
    }
}

/// A private copy of one scope's counts, or a sum of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Acquires.
    pub acquired: u64,
    /// The sum of all durations, ns, wrapping.
    pub sum_ns: u64,
    /// The longest duration, ns.
    pub max_ns: u64,
    /// Released after a report.
    pub reported: u64,
    /// Condemned by the watchdog.
    pub condemned: u64,
    /// Given up armed, or died with.
    pub abandoned: u64,
    /// Changes of deadline while armed.
    pub rearmed: u64,
    /// Durations by bucket.
    pub buckets: [u64; BUCKETS],
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            acquired: 0,
            sum_ns: 0,
            max_ns: 0,
            reported: 0,
            condemned: 0,
            abandoned: 0,
            rearmed: 0,
            buckets: [0; BUCKETS],
        }
    }
}

impl Counts {
    /// Acquires that ended by a release, in time or after a report.
    pub fn released(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds another block's counts to these.
    pub fn add(&mut self, other: &Counts) {
        self.acquired = self.acquired.wrapping_add(other.acquired);
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.reported = self.reported.wrapping_add(other.reported);
        self.condemned = self.condemned.wrapping_add(other.condemned);
        self.abandoned = self.abandoned.wrapping_add(other.abandoned);
        self.rearmed = self.rearmed.wrapping_add(other.rearmed);
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket = bucket.wrapping_add(*more);
        }
    }

    /// The duration, ns, that the fraction `quantile` (0 to 1) of releases stayed under or at: the
    /// upper bound of its bucket, but no more than the maximum. 0 where nothing was released.
    pub fn quantile_ns(&self, quantile: f64) -> u64 {
        let released = self.released();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a quantile of 2^53 releases needs no last digit"
        )]
        let rank = (quantile.clamp(0.0, 1.0) * released as f64) as u64;
        let mut below = 0u64;
        for (index, count) in self.buckets.iter().enumerate() {
            below = below.wrapping_add(*count);
            if below > rank || (below == released && released > 0) {
                return bucket_begins_ns(index + 1).saturating_sub(1).min(self.max_ns);
            }
        }
        0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn block() -> StatsWords {
        core::array::from_fn(|_| AtomicU64::new(0))
    }

    #[test]
    fn buckets_tile_the_durations() {
        for index in 0..BUCKETS {
            let begins = bucket_begins_ns(index);
            assert_eq!(bucket(begins), index, "first of {index}");
            if index > 0 {
                assert_eq!(bucket(begins - 1), index - 1, "before the first of {index}");
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_lie_within_a_bucket_of_the_truth() {
        let words = block();
        for duration_us in 1..=1000u64 {
            ScopeStats(&words).released(duration_us * 1000);
        }
        let counts = ScopeStats(&words).snapshot();
        assert_eq!(counts.released(), 1000);
        assert_eq!(counts.quantile_ns(1.0), 1_000_000);
        let median = counts.quantile_ns(0.5);
        assert!((500_000..=625_000).contains(&median), "{median}");
        assert_eq!(Counts::default().quantile_ns(0.5), 0);
    }
}
