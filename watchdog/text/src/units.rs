//! Quantities as short text.

use std::time::Duration;

/// A duration in at most seven characters: `140ns`, `950us`, `12.3s`, `4m05s`, `3h12m`, `2d05h`.
pub fn brief(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if (1..1_000).contains(&duration.as_nanos()) => format!("{}ns", duration.as_nanos()),
        0 if duration.as_millis() == 0 => format!("{}us", duration.as_micros()),
        0 => format!("{}ms", duration.as_millis()),
        1..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Nanoseconds as milliseconds, rounded to three decimals, so that JSON is short.
#[expect(clippy::cast_precision_loss, reason = "milliseconds with a fraction are for reading")]
pub fn ms(ns: u64) -> f64 {
    (ns as f64 / 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_brief() {
        let check = |ms: u64, text: &str| assert_eq!(brief(Duration::from_millis(ms)), text);
        check(0, "0us");
        assert_eq!(brief(Duration::from_nanos(140)), "140ns");
        assert_eq!(brief(Duration::from_nanos(1_040)), "1us");
        check(12, "12ms");
        check(12_340, "12.3s");
        check(245_000, "4m05s");
        check(11_520_000, "3h12m");
        check(190_800_000, "2d05h");
    }

    #[test]
    fn milliseconds_have_three_decimals_at_most() {
        for us in (0..2_000_000_u64).step_by(7).chain([1_073_741_823, 86_400_000_001]) {
            let shown = ms(us * 1000 + 499).to_string();
            let decimals = shown.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            assert!(decimals <= 3, "{shown}");
        }
    }
}
