//! Text for a terminal: names made harmless, cut to a number of columns, numbers made short.
//!
//! What workers say of themselves (scopes, thread names, jobs, arguments) may hold anything, escape
//! sequences too: nothing of it reaches the screen but through [`clean`].

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use hangwatch_text::brief;
use hangwatch_text::plain_cell;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Charset {
    /// Anything.
    Unicode,
    /// ASCII only.
    Ascii,
}

impl Charset {
    /// By the locale's variables, the first that is set and not empty.
    pub(super) fn of_locale(get: impl Fn(&str) -> Option<String>) -> Charset {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| get(name).filter(|value| !value.is_empty()));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Charset::Unicode
        } else {
            Charset::Ascii
        }
    }
}

/// `text` as one clean line, by the rule of [`plain_cell`]; what this terminal has no cell for becomes `?`.
pub(super) fn clean(text: &str, charset: Charset) -> String {
    let has_cell = |c: char| match charset {
        Charset::Ascii => matches!(c, ' '..='~'),
        // Marks without a width change the character before them.
        Charset::Unicode => c.width().is_some_and(|width| width > 0),
    };
    plain_cell(text).chars().map(|c| if has_cell(c) { c } else { '?' }).collect()
}

/// Which end of a text that is too long is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// Its beginning.
    Start,
    /// Its end: of a path or a scope with a line, it tells more.
    End,
}

/// As much of a clean text as fits into `columns`, with a mark where it was cut.
pub(super) fn fit(text: &str, columns: usize, keep: Keep, charset: Charset) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mark = if charset == Charset::Unicode { '\u{2026}' } else { '~' };
    if columns == 0 {
        return String::new();
    }
    let mut room = columns - 1;
    let mut take = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= room;
        room = if fits { room - width } else { 0 };
        fits
    };
    match keep {
        Keep::Start => text.chars().take_while(|c| take(c)).chain([mark]).collect(),
        Keep::End => {
            let mut tail: Vec<char> = text.chars().rev().take_while(|c| take(c)).collect();
            tail.push(mark);
            tail.into_iter().rev().collect()
        }
    }
}

/// A duration in at most seven characters.
pub(super) fn short_duration(ns: u64) -> String {
    brief(Duration::from_nanos(ns))
}

/// As [`short_rate`], of a whole number.
#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
pub(super) fn short_count(count: u64) -> String {
    short_rate(count as f64)
}

/// A number in at most five characters: `999`, `12.3k`, `1.2M`.
pub(super) fn short_rate(count: f64) -> String {
    let scaled = |count: f64, unit: &str| {
        if count < 99.95 { format!("{count:.1}{unit}") } else { format!("{count:.0}{unit}") }
    };
    match count {
        0.0..999.5 if count.fract() == 0.0 || count >= 99.95 => format!("{count:.0}"),
        0.0..99.95 => format!("{count:.1}"),
        0.0..999_500.0 => scaled(count / 1e3, "k"),
        0.0..999_500_000.0 => scaled(count / 1e6, "M"),
        0.0.. => scaled(count / 1e9, "G"),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rude_names_are_made_harmless() {
        let check = |text: &str, unicode: &str, ascii: &str| {
            assert_eq!(clean(text, Charset::Unicode), unicode, "{text:?}");
            assert_eq!(clean(text, Charset::Ascii), ascii, "{text:?}");
        };
        check("forward", "forward", "forward");
        check("a\u{1b}[2Jb\n\tc\u{7f}", "a?[2Jb??c?", "a?[2Jb??c?");
        check("\u{9b}31m", "?31m", "?31m");
        check("é\u{202e}evil\u{200b}", "é?evil?", "??evil?");
        check("e\u{301}", "e?", "e?");
        check("前進", "前進", "??");
    }

    #[test]
    fn what_is_cut_fits_its_columns() {
        let check = |text: &str, columns: usize, keep, cut: &str| {
            let got = fit(text, columns, keep, Charset::Unicode);
            assert_eq!(got, cut);
            assert!(got.width() <= columns, "{got:?}");
        };
        check("forward", 7, Keep::Start, "forward");
        check("forward", 4, Keep::Start, "for\u{2026}");
        check("train.py#41", 5, Keep::End, "\u{2026}y#41");
        check("前進前進", 6, Keep::Start, "前進\u{2026}");
        check("前進前進", 4, Keep::End, "\u{2026}進");
        check("abc", 0, Keep::End, "");
        assert_eq!(fit("forward", 4, Keep::Start, Charset::Ascii), "for~");
    }

    #[test]
    fn counts_are_short() {
        let check = |count: f64, text: &str| {
            assert_eq!(short_rate(count), text);
            assert!(text.len() <= 5);
        };
        check(0.0, "0");
        check(0.26, "0.3");
        check(42.0, "42");
        check(99.96, "100");
        check(999.4, "999");
        check(999.6, "1.0k");
        check(12_345.0, "12.3k");
        check(123_456.0, "123k");
        check(1_234_567.0, "1.2M");
        check(7e12, "7000G");
        check(f64::NAN, "-");
        check(-1.0, "-");
    }

    #[test]
    fn the_locale_says_what_can_be_shown() {
        let check = |set: &[(&str, &str)], charset| {
            let get = |name: &str| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(Charset::of_locale(get), charset, "{set:?}");
        };
        check(&[], Charset::Ascii);
        check(&[("LANG", "C")], Charset::Ascii);
        check(&[("LANG", "de_DE.UTF-8")], Charset::Unicode);
        check(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], Charset::Ascii);
        check(&[("LANG", "C"), ("LC_CTYPE", "C.utf8"), ("LC_ALL", "")], Charset::Unicode);
    }
}
