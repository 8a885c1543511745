//! Changing a deadlines file: what was learned goes in, what people wrote stays.

use std::io;
use std::path::Path;
use std::time::Duration;

use toml_edit::{DocumentMut, Item, Table, TableLike, value};

use super::{Deadlines, DeadlinesError, Wrong, text_of, time_text};
use hangwatch_files::output::{self, NewFile};

const HEAD: &str = "\
# How long each scope may take, for `hangwatch run --deadlines`.
# Written by `hangwatch learn`; change the deadlines as you like. `learn --merge`
# raises them where longer times were seen, and lowers none unless told to.

";

/// What was learned of one scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    /// The scope.
    pub scope: String,
    /// Its deadline.
    pub deadline: Duration,
    /// How much that is to be trusted.
    pub confidence: &'static str,
    /// The acquires it rests on.
    pub acquires: u64,
    /// The longest of them, for people.
    pub longest: String,
}

/// What is done about a deadline that could be lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowering {
    /// It stays.
    Kept,
    /// It is lowered.
    Lowered,
}

/// What became of one scope in a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there.
    Added {
        /// Its deadline.
        to: Duration,
    },
    /// It was too low.
    Raised {
        /// Its deadline before.
        from: Duration,
        /// Its deadline.
        to: Duration,
    },
    /// It could have been lower, and was left.
    Kept {
        /// Its deadline.
        at: Duration,
        /// What would do.
        could: Duration,
    },
    /// It was higher than it need be.
    Lowered {
        /// Its deadline before.
        from: Duration,
        /// Its deadline.
        to: Duration,
    },
    /// It is what it was.
    Same,
}

/// A deadlines file under change.
#[derive(Debug)]
pub struct Draft {
    /// The comment that a new file begins with.
    head: &'static str,
    document: DocumentMut,
    deadlines: Deadlines,
}

impl Draft {
    /// An empty file.
    pub fn new() -> Draft {
        Draft { head: HEAD, document: DocumentMut::new(), deadlines: Deadlines::default() }
    }

    /// The file as it is.
    ///
    /// # Errors
    /// [`DeadlinesError`].
    pub fn read(path: &Path) -> Result<Draft, DeadlinesError> {
        let path = path.to_owned();
        let text =
            text_of(&path).map_err(|source| DeadlinesError::Read { path: path.clone(), source })?;
        Draft::parse(&text).map_err(|Wrong { line, what }| DeadlinesError::Wrong {
            path,
            line,
            what,
        })
    }

    fn parse(text: &str) -> Result<Draft, Wrong> {
        let deadlines = Deadlines::parse(text)?;
        let document = text.parse().expect("it was parsed a moment ago");
        Ok(Draft { head: "", document, deadlines })
    }

    /// Takes in what was learned of a scope.
    pub fn take_in(&mut self, lesson: &Lesson, lowering: Lowering) -> Change {
        let to = lesson.deadline;
        let change = match self.deadlines.scopes.get(&lesson.scope).copied() {
            None => Change::Added { to },
            Some(from) if from < to => Change::Raised { from, to },
            Some(from) if from == to => Change::Same,
            Some(from) if lowering == Lowering::Lowered => Change::Lowered { from, to },
            Some(at) => Change::Kept { at, could: to },
        };
        let deadline = match change {
            Change::Kept { at, .. } => at,
            _ => to,
        };
        self.write(lesson, deadline);
        self.deadlines.scopes.insert(lesson.scope.clone(), deadline);
        change
    }

    fn write(&mut self, lesson: &Lesson, deadline: Duration) {
        let scopes = self.document.as_table_mut().entry("scopes").or_insert_with(|| {
            let mut scopes = Table::new();
            scopes.set_implicit(true);
            Item::Table(scopes)
        });
        let scopes = scopes.as_table_like_mut().expect("it was read as a table");
        // Somebody's own brief form stays brief.
        if scopes.get(&lesson.scope).is_some_and(|item| item.as_table_like().is_none()) {
            return set(scopes, &lesson.scope, time_text(deadline));
        }
        let entry = scopes.entry(&lesson.scope).or_insert_with(|| Item::Table(Table::new()));
        let entry = entry.as_table_like_mut().expect("it was read as a table");
        set(entry, "deadline", time_text(deadline));
        set(entry, "confidence", lesson.confidence);
        set(entry, "acquires", i64::try_from(lesson.acquires).unwrap_or(i64::MAX));
        set(entry, "longest", lesson.longest.as_str());
    }

