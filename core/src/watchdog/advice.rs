//! Advice: the deadline that a scope's statistics suggest, and how much they are to be trusted.
//!
//! ```text
//! deadline = rounded up (factor x (longest seen + resolution of the clock)), at least 1 s
//! ```
//!
//! The fewer acquires were seen, the less the longest of them says about the next, and the wider the
//! margin ([`Confidence::factor`]). Of n acquires that are alike, the chance that the next takes longer
//! than all of them is 1 in n + 1; of the margin beyond that nothing can be proved, it is a margin.

use crate::wire::stats::{BUCKETS, Counts, bucket_begins_ns};
use crate::wire::time::{MAX_TIMEOUT, duration_ns};

/// The shortest deadline that is suggested, ns: below it the machine's own delays decide.
pub const LEAST_NS: u64 = SECOND_NS;
const SECOND_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60 * SECOND_NS;
const HOUR_NS: u64 = 60 * MINUTE_NS;

/// How many acquires must lie beyond a quantile for it to be sound.
const BEYOND: f64 = 10.0;

/// How much a scope's statistics are to be trusted, by the number of acquires that ended by a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// None ended yet.
    None,
    /// Fewer than 100.
    Poor,
    /// Fewer than 1,000.
    Fair,
    /// Fewer than 10,000.
    Good,
    /// 10,000 and more.
    High,
}

impl Confidence {
    /// By the number of acquires.
    pub fn of(samples: u64) -> Confidence {
        match samples {
            0 => Confidence::None,
            1..100 => Confidence::Poor,
            100..1_000 => Confidence::Fair,
            1_000..10_000 => Confidence::Good,
            _ => Confidence::High,
        }
    }

    /// What the longest is multiplied by.
    pub fn factor(self) -> u64 {
        match self {
            Confidence::None | Confidence::Poor => 10,
            Confidence::Fair => 5,
            Confidence::Good => 3,
            Confidence::High => 2,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Confidence::None => "none",
            Confidence::Poor => "poor",
            Confidence::Fair => "fair",
            Confidence::Good => "good",
            Confidence::High => "high",
        }
    }
}

/// Whether enough acquires lie beyond `quantile` (0 to 1) for it to mean something: ten.
pub fn is_sound(quantile: f64, samples: u64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a count of 2^53 needs no last digit")]
    let beyond = samples as f64 * (1.0 - quantile);
    beyond > BEYOND - 1e-6
}

/// What is suggested for a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The deadline, ns; `None` where no acquire has ended.
    pub deadline_ns: Option<u64>,
    /// How much it is to be trusted.
    pub confidence: Confidence,
    /// The acquires it rests on.
    pub samples: u64,
    /// The longest of them, ns.
    pub longest_ns: u64,
}

impl Advice {
    /// What `counts` suggest that were made with a clock of this resolution.
    pub fn of(counts: &Counts, resolution_ns: u64) -> Advice {
        let samples = counts.released();
        let confidence = Confidence::of(samples);
        let longest_ns = longest_ns(counts);
        let deadline_ns = (samples > 0).then(|| {
            let seen_ns = longest_ns.saturating_add(resolution_ns);
            let wide_ns = seen_ns.saturating_mul(confidence.factor());
            rounded_up_ns(wide_ns.max(LEAST_NS))
        });
        Advice { deadline_ns, confidence, samples, longest_ns }
    }
}

/// The longest duration that `counts` tell of: the maximum, but no less than the histogram says (its
/// writer may be between the two).
fn longest_ns(counts: &Counts) -> u64 {
    let last = (0..BUCKETS).rev().find(|&bucket| counts.buckets[bucket] > 0);
    last.map_or(0, bucket_begins_ns).max(counts.max_ns)
}

/// Rounded up to a number that is pleasant to read: two digits or so, whole minutes from ten minutes
/// on. At most [`MAX_TIMEOUT`].
fn rounded_up_ns(ns: u64) -> u64 {
    const STEPS: [(u64, u64); 5] = [
        (10 * SECOND_NS, SECOND_NS / 10),
        (MINUTE_NS, SECOND_NS),
        (10 * MINUTE_NS, 10 * SECOND_NS),
        (HOUR_NS, MINUTE_NS),
        (10 * HOUR_NS, 10 * MINUTE_NS),
    ];
    let step = STEPS.iter().find(|(below, _)| ns < *below).map_or(HOUR_NS, |(_, step)| *step);
    let most = duration_ns(MAX_TIMEOUT);
    ns.min(most).next_multiple_of(step).min(most)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::stats::bucket;

    fn counts(durations: &[(u64, u64)]) -> Counts {
        let mut counts = Counts::default();
        for &(duration_ns, times) in durations {
            counts.buckets[bucket(duration_ns)] += times;
            counts.max_ns = counts.max_ns.max(duration_ns);
        }
        counts
    }

    fn check(durations: &[(u64, u64)], seconds: f64, confidence: Confidence) {
        let advice = Advice::of(&counts(durations), 0);
        let deadline = core::time::Duration::from_secs_f64(seconds);
        assert_eq!(advice.deadline_ns, Some(duration_ns(deadline)), "{advice:?}");
        assert_eq!(advice.confidence, confidence);
    }

    #[test]
    fn the_margin_shrinks_as_confidence_grows() {
        let (short, long) = (SECOND_NS / 100, 4 * SECOND_NS);
        check(&[(long, 1)], 40.0, Confidence::Poor);
        check(&[(short, 99), (long, 1)], 20.0, Confidence::Fair);
        check(&[(short, 999), (long, 1)], 12.0, Confidence::Good);
        check(&[(short, 9_999), (long, 1)], 8.0, Confidence::High);
    }

    #[test]
    fn deadlines_are_pleasant_to_read_and_not_below_a_second() {
        check(&[(1_000, 5)], 1.0, Confidence::Poor);
        check(&[(123_456_789, 5)], 1.3, Confidence::Poor);
        check(&[(1_234_567_890, 5)], 13.0, Confidence::Poor);
        check(&[(12_345_678_900, 5)], 130.0, Confidence::Poor);
        check(&[(123_456_789_000, 5)], 1_260.0, Confidence::Poor);
        check(&[(1_234_567_890_000, 5)], 12_600.0, Confidence::Poor);
        check(&[(12_345_678_900_000, 5)], 126_000.0, Confidence::Poor);
    }

    #[test]
    fn nothing_is_suggested_where_nothing_was_seen() {
        let advice = Advice::of(&Counts::default(), 4_000_000);
        assert_eq!((advice.deadline_ns, advice.confidence), (None, Confidence::None));
    }

    #[test]
    fn a_quantile_needs_ten_beyond_it() {
        assert!(is_sound(0.5, 20) && !is_sound(0.5, 19));
        assert!(is_sound(0.99, 1_000) && !is_sound(0.99, 999));
        assert!(is_sound(0.999, 10_000) && !is_sound(0.999, 9_999));
    }
}
