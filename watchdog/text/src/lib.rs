//! Text for people and programs: durations, sizes, and untrusted text made safe to print.
//!
//! [`Plain`] is the one type through which everything goes that a worker, a file or another host chose.
//!
//! [`plain`] cleans a text for any output; `to_json` and `to_json_pretty` clean every string of a JSON
//! document by the same rule.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

mod json;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod units;

pub use json::{CleanJson, to_json, to_json_pretty};
pub use units::{brief, ms};

/// The most bytes of one text that are used; the rest is counted. Longer than any name, label or path.
pub const MOST_BYTES: usize = 4096;

/// A duration in nanoseconds as short text: `950us`, `12.3s`, `4m05s`.
pub fn brief_ns(ns: u64) -> String {
    brief(Duration::from_nanos(ns))
}

/// A number of bytes as short text: `17 B`, `4.0 KiB`, `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let power = (count.ilog2() / 10) as usize;
    // Precise enough for one decimal.
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let scaled = count as f64 / (1_u64 << (10 * power)) as f64;
    format!("{scaled:.1} {}", UNITS[power - 1])
}

/// A count with its noun: `1 thread`, `3 threads`.
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Untrusted text (from a worker, another host, a file name), safe to print anywhere.
///
/// It is one line of at most [`MOST_BYTES`] bytes of the original. Characters for which `is_harmful` holds are
/// spelt out: `\u{1b}`. It does not escape HTML.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Plain<'t>(Cow<'t, str>);

/// Escapes a text for any output; see [`Plain`].
pub fn plain(text: &str) -> Plain<'_> {
    plain_up_to(text, MOST_BYTES)
}

/// As [`plain`], with at most this many bytes of the original, and the number of bytes left out.
pub fn plain_up_to(text: &str, most_bytes: usize) -> Plain<'_> {
    let kept = &text[..text.floor_char_boundary(most_bytes)];
    let left_out = text.len() - kept.len();
    if left_out == 0 && !kept.contains(is_harmful) {
        return Plain(Cow::Borrowed(text));
    }
    let mut cleaned = String::with_capacity(kept.len() + 32);
    push_clean(&mut cleaned, kept);
    if left_out > 0 {
        cleaned += &left_out_mark(left_out);
    }
    Plain(Cow::Owned(cleaned))
}

/// As [`plain`], for tables: each harmful character becomes one `?`, so that the width stays.
pub fn plain_cell(text: &str) -> Plain<'_> {
    let kept = &text[..text.floor_char_boundary(MOST_BYTES)];
    if !kept.contains(is_harmful) {
        return Plain(Cow::Borrowed(kept));
    }
    Plain(Cow::Owned(kept.chars().map(|c| if is_harmful(c) { '?' } else { c }).collect()))
}

/// Words (a command line) escaped in one line, with at most [`MOST_BYTES`] bytes.
pub fn plain_words<W: AsRef<str>>(words: &[W]) -> Plain<'static> {
    let mut line = String::new();
    let mut room = MOST_BYTES;
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line.push(' ');
        }
        let word = word.as_ref();
        line += &plain_up_to(word, room);
        if word.len() >= room {
            let more = words.len() - index - 1;
            if more > 0 {
                line += " \u{2026} and ";
                line += &count(more, "more word");
            }
            break;
        }
        room -= word.len() + 1;
        room = room.max(1);
    }
    Plain(Cow::Owned(line))
}

/// The mark at a cut.
fn left_out_mark(bytes: usize) -> String {
    format!("\u{2026} ({bytes} more bytes)")
}

fn push_clean(into: &mut String, text: &str) {
    for c in text.chars() {
        if is_harmful(c) { into.extend(spelt(c)) } else { into.push(c) }
    }
}

/// A harmful character spelt out: `\u{1b}`, `\n`.
fn spelt(c: char) -> std::char::EscapeDefault {
    c.escape_default()
}

/// Whether a character affects the text around it, or is invisible.
///
/// These are control characters (with line breaks), format characters (such as writing direction), line and
/// paragraph separators, fillers, and noncharacters.
pub fn is_harmful(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // General category Cf, Zl and Zp.
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        // Fillers, which are invisible but have a width, and the grapheme joiner.
        | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
        // Noncharacters.
        | '\u{fdd0}'..='\u{fdef}' => true,
        _ => c.is_control() || (c as u32) & 0xfffe == 0xfffe,
    }
}

