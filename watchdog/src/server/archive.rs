//! The archive: the thread that has incidents written to disk, which nobody waits for.
//!
//! Of each incident it holds the newest state that is not written yet, so a disk that is slow costs
//! the states between, and one that hangs holds at most [`WAITING`] incidents. It is a process of its
//! own that writes ([`Writer`]): one that is held by its disk keeps no watchdog from ending.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::journal::{Journal, Note};
use crate::incident::schema::Incident;
use crate::incident::store::Store;
use crate::incident::writer::{WriteError, Writer};

/// Incidents that wait to be written at most.
const WAITING: usize = 256;
/// How long a writer is kept that has nothing to write.
const IDLE: Duration = Duration::from_secs(5);

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
    /// What is being written.
    writing: Option<String>,
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
        self.lost(&incident.id, error);
    }

    /// Has incidents written until the archive is closed and everything is written: by a process that
    /// `program` has as a command. Without a program, or where it cannot be started, this thread writes.
    pub(super) fn run(&self, store: &Store, program: Option<&Path>) {
        let mut writer = None;
        loop {
            let incident = match self.next() {
                Next::Write(incident) => incident,
                Next::Nothing => {
                    writer = None;
                    continue;
                }
                Next::Closed => return,
            };
            if writer.is_none() {
                writer = program.and_then(|program| Writer::start(program, store).ok());
            }
            let written = match &mut writer {
                Some(writer) => writer.put(&incident),
                None => {
                    store.put(&incident).map_err(|error| WriteError::Refused(error.to_string()))
                }
            };
            if matches!(written, Err(WriteError::Ended(_))) {
                writer = None; // the next incident gets another
            }
            // Closed while it was written, its loss has been told.
            let was_awaited = self.shelf.state().writing.take().is_some();
            if let (Err(error), true) = (written, was_awaited) {
                self.lost(&incident.id, error.to_string());
            }
            self.shelf.changed.notify_all();
        }
    }

    /// What is to be done next, when there is something.
    fn next(&self) -> Next {
        let mut state = self.shelf.state();
        loop {
            if let Some((id, incident)) = state.waiting.pop_first() {
                state.writing = Some(id);
                return Next::Write(incident);
            }
            if state.is_closed {
                return Next::Closed;
            }
            let waited = self.shelf.changed.wait_timeout(state, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && woken.waiting.is_empty() && !woken.is_closed {
                return Next::Nothing;
            }
            state = woken;
        }
    }

    /// Closes it, and waits a while until everything is written. What is not is told.
    pub(super) fn close(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut state = self.shelf.state();
        state.is_closed = true;
        self.shelf.changed.notify_all();
        while state.writing.is_some() || !state.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break; // a disk that hangs
            }
            let waited = self.shelf.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let mut lost: BTreeSet<String> = std::mem::take(&mut state.waiting).into_keys().collect();
        lost.extend(state.writing.take());
        drop(state);
        for id in lost {
            let error = format!("the disk did not answer within {most:?} of the watchdog's end");
            self.lost(&id, error);
        }
    }

    fn lost(&self, id: &str, error: String) {
        self.journal.note(Note::IncidentLost { id: id.to_owned(), error });
    }
}

/// What the archive is to do.
enum Next {
    Write(Arc<Incident>),
    /// It has been idle.
    Nothing,
    Closed,
}
