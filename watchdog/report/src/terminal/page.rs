//! The layout of the text: paragraphs that wrap, items under a label, headings; and the terminal's
//! manners: its width, its colours.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use textwrap::Options;
use unicode_width::UnicodeWidthChar;

use hangwatch_text::plain_up_to;

/// Text is never wrapped narrower, nor wider: longer lines are hard to read.
const COLUMNS: std::ops::RangeInclusive<usize> = 40..=110;

/// What a line is as wide as where no terminal says otherwise.
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
    /// There are: on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    Ansi,
    /// There are none.
    None,
}

/// Whether long parts are folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Each to what is most telling.
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

/// What is being written.
pub(super) struct Page {
    text: String,
    look: Look,
    has_folded: bool,
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const ALARM: Style = AnsiColor::Red.on_default().bold();

/// How much of one paragraph or line is laid out, bytes.
const MOST_BYTES: usize = 16 << 10;

/// How wide labels of facts are.
const LABEL: usize = 12;

impl Page {
    pub(super) fn new(look: Look) -> Page {
        Page { text: String::new(), look, has_folded: false }
    }

    /// The whole text, with a word about what was folded.
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

    /// Text after a head; lines that follow are indented as far.
    pub(super) fn item(&mut self, head: &str, text: &str) {
        self.wrapped(Style::new(), head, text);
    }

    /// A label and what it says, if it says anything.
    pub(super) fn fact(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            self.item(&format!("  {label:<LABEL$}"), text);
        }
    }

    /// One line, cut where the terminal ends: its beginning tells the most.
    pub(super) fn line(&mut self, text: &str) {
        let styled = cut(text, self.look.columns);
        self.styled(Style::new(), &styled);
    }

    /// What is to be found as one line, however wide: the terminal breaks it.
    pub(super) fn verdict(&mut self, text: &str) {
        self.styled(ALARM, &plain_up_to(text, MOST_BYTES));
    }

    /// As [`Page::verdict`], for a chain of waits.
    pub(super) fn chain(&mut self, text: &str) {
        self.styled(Style::new(), &format!("  {}", &*plain_up_to(text, MOST_BYTES)));
    }

    /// As [`Page::line`], for what hangs.
    pub(super) fn alarming_line(&mut self, text: &str) {
        let styled = cut(text, self.look.columns);
        self.styled(ALARM, &styled);
    }

    /// A remark of ours between the lines.
    pub(super) fn remark(&mut self, text: &str) {
        self.wrapped(DIM, "  ", text);
    }

    /// What is left out until it is asked for.
    pub(super) fn folded(&mut self, text: &str) {
        self.has_folded = true;
        self.wrapped(DIM, "  ", &format!("... {text}"));
    }

    /// The columns there are.
    pub(super) fn columns(&self) -> usize {
        self.look.columns
    }

    fn wrapped(&mut self, style: Style, head: &str, text: &str) {
        let indent = " ".repeat(textwrap::core::display_width(head));
        let options =
            Options::new(self.look.columns).initial_indent(head).subsequent_indent(&indent);
        // What it is made of is clean already; it is bounded here before it is laid out.
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

/// The beginning of a line that is too wide, with a mark where it was cut.
pub(super) fn cut(line: &str, columns: usize) -> String {
    let line = plain_up_to(line, MOST_BYTES);
    match fitting(line.chars(), columns) {
        Fit::Whole => line.into_owned(),
        Fit::Part(bytes) => format!("{}\u{2026}", &line[..bytes]),
    }
}

/// The end of a path that is too wide, with a mark where it was cut.
pub(super) fn cut_from_the_left(path: &str, columns: usize) -> String {
    match fitting(path.chars().rev(), columns) {
        Fit::Whole => path.to_owned(),
        Fit::Part(bytes) => format!("\u{2026}{}", &path[path.len() - bytes..]),
    }
}

/// How much of a text fits.
enum Fit {
    Whole,
    /// So many bytes, with room for a mark.
    Part(usize),
}

/// How much of these characters fits into so many columns. Looks at no more of them than fit.
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
    fn what_is_too_wide_is_cut_where_it_tells_the_least() {
        assert_eq!(cut("forward", 7), "forward");
        assert_eq!(cut("forward", 5), "forw\u{2026}");
        assert_eq!(cut("\u{4e16}\u{754c}\u{4e16}", 5), "\u{4e16}\u{754c}\u{2026}");
        assert_eq!(cut_from_the_left("/usr/lib/queue.py:7", 11), "\u{2026}queue.py:7");
        assert_eq!(cut_from_the_left("queue.py", 8), "queue.py");
        assert_eq!(cut_from_the_left("queue.py", 0), "\u{2026}");
    }

    #[test]
    fn no_more_of_a_text_is_looked_at_than_fits() {
        let mut looked_at = 0;
        let endless = std::iter::repeat_with(|| {
            looked_at += 1;
            'x'
        });
        assert!(matches!(fitting(endless, 80), Fit::Part(79)));
        assert_eq!(looked_at, 81);
    }
}