    /// Its text.
    pub fn text(&self) -> String {
        format!("{}{}", self.head, self.document)
    }

    /// Writes it: a plain file is replaced whole, anything else is written to.
    ///
    /// # Errors
    /// See [`output::write`].
    pub fn save(&self, path: &Path) -> io::Result<()> {
        output::write(path, self.text().as_bytes(), NewFile::Shared)
    }
}

impl Default for Draft {
    fn default() -> Self {
        Draft::new()
    }
}

/// Sets a value and leaves the comments around it alone.
fn set(table: &mut dyn TableLike, key: &str, new: impl Into<toml_edit::Value>) {
    let mut new = new.into();
    if let Some(old) = table.get(key).and_then(Item::as_value) {
        *new.decor_mut() = old.decor().clone();
    }
    table.insert(key, value(new));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(scope: &str, seconds: u64) -> Lesson {
        Lesson {
            scope: scope.to_owned(),
            deadline: Duration::from_secs(seconds),
            confidence: "good",
            acquires: 4711,
            longest: "1.5s".to_owned(),
        }
    }

    fn seconds(text: &str, scope: &str) -> u64 {
        Deadlines::parse(text).unwrap().scopes[scope].as_secs()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut draft = Draft::new();
        for scope in ["forward", "train.py#41", "\"quoted\"", "a.b = c\u{1b}", "\u{2026}tail"] {
            let change = draft.take_in(&lesson(scope, 12), Lowering::Kept);
            assert_eq!(change, Change::Added { to: Duration::from_secs(12) });
            assert_eq!(seconds(&draft.text(), scope), 12, "{}", draft.text());
        }
        assert!(draft.text().starts_with(HEAD), "{}", draft.text());
    }

    #[test]
    fn a_merge_raises_and_does_not_lower_unless_told_to() {
        const OLD: &str = "\
# mine
default = \"10m\" # for the rest

[scopes.low]
deadline = \"3s\" # by hand
[scopes.high]
deadline = \"30s\"
[scopes]
brief = \"1s\" # short
gone = 5
";
        let mut draft = Draft::parse(OLD).unwrap();
        let secs = Duration::from_secs;
        let raised = Change::Raised { from: secs(3), to: secs(12) };
        assert_eq!(draft.take_in(&lesson("low", 12), Lowering::Kept), raised);
        let kept = Change::Kept { at: secs(30), could: secs(12) };
        assert_eq!(draft.take_in(&lesson("high", 12), Lowering::Kept), kept);
        let raised = Change::Raised { from: secs(1), to: secs(12) };
        assert_eq!(draft.take_in(&lesson("brief", 12), Lowering::Kept), raised);
        assert_eq!(draft.take_in(&lesson("brief", 12), Lowering::Kept), Change::Same);
        let text = draft.text();
        let all = ["low", "high", "brief", "gone"].map(|scope| seconds(&text, scope));
        assert_eq!(all, [12, 30, 12, 5], "{text}");
        for comment in ["# mine", "# for the rest", "# by hand", "# short"] {
            assert!(text.contains(comment), "{text}");
        }
        let lowered = Change::Lowered { from: secs(30), to: secs(12) };
        assert_eq!(draft.take_in(&lesson("high", 12), Lowering::Lowered), lowered);
        assert_eq!(seconds(&draft.text(), "high"), 12);
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        use std::fs;
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deadlines.toml");
        let mut draft = Draft::new();
        draft.take_in(&lesson("forward", 12), Lowering::Kept);
        draft.save(&path).unwrap();
        assert_eq!(Deadlines::read(&path).unwrap(), draft.deadlines);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        let link = dir.path().join("link.toml");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        draft.take_in(&lesson("backward", 7), Lowering::Kept);
        draft.save(&link).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
        assert_eq!(Deadlines::read(&path).unwrap().scopes.len(), 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
        let nowhere = dir.path().join("no/such/dir.toml");
        assert!(draft.save(&nowhere).is_err());
    }
}
