//! Parsers of command-line values: durations, signals, fractions, groups.
//!
//! Each error says what is wrong with the value and what to write instead; clap adds the value and the
//! option's name.

use std::fmt;
use std::fs;
use std::time::Duration;

use hangwatch_process::pidfd::signal_of;
use rustix::process::Signal;

use hangwatch_core::wire::signal;
use hangwatch_core::wire::time::MAX_TIMEOUT;

const UNITS: &str = "write a number with a unit, such as 100ms, 5s, 1m30s or 2h; \
                     a number without a unit is in seconds";

/// Parses a duration above zero and of at most ten years: `5s`, `1m30s`, `2.5`.
///
/// # Errors
///
/// What is wrong with the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    match duration_or_zero(text)? {
        Duration::ZERO => Err("must be longer than zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses a duration as [`duration`] does, but also accepts zero.
///
/// # Errors
///
/// What is wrong with the text.
pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("is empty; {UNITS}"));
    }
    if text.starts_with('-') {
        return Err("must not be negative".to_owned());
    }
    let too_long = || format!("is longer than ten years ({}s)", MAX_TIMEOUT.as_secs());
    // humantime reads M as months: a typo for minutes would make the deadline useless.
    if text.contains('M') {
        return Err("has the unit M; write m for minutes, or use days".to_owned());
    }
    let duration = match decimal(text) {
        Some(seconds) if seconds.is_nan() => return Err(format!("is not a duration; {UNITS}")),
        // What a `Duration` cannot hold is above ten years in any case.
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| too_long())?,
        None => humantime::parse_duration(text).map_err(|error| match error {
            humantime::DurationError::NumberOverflow => too_long(),
            _ => format!("is not a duration; {UNITS}"),
        })?,
    };
    if duration > MAX_TIMEOUT { Err(too_long()) } else { Ok(duration) }
}

/// Parses the time between two updates of `top`: 100 ms to 1 minute.
///
/// # Errors
///
/// What is wrong with the text.
pub fn refresh(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_mins(1)).contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 100ms to 1m".to_owned())
    }
}

/// Parses `max_interval`, the longest time between two ticks: 1 ms to 1 minute.
///
/// # Errors
///
/// What is wrong with the text.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if hangwatch::MAX_INTERVALS.contains(&interval) {
        Ok(interval)
    } else {
        Err("must be from 1ms to 1m".to_owned())
    }
}

/// Parses a number with or without a fraction, and with at most one unit, into seconds.
///
/// `None` for any other notation. humantime accepts neither fractions nor numbers without a unit.
fn decimal(text: &str) -> Option<f64> {
    let (number, scale) = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
        .into_iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))
        .unwrap_or((text, 1.0));
    let number = number.trim_end();
    let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && number.bytes().any(|byte| byte.is_ascii_digit());
    // humantime parses whole numbers with a unit exactly; this code would round.
    let bare = number.len() == text.len();
    (is_decimal && (bare || number.contains('.')))
        .then(|| number.parse().ok())?
        .map(|n: f64| n * scale)
}

/// The first signal of a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReapSignal {
    /// No signal: overdue workers are only reported.
    NotifyOnly,
    /// This signal.
    Signal(Signal),
}

impl ReapSignal {
    /// The signal's number, 1 to 64; `None` if nothing is signalled.
    pub fn number(self) -> Option<u8> {
        match self {
            Self::NotifyOnly => None,
            Self::Signal(signal) => u8::try_from(signal.as_raw()).ok(),
        }
    }
}

/// Writes it as on the command line: `KILL`, `none`.
impl fmt::Display for ReapSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotifyOnly => f.write_str("none"),
            Self::Signal(_) => f.write_str(self.number().and_then(signal::name).unwrap_or("?")),
        }
    }
}

/// Checks a regular expression.
///
/// # Errors
///
/// What is wrong with the expression.
pub fn expression(text: &str) -> Result<String, String> {
    match regex::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a signal that ends a process, by name or number: `KILL`, `SIGKILL`, `9`, `RTMIN+1`; or `none`.
///
/// # Errors
///
/// What is wrong with the text.
pub fn reap_signal(text: &str) -> Result<ReapSignal, String> {
    let upper = text.trim().to_ascii_uppercase();
    if upper == "NONE" {
        return Ok(ReapSignal::NotifyOnly);
    }
    let number = signal::number(upper.strip_prefix("SIG").unwrap_or(&upper)).ok_or(
        "is not a signal; use a name such as KILL, SIGTERM, ABRT or RTMIN+1, a number from 1 to 64, \
         or none to send no signal",
    )?;
    signal_of(number).filter(|_| signal::ends_a_process(number)).map(ReapSignal::Signal).ok_or_else(
        || "does not end a process; use a signal such as KILL, TERM, INT or ABRT".to_owned(),
    )
}

/// Parses a fraction above 0 and below 1.
///
/// # Errors
///
/// What is wrong with the text.
pub fn fraction(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(fraction) if fraction > 0.0 && fraction < 1.0 => Ok(fraction),
        Ok(_) => Err("must be above 0 and below 1".to_owned()),
        Err(_) => Err("is not a number; write a fraction such as 0.5".to_owned()),
    }
}

