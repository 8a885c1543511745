//! The archive: the thread that has incidents written to disk, which nobody waits for.
//!
//! Of each incident it holds the newest state that is not written yet, so a disk that is slow costs
//! the states between, and one that hangs holds at most [`WAITING`] incidents. It is a process of its
//! own that writes ([`Writer`]): one that is held by its disk keeps no watchdog from ending.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event_log::{EventLog, Note};
use hangwatch_evidence::writer::Recorder;
use hangwatch_incident::schema::Incident;
use hangwatch_incident::store::Store;

/// Incidents that wait to be written at most.
const WAITING: usize = 256;
/// How long a writer is kept that has nothing to write.
const IDLE: Duration = Duration::from_secs(5);

/// Where incidents go to be written.
#[derive(Clone)]
pub(super) struct IncidentWriter {
    queue: Arc<Queue>,
    event_log: EventLog,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<String, PendingWrite>,
    /// What is being written.
    writing: Option<PendingWrite>,
    is_closed: bool,
}

/// An incident to be written.
#[derive(Clone)]
struct PendingWrite {
    incident: Arc<Incident>,
    completeness: Completeness,
    priority: Priority,
}

/// Which incidents make room for others where too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// It is of whoever held others up, or the first to name it.
    High,
    /// It is one of many.
    Low,
}

/// Whether an incident may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completeness {
    /// It may.
    Open,
    /// It may not: all there will be of it is there.
    Closed,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IncidentWriter {
    /// An archive, which somebody must [`run`](Archive::run).
    pub(super) fn new(event_log: EventLog) -> IncidentWriter {
        IncidentWriter { queue: Arc::default(), event_log }
    }

    /// Has an incident written, in place of an earlier state of it. When a closed one is written, the
    /// log is told.
    pub(super) fn put(
        &self,
        incident: Arc<Incident>,
        completeness: Completeness,
        priority: Priority,
    ) {
        let mut state = self.queue.state();
        let write = PendingWrite { incident, completeness, priority };
        let is_known = state.waiting.contains_key(&write.incident.id);
        let mut lost = None;
        if is_known || state.waiting.len() < WAITING {
            state.waiting.insert(write.incident.id.clone(), write);
        } else {
            // The latest victim makes room for a root; another victim is the one too many itself.
            let mut victims = state.waiting.iter().filter(|(_, it)| it.priority == Priority::Low);
            let latest = victims.next_back().map(|(id, _)| id.clone());
            match latest.filter(|_| priority == Priority::High) {
                Some(latest) => {
                    lost = state.waiting.remove(&latest);
                    state.waiting.insert(write.incident.id.clone(), write);
                }
                None => lost = Some(write),
            }
        }
        self.queue.changed.notify_all();
        drop(state);
        if let Some(lost) = lost {
            let error = format!("{WAITING} others wait to be written already");
            self.told(lost, Err(error));
        }
    }

    /// Tells the log what became of an incident.
    fn told(&self, write: PendingWrite, written: Result<PathBuf, String>) {
        let PendingWrite { incident, completeness, .. } = write;
        let dir = match written {
            Ok(dir) => Some(dir),
            Err(error) => {
                self.event_log.note(Note::IncidentLost { id: incident.id.clone(), error });
                None
            }
        };
        if completeness == Completeness::Closed {
            self.event_log.note(Note::Closed { incident, dir });
        }
    }

    /// Has incidents written until the archive is closed and everything is written: by a process that
    /// `program` has as a command. Without a program, or where it cannot be started, this thread writes.
    pub(super) fn run(&self, store: &Store, program: Option<&Path>) {
        let mut recorder = Recorder::new(program.map(Path::to_owned), store.clone());
        loop {
            let write = match self.next() {
                Next::Write(write) => write,
                Next::Nothing => {
                    recorder.rest();
                    continue;
                }
                Next::Closed => return,
            };
            let written = recorder.put(&write.incident);
            // Told before anybody takes it for done. Closed while it was written, its loss has been told.
            let mut state = self.queue.state();
            if let Some(write) = state.writing.take() {
                self.told(write, written.map_err(|error| error.to_string()));
            }
            drop(state);
            self.queue.changed.notify_all();
        }
    }

    /// What is to be done next, when there is something.
    fn next(&self) -> Next {
        let mut state = self.queue.state();
        loop {
            if let Some((_, write)) = state.waiting.pop_first() {
                state.writing = Some(write.clone());
                return Next::Write(write);
            }
            if state.is_closed {
                return Next::Closed;
            }
            let waited = self.queue.changed.wait_timeout(state, IDLE);
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
        let mut state = self.queue.state();
        state.is_closed = true;
        self.queue.changed.notify_all();
        while state.writing.is_some() || !state.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break; // a disk that hangs
            }
            let waited = self.queue.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        // What waits is newer than what is being written.
        let mut lost = std::mem::take(&mut state.waiting);
        if let Some(write) = state.writing.take() {
            lost.entry(write.incident.id.clone()).or_insert(write);
        }
        drop(state);
        for write in lost.into_values() {
            let error = format!("the disk did not answer within {most:?} of the watchdog's end");
            self.told(write, Err(error));
        }
    }
}

/// What the archive is to do.
enum Next {
    Write(PendingWrite),
    /// It has been idle.
    Nothing,
    Closed,
}
