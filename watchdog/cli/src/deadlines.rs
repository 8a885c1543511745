//! The deadlines file: how long each scope may take whose acquire brings no time of its own.
//!
//! ```toml
//! default = "10m"            # scopes not named below; without it, they have none
//!
//! [scopes.forward]
//! deadline = "12s"
//! confidence = "high"        # this and what follows is `hangwatch learn`'s, for people
//! acquires = 12345
//! longest = "5.6s"
//!
//! [scopes]
//! "train.py#41" = "2m30s"    # as good as a table with a deadline
//! ```
//!
//! [`Deadlines::read`] reads one, [`Deadlines::publish`] puts it into a segment, [`edit`] changes a
//! file and keeps what people wrote in it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hangwatch::Segment;
use hangwatch::sys::clock;
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::time::{Nanos, duration_ns};
use toml_edit::{Document, Item, TableLike};

use crate::cli::config::unquoted;
use crate::cli::value;

pub mod edit;

/// The most that is read of a file, bytes: far more than a segment has names for.
const MOST_BYTES: u64 = 8 << 20;
/// What `learn` says about a scope beside its deadline.
const SAID_BY_LEARN: [&str; 3] = ["confidence", "acquires", "longest"];

/// How long scopes may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// By scope.
    pub scopes: BTreeMap<String, Duration>,
    /// Of scopes that are not named.
    pub default: Option<Duration>,
}

/// Why a file gives no deadlines.
#[derive(Debug, thiserror::Error)]
pub enum DeadlinesError {
    /// It could not be read.
    #[error("cannot read the deadlines file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no deadlines file.
    #[error("the deadlines file {}, line {line}: {what}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// What is wrong with a text, and where in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    line: usize,
    what: String,
}

/// How a publication went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Scopes that have a deadline now.
    pub scopes: usize,
    /// Scopes of the file for which the segment has no room.
    pub without_room: Vec<String>,
}

impl Deadlines {
    /// Reads a file.
    ///
    /// # Errors
    /// [`DeadlinesError`] names the line and what is wrong with it.
    pub fn read(path: &Path) -> Result<Deadlines, DeadlinesError> {
        Deadlines::of(path, text_of(path))
    }

    /// The most that is read of a file, bytes.
    pub(crate) const MOST_BYTES: u64 = MOST_BYTES;

    /// As [`Deadlines::read`], of what was read of the file.
    pub(crate) fn of(path: &Path, text: io::Result<String>) -> Result<Deadlines, DeadlinesError> {
        let text = text
            .and_then(bounded)
            .map_err(|source| DeadlinesError::Read { path: path.to_owned(), source })?;
        Deadlines::parse(&text).map_err(|Wrong { line, what }| DeadlinesError::Wrong {
            path: path.to_owned(),
            line,
            what,
        })
    }

    pub(crate) fn parse(text: &str) -> Result<Deadlines, Wrong> {
        let document = Document::parse(text).map_err(|error| {
            let line = line_of(text, error.span());
            let advice = unquoted::advice(text.lines().nth(line - 1).unwrap_or_default());
            Wrong { line, what: advice.unwrap_or_else(|| error.message().to_owned()) }
        })?;
        let at = |span| move |what: String| Wrong { line: line_of(text, span), what };
        let mut read = Deadlines::default();
        for (key, item) in document.iter() {
            let line = at(span_of(document.as_table(), key));
            match (key, item.as_table_like()) {
                ("default", _) => read.default = Some(time(item).map_err(line)?),
                ("scopes", Some(table)) => read_scopes(table, &at, &mut read)?,
                ("scopes", None) => return Err(line("scopes must be a table".to_owned())),
                _ => {
                    let what = format!("{key:?} is not known here; there is default, and [scopes]");
                    return Err(line(what));
                }
            }
        }
        Ok(read)
    }

    /// Puts the deadlines into the segment, and takes away those of scopes that have none here.
    /// Acquires that are under way keep theirs. The serving watchdog's alone.
    pub fn publish(&self, segment: Segment) -> Published {
        let words = segment.words();
        let now = Nanos(clock::monotonic_ns());
        let mut published = Published::default();
        let mut allowed = BTreeMap::new();
        for (name, time) in &self.scopes {
            let interned = words.names().intern(name);
            if interned.overflowed {
                published.without_room.push(name.clone());
            } else {
                allowed.insert(interned.scope, duration_ns(*time));
            }
        }
        published.scopes = allowed.len();
        words.set_others_timeout_ns(self.default.map(duration_ns));
        for scope in (0..words.geometry().scopes).map(|index| ScopeId(index as u16)) {
            words.timeout(scope).set_ns(allowed.get(&scope).copied(), now);
        }
        published
    }
}