/// Parses a group: a number, or a name in `/etc/group`.
///
/// # Errors
///
/// The group does not exist, or `/etc/group` cannot be read.
pub fn group(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        // For chown this number means "do not change the group".
        let is_valid = gid != u32::MAX;
        return is_valid.then_some(gid).ok_or_else(|| "is not the number of a group".to_owned());
    }
    let groups = fs::read_to_string("/etc/group").map_err(|error| {
        format!("cannot be looked up in /etc/group ({error}); give the group's number")
    })?;
    groups
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == text)
        .and_then(|(_, rest)| rest.split(':').nth(1)?.parse().ok())
        .ok_or_else(|| "is not in /etc/group; give the group's number".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::Signal;

    use super::{
        ReapSignal, duration, duration_or_zero, fraction, group, interval, reap_signal, refresh,
    };

    #[test]
    fn durations_are_parsed_as_written() {
        let check = |text: &str, millis: u64| {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        };
        check("5s", 5_000);
        check("100ms", 100);
        check("1m30s", 90_000);
        check("1m 30s", 90_000);
        check("2h", 7_200_000);
        check("5", 5_000);
        check("2.5", 2_500);
        check("2.5s", 2_500);
        check("0.5m", 30_000);
        check("1.5ms 1ms".split_once(' ').unwrap().1, 1);
        check(" 7s ", 7_000);
        assert_eq!(duration("10us"), Ok(Duration::from_micros(10)));
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn malformed_durations_are_refused_with_the_reason() {
        let check = |text: &str, part: &str| {
            let error = duration(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        };
        check("0", "longer than zero");
        check("0s", "longer than zero");
        check("0.0", "longer than zero");
        check("-5s", "negative");
        check("-1", "negative");
        check("", "empty");
        check("  ", "empty");
        check("11y", "ten years");
        check("99999999999999999999s", "ten years");
        check("1e9", "not a duration");
        check("99999999999999999999999999", "ten years");
        check("five", "not a duration");
        check("5 parsecs", "not a duration");
        check("5M", "m for minutes");
        check("1h 5M", "m for minutes");
        check("inf", "not a duration");
        check("nan", "not a duration");
        check("1.2.3", "not a duration");
        check(".", "not a duration");
        check("5s!", "not a duration");
    }

    #[test]
    fn intervals_have_bounds() {
        assert_eq!(interval("100ms"), Ok(Duration::from_millis(100)));
        assert!(interval("999us").unwrap_err().contains("1ms to 1m"));
        assert!(interval("61s").unwrap_err().contains("1ms to 1m"));
        assert_eq!(refresh("0.25"), Ok(Duration::from_millis(250)));
        assert!(refresh("99ms").unwrap_err().contains("100ms to 1m"));
    }

    #[test]
    fn signals_are_parsed_by_name_and_number() {
        let check = |text: &str, signal: Signal, shown: &str| {
            let read = reap_signal(text).unwrap();
            assert_eq!(read, ReapSignal::Signal(signal), "{text}");
            assert_eq!(read.to_string(), shown);
            assert_eq!(read.number().map(i32::from), Some(signal.as_raw()));
        };
        check("KILL", Signal::KILL, "KILL");
        check("SIGKILL", Signal::KILL, "KILL");
        check("kill", Signal::KILL, "KILL");
        check("9", Signal::KILL, "KILL");
        check("sigterm", Signal::TERM, "TERM");
        check("6", Signal::ABORT, "ABRT");
        check("16", Signal::STKFLT, "STKFLT");
        assert_eq!(reap_signal("none"), Ok(ReapSignal::NotifyOnly));
        assert_eq!(ReapSignal::NotifyOnly.number(), None);
        for text in ["STOP", "19", "CONT", "SIGCHLD", "17"] {
            assert!(reap_signal(text).unwrap_err().contains("does not end"), "{text}");
        }
        for text in
            ["", "0", "-9", "65", "99", "256", "BANG", "SIG", "RTMIN-1", "RTMIN+31", "RTMAX+1"]
        {
            assert!(reap_signal(text).unwrap_err().contains("is not a signal"), "{text}");
        }
    }

    #[test]
    fn real_time_signals_are_parsed_by_name_and_number() {
        let check = |text: &str, number: u8, shown: &str| {
            let read = reap_signal(text).unwrap();
            assert_eq!((read.number(), read.to_string().as_str()), (Some(number), shown), "{text}");
            assert_eq!(
                reap_signal(shown),
                Ok(read),
                "the displayed name parses to the same signal"
            );
        };
        check("32", 32, "32");
        check("34", 34, "RTMIN");
        check("SIGRTMIN", 34, "RTMIN");
        check("rtmin+1", 35, "RTMIN+1");
        check("RTMIN+16", 50, "RTMAX-14");
        check("RTMAX-30", 34, "RTMIN");
        check("SIGRTMAX", 64, "RTMAX");
        check("64", 64, "RTMAX");
        let ending = (1..=64).filter(|number| reap_signal(&number.to_string()).is_ok()).count();
        assert_eq!(ending, 64 - 8, "all except signals that stop, continue or do nothing");
    }

    #[test]
    fn fractions_and_groups_are_checked() {
        assert_eq!(fraction("0.5"), Ok(0.5));
        for text in ["0", "1", "-0.5", "2", "nan", "half"] {
            assert!(fraction(text).is_err(), "{text}");
        }
        assert_eq!(group("root"), Ok(0));
        assert_eq!(group("42"), Ok(42));
        assert!(group("4294967295").unwrap_err().contains("not the number"));
        assert!(group("no-such-group-here").unwrap_err().contains("/etc/group"));
    }
}
