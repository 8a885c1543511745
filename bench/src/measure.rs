//! Taking the time on a machine that others use too: short rounds, contenders in turn, medians.

use std::time::{Duration, Instant};

/// Nanoseconds each, of `count` calls.
#[expect(clippy::cast_precision_loss, reason = "a count of a few million")]
pub fn ns_each(count: usize, mut once: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| once());
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// The value that the fraction `quantile` of `values` is at or under.
///
/// # Panics
/// Where there are no values.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a quantile of a few thousand values"
)]
pub fn quantile(values: &[f64], quantile: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(quantile * (sorted.len() - 1) as f64).round() as usize]
}

/// The value in the middle.
///
/// # Panics
/// Where there are no values.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The processor time this process has used, all threads together.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::from_secs(time.tv_sec.cast_unsigned())
        + Duration::from_nanos(time.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_sample() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        let found = [0.0, 0.5, 0.99, 1.0].map(|at| format!("{}", quantile(&values, at)));
        assert_eq!(found, ["0", "50", "99", "100"]);
    }
}
