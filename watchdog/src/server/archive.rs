//! The archive: the thread that writes incidents to disk, which nobody waits for.
//!
//! Of each incident it holds the newest state that is not written yet, so a disk that is slow costs
//! the states between, and one that hangs holds at most [`WAITING`] incidents.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::journal::{Journal, Note};
use crate::incident::schema::Incident;
use crate::incident::store::Store;

/// Incidents that wait to be written at most.
const WAITING: usize = 256;

/// Where incidents go to be written.
#[derive(Clone)]
pub(super) struct Archive {
    shelf: Arc<Shelf>,
    journal: Journal,
}

#[derive(Default)]
struct Shelf {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, Filed>,
    is_writing: bool,
    is_closed: bool,
}

/// An incident to be written.
struct Filed {
    incident: Arc<Incident>,
    stands: Stands,
}

/// Whether an incident may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// It may.
    Open,
    /// It may not: all there will be of it is there.
    Closed,
}

impl Shelf {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Archive {
    /// An archive, which somebody must [`run`](Archive::run).
    pub(super) fn new(journal: Journal) -> Archive {
        Archive { shelf: Arc::default(), journal }
    }

    /// Has an incident written, in place of an earlier state of it. When a closed one is written, the
    /// log is told.
    pub(super) fn put(&self, incident: Arc<Incident>, stands: Stands) {
        let mut state = self.shelf.state();
        let is_known = state.waiting.contains_key(&incident.id);
        if is_known || state.waiting.len() < WAITING {
            state.waiting.insert(incident.id.clone(), Filed { incident, stands });
            self.shelf.changed.notify_all();
            return;
        }
        drop(state);
        let error = format!("{WAITING} others wait to be written already");
        self.journal.note(Note::IncidentLost { id: incident.id.clone(), error });
        self.told(incident, stands, None);
    }

    fn told(&self, incident: Arc<Incident>, stands: Stands, dir: Option<PathBuf>) {
        if stands == Stands::Closed {
            self.journal.note(Note::Closed { incident, dir });
        }
    }

    /// Writes until the archive is closed and everything is written.
    pub(super) fn run(&self, store: &Store) {
        loop {
            let Filed { incident, stands } = {
                let mut state = self.shelf.state();
                loop {
                    if let Some((_, filed)) = state.waiting.pop_first() {
                        state.is_writing = true;
                        break filed;
                    }
                    if state.is_closed {
                        return;
                    }
                    state = self.shelf.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let dir = match store.put(&incident) {
                Ok(dir) => Some(dir),
                Err(error) => {
                    let (id, error) = (incident.id.clone(), error.to_string());
                    self.journal.note(Note::IncidentLost { id, error });
                    None
                }
            };
            self.told(incident, stands, dir);
            self.shelf.state().is_writing = false;
            self.shelf.changed.notify_all();
        }
    }

    /// Closes it, and waits a while until everything is written.
    pub(super) fn close(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut state = self.shelf.state();
        state.is_closed = true;
        self.shelf.changed.notify_all();
        while state.is_writing || !state.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return; // a disk that hangs
            }
            let waited = self.shelf.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }
}
