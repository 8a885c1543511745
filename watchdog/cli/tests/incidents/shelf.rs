//! A directory of incidents, and the binary that reads it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use hangwatch_incident::schema::Incident;

pub(crate) struct Shelf(tempfile::TempDir);

impl Shelf {
    pub(crate) fn new() -> Shelf {
        Shelf(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Puts an incident there.
    pub(crate) fn put(&self, id: &str, incident: &Incident) {
        self.put_text(id, &serde_json::to_string(incident).unwrap());
    }

    /// Puts a file there, whatever is in it.
    pub(crate) fn put_text(&self, id: &str, text: &str) {
        let dir = self.0.path().join(id);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("incident.json"), text).unwrap();
    }

    /// What the binary says of it, and how it ends.
    pub(crate) fn hangwatch(&self, words: &[&str]) -> Output {
        // What hangs for ever fails its test.
        let mut command = Command::new("timeout");
        command.args(["60", env!("CARGO_BIN_EXE_hangwatch")]);
        command.args(words).arg("--incidents").arg(self.0.path());
        command.env_remove("HANGWATCH_SEGMENT").stdin(Stdio::null()).output().unwrap()
    }

    /// What the binary writes, where all goes well.
    pub(crate) fn says(&self, words: &[&str]) -> String {
        let output = self.hangwatch(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its complaint, where it has one.
    pub(crate) fn complains(&self, words: &[&str]) -> String {
        let output = self.hangwatch(words);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

/// Compares a text with the one that is kept in a file; `UPDATE_GOLDEN=1` writes it instead.
pub(crate) fn check_golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/incidents/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{} differs; UPDATE_GOLDEN=1 writes it:\n{text}", path.display());
}
