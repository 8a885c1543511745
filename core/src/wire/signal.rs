//! Signals by name and number, as Linux numbers them on `x86_64` and `aarch64` (`signal(7)`).

use alloc::format;
use alloc::string::String;

/// Signals 1 to 31 in order, without SIG, and whether the default action ends the process.
const STANDARD: [(&str, bool); 31] = [
    ("HUP", true),
    ("INT", true),
    ("QUIT", true),
    ("ILL", true),
    ("TRAP", true),
    ("ABRT", true),
    ("BUS", true),
    ("FPE", true),
    ("KILL", true),
    ("USR1", true),
    ("SEGV", true),
    ("USR2", true),
    ("PIPE", true),
    ("ALRM", true),
    ("TERM", true),
    ("STKFLT", true),
    ("CHLD", false),
    ("CONT", false),
    ("STOP", false),
    ("TSTP", false),
    ("TTIN", false),
    ("TTOU", false),
    ("URG", false),
    ("XCPU", true),
    ("XFSZ", true),
    ("VTALRM", true),
    ("PROF", true),
    ("WINCH", false),
    ("IO", true),
    ("PWR", true),
    ("SYS", true),
];

/// The kernel's first real-time signal. The C library keeps 32 and 33 for itself.
const FIRST_REAL_TIME: u8 = 32;

/// Signals 32 to 64 in order, without SIG. The C library calls 34 `SIGRTMIN`, and so does Python.
const REAL_TIME: [&str; 33] = [
    "32", "33", "RTMIN", "RTMIN+1", "RTMIN+2", "RTMIN+3", "RTMIN+4", "RTMIN+5", "RTMIN+6",
    "RTMIN+7", "RTMIN+8", "RTMIN+9", "RTMIN+10", "RTMIN+11", "RTMIN+12", "RTMIN+13", "RTMIN+14",
    "RTMIN+15", "RTMAX-14", "RTMAX-13", "RTMAX-12", "RTMAX-11", "RTMAX-10", "RTMAX-9", "RTMAX-8",
    "RTMAX-7", "RTMAX-6", "RTMAX-5", "RTMAX-4", "RTMAX-3", "RTMAX-2", "RTMAX-1", "RTMAX",
];

/// `SIGRTMIN` and `SIGRTMAX` of the C library.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

/// The highest signal number.
pub const LAST: u8 = RTMAX;

/// Returns the name of a signal without SIG, or `None` for a number that is not 1 to 64.
///
/// ```
/// assert_eq!(hangwatch_core::wire::signal::name(15), Some("TERM"));
/// assert_eq!(hangwatch_core::wire::signal::name(35), Some("RTMIN+1"));
/// assert_eq!(hangwatch_core::wire::signal::name(0), None);
/// ```
pub fn name(number: u8) -> Option<&'static str> {
    match number {
        1..FIRST_REAL_TIME => STANDARD.get(usize::from(number) - 1).map(|(name, _)| *name),
        _ => REAL_TIME.get(usize::from(number.checked_sub(FIRST_REAL_TIME)?)).copied(),
    }
}

/// Returns a signal as people write it: `SIGTERM`; `signal 33` where it has no name.
pub fn spelled(number: u8) -> String {
    match name(number) {
        Some(name) if name.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            format!("SIG{name}")
        }
        _ => format!("signal {number}"),
    }
}

/// Returns the number of a signal from its name without SIG, in capitals, or from its digits:
/// `TERM`, `RTMIN+1`, `RTMAX-2`, `9`.
pub fn number(name: &str) -> Option<u8> {
    let by_name = STANDARD.iter().position(|(known, _)| *known == name);
    let by_name = by_name.and_then(|at| u8::try_from(at + 1).ok());
    by_name.or_else(|| real_time(name)).or_else(|| {
        let number: u8 = name.parse().ok()?;
        (1..=LAST).contains(&number).then_some(number)
    })
}

/// Whether a process that does not handle the signal ends by it.
pub fn ends_a_process(number: u8) -> bool {
    match number {
        1..FIRST_REAL_TIME => STANDARD[usize::from(number) - 1].1,
        _ => (FIRST_REAL_TIME..=LAST).contains(&number),
    }
}

/// The number of `RTMIN`, `RTMAX`, `RTMIN+n` or `RTMAX-n`.
fn real_time(name: &str) -> Option<u8> {
    let offset = |text: &str, sign: char| match text {
        "" => Some(0),
        text => text.strip_prefix(sign)?.parse::<u8>().ok(),
    };
    let number = if let Some(more) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(more, '+')?)?
    } else {
        RTMAX.checked_sub(offset(name.strip_prefix("RTMAX")?, '-')?)?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_has_a_name_that_leads_back_to_it() {
        for signal in 1..=LAST {
            assert_eq!(name(signal).and_then(number), Some(signal));
        }
        assert_eq!(
            (name(0), name(65), number("NOSUCH"), number("0"), number("65")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn real_time_signals_count_from_either_end() {
        let check = |name: &str, expected| assert_eq!(number(name), expected, "{name}");
        check("RTMIN", Some(34));
        check("RTMIN+30", Some(64));
        check("RTMAX-30", Some(34));
        check("RTMIN+31", None);
        check("RTMAX-31", None);
        check("RTMIN-1", None);
        check("RTMIN+999", None);
    }

    #[test]
    fn signals_are_spelled_as_people_write_them() {
        let check = |signal, text: &str| assert_eq!(spelled(signal), text);
        check(9, "SIGKILL");
        check(34, "SIGRTMIN");
        check(33, "signal 33");
        check(200, "signal 200");
    }
}
