//! Why the demo's worker hung: what was captured of it before its signal, and how to go on.

use std::env;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cli::evidence::Evidence;
use hangwatch_evidence::options::EvidenceOptions;
use hangwatch_incident::schema::Incident;
use hangwatch_incident::store::NoStateDirectory;
use hangwatch_report::terminal::{self, Look};
use hangwatch_server::ServerEvent;
use hangwatch_server::events::What;
use hangwatch_text::brief_ns;

/// What became of the incidents of a demo.
#[derive(Clone, Debug)]
pub(super) struct Incidents {
    /// Where they are kept, or why they are not.
    place: Result<PathBuf, Arc<NoStateDirectory>>,
    /// Whether they are kept where everybody looks.
    is_usual: bool,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    captured: Vec<Arc<Incident>>,
    lost: Vec<String>,
}

impl Incidents {
    /// What the server is to capture, and what is made of it here.
    pub(super) fn new(asked: &Evidence) -> (Incidents, EvidenceOptions) {
        let (options, why_not) = asked.options();
        let is_usual = asked.incidents.dir.is_none();
        let place = match (&options.keep, why_not) {
            (Some(keep), _) => Ok(keep.dir.clone()),
            (None, why_not) => Err(Arc::new(why_not.unwrap_or(NoStateDirectory))),
        };
        (Incidents { place, is_usual, heard: Arc::default() }, options)
    }

    /// Takes note of what was captured, and of what could not be kept.
    pub(super) fn hear(&self, event: &ServerEvent) {
        match &event.what {
            What::Captured(incident) => self.heard().captured.push(Arc::clone(incident)),
            What::IncidentLost { error, .. } => self.heard().lost.push(error.clone()),
            _ => {}
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it hung, and how to go on; empty where nothing was captured.
    pub(super) fn told(&self, look: Look) -> String {
        let heard = self.heard();
        let mut text = String::new();
        for incident in &heard.captured {
            let _ = write!(text, "\n{}", terminal::in_brief(incident, look));
            let waited = brief_ns(incident.evidence.taken_ns);
            let _ = writeln!(
                text,
                "  Its signal waited {waited} for this; with --evidence off it waits for nothing."
            );
        }
        let Some(last) = heard.captured.last() else { return text };
        match (&self.place, heard.lost.last()) {
            (Err(error), _) => text + &format!("\nThis is not kept: {error}.\n"),
            (_, Some(error)) => text + &format!("\nThis could not be kept: {error}\n"),
            (Ok(dir), None) => text + &self.how_to_go_on(dir, last),
        }
    }

    fn how_to_go_on(&self, dir: &Path, incident: &Incident) -> String {
        let (program, dir) = (as_it_was_called(), dir.display());
        // The time it begins with is enough to name it.
        let id = incident.id.split('-').next().unwrap_or(&incident.id);
        let place = if self.is_usual { String::new() } else { format!(" --incidents {dir}") };
        format!(
            "\nThe rest of it is kept in {dir}:\n  {program} show {id}{place}\n  \
             {program} report {id} -o report.html{place}\n"
        )
    }
}

/// This program as whoever called it can call it again.
fn as_it_was_called() -> String {
    let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let is_it = called.file_name().is_some_and(|name| name == "hangwatch");
    // Within an interpreter the first word is the interpreter's.
    if is_it { called.display().to_string() } else { "hangwatch".to_owned() }
}
