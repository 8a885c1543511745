//! The end of the demo: why the worker hung, and the commands that show more.

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

/// The incidents of a demo.
#[derive(Clone, Debug)]
pub(super) struct Incidents {
    /// Where they are stored, or why they are not.
    place: Result<PathBuf, Arc<NoStateDirectory>>,
    /// Whether that is the default directory.
    is_usual: bool,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    captured: Vec<Arc<Incident>>,
    lost: Vec<String>,
}

impl Incidents {
    /// The collection, and the server's options.
    pub(super) fn new(asked: &Evidence) -> (Incidents, EvidenceOptions) {
        let (options, why_not) = asked.options();
        let is_usual = asked.incidents.dir.is_none();
        let place = match (&options.keep, why_not) {
            (Some(keep), _) => Ok(keep.dir.clone()),
            (None, why_not) => Err(Arc::new(why_not.unwrap_or(NoStateDirectory))),
        };
        (Incidents { place, is_usual, heard: Arc::default() }, options)
    }

    /// Records incidents, and those that could not be stored.
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

    /// Why the worker hung, and what to do next; empty if nothing was captured.
    pub(super) fn told(&self, look: Look) -> String {
        let heard = self.heard();
        let mut text = String::new();
        for incident in &heard.captured {
            let _ = write!(text, "\n{}", terminal::in_brief(incident, look));
            let waited = brief_ns(incident.evidence.taken_ns);
            let _ = writeln!(
                text,
                "  The signal waited {waited} for this evidence; with --evidence off it does not wait."
            );
        }
        let Some(last) = heard.captured.last() else { return text };
        match (&self.place, heard.lost.last()) {
            (Err(error), _) => text + &format!("\nThis incident is not stored: {error}.\n"),
            (_, Some(error)) => text + &format!("\nThis incident could not be stored: {error}\n"),
            (Ok(dir), None) => text + &self.how_to_go_on(dir, last),
        }
    }

    fn how_to_go_on(&self, dir: &Path, incident: &Incident) -> String {
        let (program, dir) = (as_it_was_called(), dir.display());
        // The time at the beginning of the name is enough.
        let id = incident.id.split('-').next().unwrap_or(&incident.id);
        let place = if self.is_usual { String::new() } else { format!(" --incidents {dir}") };
        format!(
            "\nThe whole incident is in {dir}:\n  {program} show {id}{place}\n  \
             {program} report {id} -o report.html{place}\n"
        )
    }
}

/// The program as the user called it.
fn as_it_was_called() -> String {
    let called = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let is_it = called.file_name().is_some_and(|name| name == "hangwatch");
    // In a Python process the first word is the interpreter.
    if is_it { called.display().to_string() } else { "hangwatch".to_owned() }
}
