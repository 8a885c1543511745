//! Incidents of a test, and what stands in them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hangwatch_incident::schema::{Frame, Incident, Thread};
use hangwatch_incident::story;
use hangwatch_text::brief_ns;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Watchdog, program, until};

/// A directory for one test's incidents, gone with it.
pub struct Incidents {
    dir: TempDir,
}

impl Default for Incidents {
    fn default() -> Self {
        Incidents::new()
    }
}

impl Incidents {
    /// An empty one.
    ///
    /// # Panics
    /// Where it cannot be made.
    pub fn new() -> Incidents {
        Incidents { dir: TempDir::new().unwrap() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The options of a watchdog that captures so much and keeps it here, and those given.
    ///
    /// # Panics
    /// Never: temporary directories have names in UTF-8.
    pub fn options<'o>(&'o self, level: &'o str, more: &[&'o str]) -> Vec<&'o str> {
        let dir = self.path().to_str().unwrap();
        [&["--evidence", level, "--incidents", dir], more].concat()
    }

    /// Every incident that is there.
    ///
    /// # Panics
    /// Where the directory cannot be read.
    pub fn all(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The incident that an event in the log points to, once it is complete.
    ///
    /// # Panics
    /// Where it does not come to that.
    pub fn of(&self, event: &Value) -> Incident {
        let id = event["incident"].as_str().unwrap_or_else(|| panic!("no incident: {event}"));
        let path = self.path().join(id).join("incident.json");
        until("the incident is complete", || {
            let incident: Incident = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            incident.ending.is_some().then_some(incident)
        })
    }

    /// The incident of the expiry of the process `pid`.
    pub fn of_expiry(&self, watchdog: &mut Watchdog, pid: u32) -> Incident {
        let event = watchdog.expiry_of(pid);
        self.of(&event)
    }
}

/// A program in place of `hangwatch`, for the helpers.
pub struct Script(TempDir);

impl Script {
    /// One with this body, for the shell.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn new(body: &str) -> Script {
        let script = Script(TempDir::new().unwrap());
        let real = program("stage-watchdog");
        // The other commands are as they are.
        let others = format!("[ \"$1\" = evidence-helper ] || exec {} \"$@\"", real.display());
        std::fs::write(script.path(), format!("#!/bin/sh\n{others}\n{body}\n")).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(script.path(), executable).unwrap();
        script
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("hangwatch")
    }
}

/// Checks that an incident's lateness is from its first deadline to its first signal, whoever tells it.
///
/// # Panics
/// Where it is not.
pub fn check_lateness_is_one(incident: &Incident) {
    let due = incident.timers[0].deadline.as_ref().unwrap().monotonic_ns;
    let late_ns = incident.ending.as_ref().unwrap().late_ns;
    let first = incident.decisions.iter().find(|it| it.what == story::SIGNALLED).unwrap();
    assert_eq!(first.at.monotonic_ns, due + late_ns, "{incident:#?}");
    assert_eq!(story::origin_ns(incident), due);
    let late = brief_ns(late_ns);
    assert!(first.why.ends_with(&format!(", {late} after the deadline")), "{}", first.why);
}

/// Every native frame of a thread.
pub fn native(thread: &Thread) -> &[Frame] {
    thread.native.as_deref().unwrap_or_default()
}

/// Whether a stack shows this line of `hang.rs`.
pub fn shows_line(frames: &[Frame], line: u32) -> bool {
    let is_there = |file: &String| file.ends_with("tests/src/hang.rs");
    frames.iter().any(|frame| frame.file.as_ref().is_some_and(is_there) && frame.line == Some(line))
}

/// Why a piece of evidence is missing, if it is.
pub fn missing<'i>(incident: &'i Incident, what: &str) -> Option<&'i str> {
    let missing = incident.evidence.missing.iter().find(|missing| missing.what == what);
    missing.map(|missing| missing.why.as_str())
}
