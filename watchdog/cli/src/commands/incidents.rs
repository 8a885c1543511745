//! `hangwatch incidents`: lists incidents, the newest first. Also finds one for `show`, `report`, `trace`.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;
use textwrap::Options;

use super::status::shortened;
use super::{Failure, print};
use crate::cli::incidents::{Incidents, Where};
use crate::exit::Exit;
use hangwatch_incident::catalog::{self, Entry, ReadError, Summary};
use hangwatch_incident::schema::{Incident, Moment, Suspect, Worker};
use hangwatch_incident::{store, story};
use hangwatch_text::{brief_ns, count, plain, to_json_pretty};

pub(super) fn perform(options: &Incidents) -> Result<Exit, Failure> {
    let dir = options.place.dir()?;
    let mut entries = catalog::list(&dir)?;
    let since = options.since.and_then(|since| SystemTime::now().checked_sub(since));
    entries.retain(|entry| is_wanted(entry, options.segment.as_deref(), since));
    let found = entries.len();
    entries.truncate(options.limit.map_or(usize::MAX, |limit| limit as usize));
    if options.json {
        let rows: Vec<Row<'_>> = entries.iter().map(Row::of).collect();
        print(&(to_json_pretty(&rows)? + "\n"))?;
    } else if entries.is_empty() {
        let such = if options.segment.is_some() || since.is_some() { " such" } else { "" };
        print(&format!("no{such} incident in {}\n", dir.display()))?;
    } else {
        let more = found - entries.len();
        print(&table(&entries, more))?;
    }
    Ok(Exit::Ok)
}

impl Where {
    /// The directory of `--incidents`, else this user's default.
    pub(super) fn dir(&self) -> Result<PathBuf, store::NoStateDirectory> {
        self.dir.clone().map_or_else(store::default_dir, Ok)
    }

    /// The incident that `key` names, and its name.
    pub(super) fn incident(&self, key: &str) -> Result<(String, Incident), Failure> {
        let entry = catalog::find(&self.dir()?, key)?;
        match entry.read() {
            Ok(incident) => Ok((plain(&entry.id).into_owned(), incident)),
            Err(source) => Err(Unreadable { id: entry.id, dir: entry.dir, source }.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot show incident {id:?} in {}: {source}", dir.display())]
struct Unreadable {
    id: String,
    dir: PathBuf,
    source: ReadError,
}

/// Whether an entry is of the segment and recent enough. The name of an unreadable entry contains its
/// segment's name.
fn is_wanted(entry: &Entry, segment: Option<&str>, since: Option<SystemTime>) -> bool {
    let of_segment = segment.is_none_or(|segment| match &entry.summary {
        Ok(summary) => summary.segment == segment,
        Err(_) => entry.id.contains(segment),
    });
    of_segment && since.is_none_or(|since| entry.when().is_some_and(|when| when >= since))
}

/// The widths of all columns but the last. The last one, the suspect, has 8 of 80 columns.
const WIDTHS: [usize; 5] = [19, 10, 17, 7, 9];

/// A table of at most 80 columns, two lines for each incident; the second line is its name.
fn table(entries: &[Entry], more: usize) -> String {
    let head = ["WHEN (UTC)", "WORKER", "SCOPE", "LATE", "OUTCOME"].map(str::to_owned);
    let mut text = row(&head, "SUSPECT");
    text.extend(entries.iter().map(listed));
    if more > 0 {
        let _ = writeln!(text, "and {}", count(more, "older incident"));
    }
    text
}

/// One incident: a row and its name, or why it cannot be read.
fn listed(entry: &Entry) -> String {
    let name = plain(&entry.id);
    match &entry.summary {
        Ok(summary) => format!("{}    {name}\n", told(summary)),
        Err(error) => {
            let when = entry.when().map_or_else(String::new, story::date_time_of);
            let lines = Options::new(80).initial_indent("    ").subsequent_indent("    ");
            let why = textwrap::fill(&plain(&error.to_string()), lines);
            format!("{when:<19}  (unreadable)\n    {name}\n{why}\n")
        }
    }
}

fn told(summary: &Summary) -> String {
    let scope = shortened(story::scope(&summary.timers), WIDTHS[2]);
    let late = summary.ending.as_ref().map_or_else(|| "-".to_owned(), |e| brief_ns(e.late_ns));
    let suspect = summary.suspect.as_ref().map_or_else(|| "-".to_owned(), story::who_is_suspected);
    let outcome = plain(story::outcome(summary.ending.as_ref())).into_owned();
    let when = story::date_time(&summary.at);
    row(&[when, story::who(&summary.worker), scope, late, outcome], &suspect)
}

/// One line. A text that is too long for its column moves the next ones to the right.
fn row(columns: &[String; 5], last: &str) -> String {
    let mut line = String::new();
    for (column, (text, width)) in columns.iter().zip(WIDTHS).enumerate() {
        // Durations are aligned to the right, words to the left.
        let _ = match column {
            3 => write!(line, "{text:>width$}  "),
            _ => write!(line, "{text:<width$}  "),
        };
    }
    format!("{line}{last}\n")
}

/// One incident in `incidents --json`. Durations have their unit in the name.
#[derive(Serialize)]
struct Row<'e> {
    id: &'e str,
    path: String,
    /// Why it cannot be read; then all fields below are null.
    unreadable: Option<String>,
    at: Option<&'e Moment>,
    host: Option<&'e str>,
    segment: Option<&'e str>,
    worker: Option<&'e Worker>,
    scope: Option<&'e str>,
    late_ns: Option<u64>,
    outcome: Option<&'e str>,
    suspect: Option<&'e Suspect>,
}

impl<'e> Row<'e> {
    fn of(entry: &'e Entry) -> Row<'e> {
        let summary = entry.summary.as_ref().ok();
        Row {
            id: &entry.id,
            path: entry.dir.to_string_lossy().into_owned(),
            unreadable: entry.summary.as_ref().err().map(ToString::to_string),
            at: summary.map(|summary| &summary.at),
            host: summary.map(|summary| &*summary.host),
            segment: summary.map(|summary| &*summary.segment),
            worker: summary.map(|summary| &summary.worker),
            scope: summary.and_then(|summary| summary.timers.first()).map(|timer| &*timer.scope),
            late_ns: summary.and_then(|summary| summary.ending.as_ref()).map(|end| end.late_ns),
            outcome: summary.map(|summary| story::outcome(summary.ending.as_ref())),
            suspect: summary.and_then(|summary| summary.suspect.as_ref()),
        }
    }
}
