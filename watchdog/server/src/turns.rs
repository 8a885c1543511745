//! Turns: how long a helper keeps its place while other cases wait for one.
//!
//! The stacks of all workers matter more than the symbols of a few. A helper that has sent its stacks and
//! still resolves symbols makes room after its share of the time for a case that had no helper yet. If no
//! case waits, it may use all of its time.

use hangwatch_core::wire::time::Nanos;

/// Returns when the turn of a helper ends that started at `since` and has until `until` at most, while
/// `waiting` cases wait for one of `places`.
pub(super) fn turn_ends(since: Nanos, until: Nanos, waiting: usize, places: usize) -> Nanos {
    let (places, cases) = (places.max(1) as u128, (places.max(1) + waiting) as u128);
    let share_ns = u128::from(until.since(since)) * places / cases;
    // At most `until - since`, so it fits.
    Nanos(since.0.saturating_add(u64::try_from(share_ns).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_waiting_case_gets_an_equal_turn() {
        let check = |cases: usize, places: usize, turn_ns: u64| {
            let (mut now, until, mut left) = (Nanos(1000), Nanos(2_000_001_000), cases);
            while left > places {
                left -= places;
                let ends = turn_ends(now, until, left, places);
                // Every round takes equally long.
                assert!(ends.since(now).abs_diff(turn_ns) < 100, "{left} left: {ends:?}");
                now = ends;
            }
            assert_eq!(turn_ends(now, until, 0, places), until);
        };
        check(64, 4, 125_000_000);
        check(6, 2, 666_666_666);
        check(3, 4, 0);
    }

    #[test]
    fn turn_that_is_over_is_not_extended() {
        assert_eq!(turn_ends(Nanos(9), Nanos(5), 3, 2), Nanos(9));
        assert_eq!(turn_ends(Nanos(0), Nanos(u64::MAX), 0, 2), Nanos(u64::MAX));
    }
}
