//! The archive: the thread that writes incidents to disk, which nobody waits for.
//!
//! Of each incident it holds the newest state that is not written yet, so a disk that is slow costs
//! the states between, and one that hangs holds at most [`WAITING`] incidents.

use std::collections::BTreeMap;
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
    waiting: BTreeMap<String, Arc<Incident>>,
    is_writing: bool,
    is_closed: bool,
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

    /// Has an incident written, in place of an earlier state of it.
    pub(super) fn put(&self, incident: Arc<Incident>) {
        let mut state = self.shelf.state();
        let is_known = state.waiting.contains_key(&incident.id);
        if is_known || state.waiting.len() < WAITING {
            state.waiting.insert(incident.id.clone(), incident);
            self.shelf.changed.notify_all();
            return;
        }
        drop(state);
        let error = format!("{WAITING} others wait to be written already");
        self.journal.note(Note::IncidentLost { id: incident.id.clone(), error });
    }

    /// Writes until the archive is closed and everything is written.
    pub(super) fn run(&self, store: &Store) {
        loop {
            let incident = {
                let mut state = self.shelf.state();
                loop {
                    if let Some((_, incident)) = state.waiting.pop_first() {
                        state.is_writing = true;
                        break incident;
                    }
                    if state.is_closed {
                        return;
                    }
                    state = self.shelf.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            };
            if let Err(error) = store.put(&incident) {
                let (id, error) = (incident.id.clone(), error.to_string());
                self.journal.note(Note::IncidentLost { id, error });
            }
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
