//! Fits live tables to the terminal.

use std::io;

use rustix::termios::tcgetwinsize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns and rows of the terminal on standard output; `usize::MAX` if unknown.
pub(in crate::commands) fn size() -> (usize, usize) {
    let Ok(size) = tcgetwinsize(io::stdout()) else { return (usize::MAX, usize::MAX) };
    let or_none = |count: u16| if count == 0 { usize::MAX } else { usize::from(count) };
    (or_none(size.ws_col), or_none(size.ws_row))
}

/// Cuts a frame to the terminal's size; wrapped or scrolled lines could not be overwritten.
///
/// The cursor needs the last row.
pub(in crate::commands) fn clipped(frame: &str, (columns, rows): (usize, usize)) -> String {
    let lines = frame.lines().take(rows.saturating_sub(1));
    lines.flat_map(|line| fitting(line, columns).chain(['\n'])).collect()
}

/// The part of a line that fits the columns.
fn fitting(line: &str, columns: usize) -> impl Iterator<Item = char> {
    let mut taken = 0;
    line.chars().take_while(move |c| {
        taken += c.width().unwrap_or(0);
        taken <= columns
    })
}

/// Wraps a line between words; all lines but the first are indented by two.
pub(in crate::commands) fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if !last.trim().is_empty() && last.width() + 1 + word.width() > columns {
            lines.push(format!("  {word}"));
            continue;
        }
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal() {
        let frame = "segment\nLANE  PID\n   0  é17\n";
        assert_eq!(clipped(frame, (usize::MAX, usize::MAX)), frame);
        assert_eq!(clipped(frame, (7, 4)), "segment\nLANE  P\n   0  é\n");
        assert_eq!(clipped(frame, (80, 3)), "segment\nLANE  PID\n");
        assert_eq!(clipped(frame, (80, 1)), "");
        assert_eq!(clipped("前進前進\n", (5, 9)), "前進\n");
    }

    #[test]
    fn a_long_line_is_cut_between_words() {
        let check = |line: &str, columns: usize, lines: &[&str]| {
            assert_eq!(wrapped(line, columns), lines, "{line:?}");
        };
        check("", 10, &[""]);
        check("one two", 10, &["one two"]);
        check("one two  three", 8, &["one two ", "  three"]);
        check("onetwothree four", 6, &["onetwothree", "  four"]);
        check("a bb ccc dddd", 6, &["a bb", "  ccc", "  dddd"]);
        check("one two", usize::MAX, &["one two"]);
    }
}