impl Plain<'_> {
    /// The text.
    pub fn into_owned(self) -> String {
        self.0.into_owned()
    }

    /// The text in at most this many characters; a long text is cut at its beginning.
    pub fn end(&self, width: usize) -> String {
        let length = self.chars().count();
        if length <= width {
            return self.0.to_string();
        }
        let tail: String = self.chars().skip(length - width.saturating_sub(1)).collect();
        format!("\u{2026}{tail}")
    }
}

impl std::ops::Deref for Plain<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Plain<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Plain<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Plain<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Plain<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Writes the text in quotes.
impl fmt::Debug for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Writes the text with HTML escaped.
impl maud::Render for Plain<'_> {
    fn render_to(&self, page: &mut String) {
        self.0.render_to(page);
    }
}

/// Escapes what is written through it, up to a number of bytes, and then returns an error.
pub struct Cleaner<'w, W> {
    into: &'w mut W,
    room: usize,
}

impl<'w, W: fmt::Write> Cleaner<'w, W> {
    /// Writes to `into`, at most `most_bytes` in all.
    pub fn new(into: &'w mut W, most_bytes: usize) -> Cleaner<'w, W> {
        Cleaner { into, room: most_bytes }
    }

    /// Writes a value as far as it fits, with a mark at a cut. Returns the room left.
    ///
    /// # Errors
    /// The error of `into`.
    pub fn put(mut self, value: fmt::Arguments<'_>) -> Result<usize, fmt::Error> {
        if fmt::Write::write_fmt(&mut self, value).is_err() {
            self.into.write_char('\u{2026}')?;
        }
        Ok(self.room)
    }
}

impl<W: fmt::Write> Cleaner<'_, W> {
    /// Writes escaped text as far as it fits.
    fn put_clean(&mut self, text: &str) -> fmt::Result {
        let kept = &text[..text.floor_char_boundary(self.room)];
        self.into.write_str(kept)?;
        self.room -= kept.len();
        if kept.len() == text.len() { Ok(()) } else { self.full() }
    }

    fn full(&mut self) -> fmt::Result {
        self.room = 0;
        Err(fmt::Error)
    }
}

impl<W: fmt::Write> fmt::Write for Cleaner<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        // Reads no more than can be written.
        while let Some(at) =
            rest[..rest.floor_char_boundary(self.room.saturating_add(4))].find(is_harmful)
        {
            let (clean, from) = rest.split_at(at);
            let c = from.chars().next().expect("it was found");
            self.put_clean(clean)?;
            let spelt_out: String = spelt(c).collect();
            if spelt_out.len() > self.room {
                return self.full();
            }
            self.put_clean(&spelt_out)?;
            rest = &from[c.len_utf8()..];
        }
        self.put_clean(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::rude_characters;
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

    #[test]
    fn no_character_of_unicode_that_does_harm_is_left() {
        let all: String = ('\0'..=char::MAX).collect();
        let cleaned = plain_up_to(&all, usize::MAX);
        assert_eq!(rude_characters(&cleaned), []);
        assert_eq!(cleaned.lines().count(), 1);
        let mut written = String::new();
        Cleaner::new(&mut written, usize::MAX).put(format_args!("{all}")).unwrap();
        assert_eq!(written, *cleaned, "both ways are one");
    }

    #[test]
    fn a_long_text_is_cut_and_the_rest_counted() {
        let text = "x".repeat(MOST_BYTES + 7);
        assert!(plain(&text).ends_with("x\u{2026} (7 more bytes)"));
        assert_eq!(plain(&text[7..]).len(), MOST_BYTES);
        assert_eq!(plain_up_to("\u{4e16}\u{754c}", 4), "\u{4e16}\u{2026} (3 more bytes)");
        let mut written = String::new();
        Cleaner::new(&mut written, 3).put(format_args!("ab{}", "\u{1b}")).unwrap();
        assert_eq!(written, "ab\u{2026}", "nothing is cut in two");
    }

    #[test]
    fn a_command_line_is_cut_as_a_whole() {
        assert_eq!(plain_words(&["a", "b c\n"]), "a b c\\n");
        let words = vec!["x".repeat(100); 20_000];
        let shown = plain_words(&words);
        assert!(shown.len() < 2 * MOST_BYTES, "{}", shown.len());
        assert!(shown.ends_with("more words"), "{shown}");
    }

    #[test]
    fn of_a_long_name_the_end_is_shown() {
        assert_eq!(plain("forward").end(7), "forward");
        assert_eq!(plain("train.py#41").end(5), "\u{2026}y#41");
        assert_eq!(plain("a\u{1b}b").end(20), "a\\u{1b}b");
        assert_eq!(plain_cell("a\u{1b}[2Jb\u{202e}").end(7), "a?[2Jb?");
    }
}
