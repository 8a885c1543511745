//! The settings file: TOML, one setting per line, no sections.

use std::io;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, Value};

use super::unquoted;
use hangwatch_process::reading::{self, Contents};

/// The size limit of a settings file, bytes.
pub(super) const MOST: u64 = 1 << 20;
/// The mode bit of a file that every user may write to.
const OTHERS_WRITE: u32 = 0o002;

/// A line of the file that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The line number, from 1.
    pub(super) number: usize,
    pub(super) key: String,
    /// The value as on the command line, or why it is not valid.
    pub(super) value: Result<String, String>,
}

/// Why a settings file is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: every user can write to this file and so choose what is killed: run chmod o-w on it", path.display())]
    OthersWrite { path: PathBuf },
    #[error("{}: is larger than {MOST} bytes, so it is not a settings file", path.display())]
    TooLong { path: PathBuf },
    #[error("{}:{line}: not valid TOML: {what}", path.display())]
    NotToml { path: PathBuf, line: usize, what: String },
}

/// Reads a settings file, or parses `before`, its contents, if they were read before.
pub(super) fn read(path: &Path, before: Option<&Contents>) -> Result<Vec<Line>, FileError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let Contents { is_plain, mode, text } = match before {
        Some(contents) => contents.clone(),
        None => reading::read(path, MOST).map_err(failed)?,
    };
    if is_plain && mode & OTHERS_WRITE != 0 {
        return Err(FileError::OthersWrite { path: path.to_owned() });
    }
    if text.len() as u64 > MOST {
        return Err(FileError::TooLong { path: path.to_owned() });
    }
    lines(&text).map_err(|(line, what)| FileError::NotToml { path: path.to_owned(), line, what })
}

fn lines(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let document = Document::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let number = line_of(at);
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let what = || error.message().replace('\n', "; ");
        (number, unquoted::advice(line).unwrap_or_else(what))
    })?;
    let line = |(key, item): (&str, &Item)| {
        let span = document.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
        let number = line_of(span.map_or(0, |span| span.start));
        Line { number, key: key.to_owned(), value: value(item) }
    };
    let mut lines: Vec<Line> = document.iter().map(line).collect();
    lines.sort_by_key(|line| line.number);
    Ok(lines)
}

/// A value as on the command line.
fn value(item: &Item) -> Result<String, String> {
    match item {
        Item::Value(Value::String(text)) => Ok(text.value().clone()),
        Item::Value(Value::Integer(number)) => Ok(number.value().to_string()),
        Item::Value(Value::Float(number)) => Ok(number.value().to_string()),
        Item::Value(Value::Boolean(flag)) => Ok(flag.value().to_string()),
        Item::Value(Value::Datetime(_)) => {
            Err("is a time of day; write durations as \"10s\"".to_owned())
        }
        Item::Value(Value::Array(_)) => {
            Err("is a list; write one value, and join expressions with |".to_owned())
        }
        _ => Err("is a section; write settings without sections".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_numbers() {
        let text = "# a comment\nsignal = \"TERM\"\n\nmax-reaps = 1_0\nwarn-at = 0.5 # half\nnotify-only = false\n";
        let said: Vec<(usize, String, String)> = lines(text)
            .unwrap()
            .into_iter()
            .map(|line| (line.number, line.key, line.value.unwrap()))
            .collect();
        let expected = [
            (2, "signal", "TERM"),
            (4, "max-reaps", "10"),
            (5, "warn-at", "0.5"),
            (6, "notify-only", "false"),
        ];
        assert_eq!(said, expected.map(|(n, key, value)| (n, key.to_owned(), value.to_owned())));
    }

    #[test]
    fn invalid_toml_is_reported_with_its_line() {
        let check =
            |text: &str, line: usize| assert_eq!(lines(text).unwrap_err().0, line, "{text}");
        check("signal = TERM", 1);
        check("a = 1\n\nb 2\n", 3);
        let (line, what) = lines("a = 1\nsegment = train\n").unwrap_err();
        assert_eq!((line, what.as_str()), (2, "put quotes around the text: segment = \"train\""));
        check("a = 1\nb = 2\na = 3\n", 3);
        check("a = \"\"\"\n\n", 3);
    }

    #[test]
    fn values_of_other_kinds_are_refused() {
        let check = |text: &str, part: &str| {
            let why = lines(text).unwrap().remove(0).value.unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        };
        check("grace = 10:00:00", "is a time of day");
        check("signal = [\"TERM\"]", "is a list");
        check("[run]\nsignal = \"TERM\"", "is a section");
        check("run.signal = \"TERM\"", "is a section");
    }
}
