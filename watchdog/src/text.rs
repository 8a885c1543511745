//! Text for people: durations and sizes in a few characters, names that can do no harm.

use std::borrow::Cow;
use std::time::Duration;

use crate::units::brief;

/// A duration of so many nanoseconds in a few characters: `950us`, `12.3s`, `4m05s`.
pub fn brief_ns(ns: u64) -> String {
    brief(Duration::from_nanos(ns))
}

/// A number of bytes in a few characters: `17 B`, `4.0 KiB`, `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10) as usize;
    // Exact enough: one decimal is shown.
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let scaled = count as f64 / (1_u64 << (10 * power)) as f64;
    format!("{scaled:.1} {}", UNITS[power - 1])
}

/// `1 thread`, `3 threads`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a worker says of itself, made harmless: escape sequences and what turns the direction of
/// writing are spelt out, `\u{1b}`, instead of obeyed.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let spelt = |c: char| {
        if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() }
    };
    Cow::Owned(text.chars().map(spelt).collect())
}

/// Whether a character does something to what stands around it: a control character (newlines too), a
/// line or paragraph separator, a mark that turns the direction of writing or cannot be seen.
fn is_harmful(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
        || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_suits_them() {
        let check = |count: u64, text: &str| assert_eq!(bytes(count), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(1_610_612_736, "1.5 GiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn nothing_a_worker_says_reaches_the_terminal_as_a_command() {
        assert_eq!(plain("forward \u{e9} \u{4e16}"), "forward \u{e9} \u{4e16}");
        let check = |text: &str, shown: &str| assert_eq!(plain(text), shown);
        check("\u{1b}[2J", "\\u{1b}[2J");
        check("\u{9b}31m", "\\u{9b}31m");
        check("a\r\nb\tc", "a\\r\\nb\\tc");
        check("exe\u{202e}txt", "exe\\u{202e}txt");
        check("\u{7f}\u{200b}", "\\u{7f}\\u{200b}");
    }
}
