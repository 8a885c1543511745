//! The advice against whatever may have been seen: it never suggests less, and never less for less.

use hangwatch_core::watchdog::advice::{Advice, Confidence, LEAST_NS};
use hangwatch_core::wire::stats::{BUCKETS, Counts, bucket};
use hangwatch_core::wire::time::{MAX_TIMEOUT, duration_ns};
use proptest::prelude::*;

fn counts_of(durations_ns: &[u64]) -> Counts {
    let mut counts = Counts::default();
    for &duration_ns in durations_ns {
        counts.acquired += 1;
        counts.buckets[bucket(duration_ns)] += 1;
        counts.max_ns = counts.max_ns.max(duration_ns);
    }
    counts
}

/// Durations of all orders, from nanoseconds to beyond ten years.
fn duration() -> impl Strategy<Value = u64> {
    (0u32..64, any::<u64>()).prop_map(|(shift, bits)| bits >> shift)
}

fn most_ns() -> u64 {
    duration_ns(MAX_TIMEOUT)
}

proptest! {
    #[test]
    fn never_less_than_was_seen(
        durations in prop::collection::vec(duration(), 1..200),
        resolution_ns in 0u64..10_000_000,
    ) {
        let advice = Advice::of(&counts_of(&durations), resolution_ns);
        let deadline_ns = advice.deadline_ns.unwrap();
        let longest_ns = *durations.iter().max().unwrap();
        let margin_ns = longest_ns.saturating_mul(advice.confidence.factor());
        prop_assert!(deadline_ns >= margin_ns.min(most_ns()), "{advice:?} for {longest_ns}");
        prop_assert!((LEAST_NS..=most_ns()).contains(&deadline_ns), "{advice:?}");
        prop_assert!(deadline_ns >= (longest_ns.saturating_add(resolution_ns)).min(most_ns()));
        prop_assert_eq!(advice.longest_ns, longest_ns);
    }

    #[test]
    fn what_took_longer_never_suggests_less(
        durations in prop::collection::vec(duration(), 1..50),
        longer_ns in 0u64..u64::MAX / 2,
    ) {
        let longer: Vec<u64> = durations.iter().map(|ns| ns.saturating_add(longer_ns)).collect();
        let [before, after] = [&durations, &longer].map(|seen| Advice::of(&counts_of(seen), 0));
        prop_assert!(after.deadline_ns >= before.deadline_ns);
    }

    #[test]
    fn more_of_the_same_gives_more_confidence_and_no_wider_margin(
        counts in prop::array::uniform2(1u64..100_000),
        at in 0..BUCKETS - 1,
    ) {
        let of = |samples| {
            let mut counts = Counts { acquired: samples, ..Counts::default() };
            counts.buckets[at] = samples;
            counts.max_ns = hangwatch_core::wire::stats::bucket_begins_ns(at);
            Advice::of(&counts, 0)
        };
        let (few, many) = (of(counts[0].min(counts[1])), of(counts[0].max(counts[1])));
        prop_assert!(few.confidence <= many.confidence);
        prop_assert!(few.deadline_ns >= many.deadline_ns);
    }

    /// A segment may hold anything.
    #[test]
    fn whatever_is_read_the_advice_is_a_deadline_or_none(
        words in prop::collection::vec(any::<u64>(), BUCKETS),
        max_ns in any::<u64>(),
        resolution_ns in any::<u64>(),
    ) {
        let mut counts = Counts { max_ns, ..Counts::default() };
        counts.buckets.copy_from_slice(&words);
        let advice = Advice::of(&counts, resolution_ns);
        let is_deadline = advice.deadline_ns.is_none_or(|ns| (LEAST_NS..=most_ns()).contains(&ns));
        prop_assert!(is_deadline, "{advice:?}");
        prop_assert_eq!(advice.deadline_ns.is_none(), advice.confidence == Confidence::None);
    }
}