fn read_scopes<A: FnOnce(String) -> Wrong>(
    scopes: &dyn TableLike,
    at: &impl Fn(Option<Range<usize>>) -> A,
    read: &mut Deadlines,
) -> Result<(), Wrong> {
    for (name, item) in scopes.iter() {
        let line = at(span_of(scopes, name));
        if name.is_empty() {
            return Err(line("a scope needs a name".to_owned()));
        }
        let Some(table) = item.as_table_like() else {
            let in_scope = |what| format!("the deadline of {name:?} {what}");
            let time = time(item).map_err(|what| line(in_scope(what)))?;
            read.scopes.insert(name.to_owned(), time);
            continue;
        };
        let known = |key: &str| key == "deadline" || SAID_BY_LEARN.contains(&key);
        if let Some((unknown, _)) = table.iter().find(|(key, _)| !known(key)) {
            let line = at(span_of(table, unknown));
            let what =
                format!("{unknown:?} is not known in scope {name:?}; did you mean deadline?");
            return Err(line(what));
        }
        let Some(deadline) = table.get("deadline") else {
            return Err(line(format!("scope {name:?} has no deadline")));
        };
        let line = at(span_of(table, "deadline"));
        let time =
            time(deadline).map_err(|what| line(format!("the deadline of {name:?} {what}")))?;
        read.scopes.insert(name.to_owned(), time);
    }
    Ok(())
}

fn span_of(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    let of_key = table.key(key).and_then(toml_edit::Key::span);
    of_key.or_else(|| table.get(key).and_then(Item::span))
}

/// A duration as on the command line, or a number of seconds.
fn time(item: &Item) -> Result<Duration, String> {
    let text = match (item.as_str(), item.as_integer(), item.as_float()) {
        (Some(text), _, _) => text.to_owned(),
        (_, Some(seconds), _) => seconds.to_string(),
        (_, _, Some(seconds)) => seconds.to_string(),
        _ => return Err("must be a time such as \"30s\", or a number of seconds".to_owned()),
    };
    value::duration(&text).map_err(|what| format!("({text:?}) {what}"))
}

/// A time as this file has it: read back, it is the same.
pub fn time_text(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        return humantime::format_duration(time).to_string().replace(' ', "");
    }
    let nanos = format!("{:09}", time.subsec_nanos());
    format!("{}.{}s", time.as_secs(), nanos.trim_end_matches('0'))
}

fn text_of(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    bounded(text)
}

fn bounded(text: String) -> io::Result<String> {
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other("it is larger than 8 MiB"));
    }
    Ok(text)
}

fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let at = span.map_or(0, |span| span.start);
    1 + text.get(..at).unwrap_or(text).matches('\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
default = "10m"
[scopes.forward]
deadline = "12s"
confidence = "high"
acquires = 12345
longest = "5.6s"
[scopes]
"train.py#41" = "2m30s"
short = 0.25
inline = { deadline = 7 }
"#;

    #[test]
    fn a_file_says_how_long_scopes_may_take() {
        let read = Deadlines::parse(GOOD).unwrap();
        assert_eq!(read.default, Some(Duration::from_mins(10)));
        let millis: Vec<_> =
            read.scopes.iter().map(|(name, time)| (name.as_str(), time.as_millis())).collect();
        let expected =
            [("forward", 12_000), ("inline", 7_000), ("short", 250), ("train.py#41", 150_000)];
        assert_eq!(millis, expected);
        assert_eq!(Deadlines::parse("").unwrap(), Deadlines::default());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let check = |text: &str, line: usize, part: &str| {
            let wrong = Deadlines::parse(text).expect_err(text);
            assert!(wrong.what.contains(part) && wrong.line == line, "{text:?}: {wrong:?}");
        };
        check("default = \"10M\"", 1, "m for minutes");
        check("\ndefault = 10m", 2, "quotes around the text: default = \"10m\"");
        check("\n\ndefault = 0", 3, "longer than zero");
        check("default = true", 1, "must be a time");
        check("[scopes]\na = \"1s\"\na = \"2s\"", 3, "duplicate");
        check("[scopes]\na = -1", 2, "the deadline of \"a\"");
        check("[scopes.a]\n\ndeadlin = \"1s\"", 3, "did you mean deadline");
        check("[scopes.a]\nlongest = \"1s\"", 1, "has no deadline");
        check("[scopes.a]\ndeadline = \"11y\"", 2, "ten years");
        check("[scopes]\n\"\" = 1", 2, "needs a name");
        check("scopes = 5", 1, "must be a table");
        check("[scope.a]\ndeadline = 1", 1, "not known here");
        check("a = [1,\n\n}", 3, "");
        check("a = \u{1b}", 1, "");
    }

    #[test]
    fn a_time_is_read_back_as_it_was() {
        for nanos in [1, 999, 1_000_000, 1_300_000_000, 12_000_000_000, 150_000_000_001] {
            let time = Duration::from_nanos(nanos);
            assert_eq!(value::duration(&time_text(time)), Ok(time), "{}", time_text(time));
        }
        for seconds in [1, 59, 61, 3_600, 12_600, 86_400, 100_000, 40_000_000, 315_360_000] {
            let time = Duration::from_secs(seconds);
            assert_eq!(value::duration(&time_text(time)), Ok(time), "{}", time_text(time));
        }
    }
}
