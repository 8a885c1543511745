//! The counter clock against a system clock that is steered: it is never off by more than it says.
#![cfg(not(loom))]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "times below 2^53 ns, and none below zero"
)]

use hangwatch_core::shared::calibration::{
    Calibration, Reading, TOLERANCE_NS, VALID_NS, WINDOW_NS,
};
use hangwatch_core::wire::time::Nanos;
use proptest::prelude::*;

/// The rate of the clock at its nominal speed: 3 counts a nanosecond.
const COUNTS_A_NS: f64 = 3.0;
const START_NS: f64 = 1e12;

/// A system clock steered within 500 ppm of its nominal rate, changed at one point in time.
#[derive(Clone, Copy, Debug)]
struct Steered {
    before_ppm: f64,
    after_ppm: f64,
    changed_at_counts: f64,
}

impl Steered {
    /// The time when the counter reads `counter`.
    fn time_ns(self, counter: u64) -> f64 {
        let counts = counter as f64;
        let before = counts.min(self.changed_at_counts);
        let after = (counts - self.changed_at_counts).max(0.0);
        let ns = |counts: f64, ppm: f64| counts / COUNTS_A_NS * (1.0 + ppm / 1e6);
        START_NS + ns(before, self.before_ppm) + ns(after, self.after_ppm)
    }

    /// What a worker reads: off by `off`, a fraction of the uncertainty.
    fn read(self, counter: u64, uncertainty_ns: u64, off: f64) -> Reading {
        let at = self.time_ns(counter) + off * uncertainty_ns as f64;
        Reading { counter, at: Nanos(at as u64), uncertainty_ns }
    }
}

fn steered() -> impl Strategy<Value = Steered> {
    (-500.0..500.0, -500.0..500.0, 0.0..1e9).prop_map(
        |(before_ppm, after_ppm, changed_at_counts)| Steered {
            before_ppm,
            after_ppm,
            changed_at_counts,
        },
    )
}

proptest! {
    // A failing case is printed, with the seed to repeat it.
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_counter_clock_is_never_off_by_more_than_it_says(
        clock in steered(),
        claimed_ppm in -4_000.0..4_000.0,
        age_ns in VALID_NS / 2..20 * VALID_NS,
        first_ns in 1_000u64..200_000_000,
        uncertainties in [0..=WINDOW_NS / 2, 0..=WINDOW_NS / 2],
        off in [-1.0..1.0, -1.0..1.0],
        later in 0.0..1.0,
    ) {
        let multiplier = (1.0 + claimed_ppm / 1e6) / COUNTS_A_NS * 2f64.powi(32);
        let claimed = Calibration { counter: 1, at: Nanos(7), multiplier: multiplier as u64 };
        let counter = |ns: u64| (ns as f64 * COUNTS_A_NS) as u64;
        let (from, to) = (counter(first_ns), counter(first_ns + age_ns));
        let earlier = clock.read(from, uncertainties[0], off[0]);
        let now = clock.read(to, uncertainties[1], off[1]);
        if let Some(kept) = claimed.proved_by(earlier, now) {
            let at = to + (kept.counts(VALID_NS) as f64 * later) as u64;
            let off_ns = (kept.time(at).0 as f64 - clock.time_ns(at)).abs();
            // One more for what is rounded to whole nanoseconds here.
            prop_assert!(off_ns <= TOLERANCE_NS as f64 + 2.0, "{off_ns} ns off, {kept:?}");
        }
    }

    #[test]
    fn a_right_rate_is_proved_while_the_clock_is_steered(
        clock in steered(),
        age_ns in 2 * VALID_NS..20 * VALID_NS,
        first_ns in 1_000u64..200_000_000,
    ) {
        let multiplier = (2f64.powi(32) / COUNTS_A_NS) as u64;
        let nominal = Calibration { counter: 1, at: Nanos(7), multiplier };
        let counter = |ns: u64| (ns as f64 * COUNTS_A_NS) as u64;
        let earlier = clock.read(counter(first_ns), 50, 1.0);
        let now = clock.read(counter(first_ns + age_ns), 50, -1.0);
        prop_assert!(nominal.proved_by(earlier, now).is_some(), "{earlier:?} {now:?}");
    }
}
