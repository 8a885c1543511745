//! The layout of the text: headings, wrapped paragraphs, labelled items; width and colours.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use textwrap::Options;
use unicode_width::UnicodeWidthChar;

use hangwatch_text::plain_up_to;

/// The least and the greatest width of wrapped text.
const COLUMNS: std::ops::RangeInclusive<usize> = 40..=110;

/// The width without a terminal.
const USUAL_COLUMNS: usize = 80;

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// How wide a line may be.
    pub columns: usize,
    /// Whether there are colours.
    pub colour: Colour,
    /// Whether long parts are folded.
    pub fold: Fold,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Colours: on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    Ansi,
    /// No colours.
    None,
}

/// Whether long parts are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Long parts are shortened.
    Long,
    /// Everything is shown.
    Nothing,
}

impl Look {
    /// How text looks on standard output.
    pub fn of_stdout(fold: Fold) -> Look {
        let out = io::stdout();
        let columns = tcgetwinsize(&out).map_or(0, |size| usize::from(size.ws_col));
        let columns = match columns {
            0 => USUAL_COLUMNS,
            known => known.clamp(*COLUMNS.start(), *COLUMNS.end()),
        };
        let is_set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let coloured = out.is_terminal() && !is_set("NO_COLOR") && !dumb;
        Look { columns, colour: if coloured { Colour::Ansi } else { Colour::None }, fold }
    }
}

/// The text under construction.
pub(super) struct Page {
    text: String,
    look: Look,
    has_folded: bool,
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const ALARM: Style = AnsiColor::Red.on_default().bold();

/// The most of one paragraph or line that is laid out, bytes.
const MOST_BYTES: usize = 16 << 10;

/// The width of labels, columns.
const LABEL: usize = 12;

impl Page {
    pub(super) fn new(look: Look) -> Page {
        Page { text: String::new(), look, has_folded: false }
    }

    /// The whole text, with a hint if parts were folded.
    pub(super) fn finish(mut self) -> String {
        if self.has_folded {
            self.gap();
            self.wrapped(DIM, "", "--all unfolds everything.");
        }
        self.text
    }

    /// Whether long parts are to be folded.
    pub(super) fn folds(&self) -> bool {
        self.look.fold == Fold::Long
    }

    pub(super) fn title(&mut self, text: &str) {
        self.wrapped(ALARM, "", text);
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.gap();
        self.wrapped(BOLD, "", text);
    }

    pub(super) fn aside(&mut self, text: &str) {
        self.wrapped(DIM, "", text);
    }

    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.wrapped(Style::new(), "", text);
    }

    /// Text after a head; further lines are indented by the head's width.
    pub(super) fn item(&mut self, head: &str, text: &str) {
        self.wrapped(Style::new(), head, text);
    }

    /// A label and its text, unless the text is empty.
    pub(super) fn fact(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            self.item(&format!("  {label:<LABEL$}"), text);
        }
    }

    /// One line, cut at the terminal's width.
    pub(super) fn line(&mut self, text: &str) {
        let styled = cut(text, self.look.columns);
        self.styled(Style::new(), &styled);
    }

    /// One line that is never cut or wrapped, so that scripts find it.
    pub(super) fn verdict(&mut self, text: &str) {
        self.styled(ALARM, &plain_up_to(text, MOST_BYTES));
    }

    /// As [`Page::verdict`], for a chain of waits.
    pub(super) fn chain(&mut self, text: &str) {
        self.styled(Style::new(), &format!("  {}", &*plain_up_to(text, MOST_BYTES)));
    }

    /// As [`Page::line`], for the call that hung.
    pub(super) fn alarming_line(&mut self, text: &str) {
        let styled = cut(text, self.look.columns);
        self.styled(ALARM, &styled);
    }

    /// A remark between the lines.
    pub(super) fn remark(&mut self, text: &str) {
        self.wrapped(DIM, "  ", text);
    }

    /// A note on what `--all` would show.
    pub(super) fn folded(&mut self, text: &str) {
        self.has_folded = true;
        self.wrapped(DIM, "  ", &format!("... {text}"));
    }

    /// The width, columns.
    pub(super) fn columns(&self) -> usize {
        self.look.columns
    }

    fn wrapped(&mut self, style: Style, head: &str, text: &str) {
        let indent = " ".repeat(textwrap::core::display_width(head));
        let options =
            Options::new(self.look.columns).initial_indent(head).subsequent_indent(&indent);
        // Names are already escaped; this bounds the length before the layout.
        for line in textwrap::wrap(&plain_up_to(text, MOST_BYTES), options) {
            self.styled(style, &line);
        }
    }

    fn styled(&mut self, style: Style, line: &str) {
        let _ = match self.look.colour {
            Colour::Ansi => writeln!(self.text, "{style}{line}{style:#}"),
            Colour::None => writeln!(self.text, "{line}"),
        };
    }
}

/// Cuts a wide line at its end, with a mark.
pub(super) fn cut(line: &str, columns: usize) -> String {
    let line = plain_up_to(line, MOST_BYTES);
    match fitting(line.chars(), columns) {
        Fit::Whole => line.into_owned(),
        Fit::Part(bytes) => format!("{}\u{2026}", &line[..bytes]),
    }
}

/// Cuts a wide path at its beginning, with a mark.
pub(super) fn cut_from_the_left(path: &str, columns: usize) -> String {
    match fitting(path.chars().rev(), columns) {
        Fit::Whole => path.to_owned(),
        Fit::Part(bytes) => format!("\u{2026}{}", &path[path.len() - bytes..]),
    }
}

/// How much of a text fits.
enum Fit {
    Whole,
    /// This many bytes, with room for a mark.
    Part(usize),
}

/// How many of these characters fit into the columns. Reads no more of them than fit.
fn fitting(characters: impl Iterator<Item = char>, columns: usize) -> Fit {
    let (mut width, mut with_mark) = (0, 0);
    let mut bytes = 0;
    for c in characters {
        width += c.width().unwrap_or(0);
        if width > columns {
            return Fit::Part(with_mark);
        }
        bytes += c.len_utf8();
        if width < columns {
            with_mark = bytes;
        }
    }
    Fit::Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_paths_are_cut_with_a_mark() {
        assert_eq!(cut("forward", 7), "forward");
        assert_eq!(cut("forward", 5), "forw\u{2026}");
        assert_eq!(cut("\u{4e16}\u{754c}\u{4e16}", 5), "\u{4e16}\u{754c}\u{2026}");
        assert_eq!(cut_from_the_left("/usr/lib/queue.py:7", 11), "\u{2026}queue.py:7");
        assert_eq!(cut_from_the_left("queue.py", 8), "queue.py");
        assert_eq!(cut_from_the_left("queue.py", 0), "\u{2026}");
    }

    #[test]
    fn only_the_text_that_fits_is_read() {
        let mut looked_at = 0;
        let endless = std::iter::repeat_with(|| {
            looked_at += 1;
            'x'
        });
        assert!(matches!(fitting(endless, 80), Fit::Part(79)));
        assert_eq!(looked_at, 81);
    }
}
