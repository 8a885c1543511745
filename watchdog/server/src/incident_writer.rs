//! Writes incidents to disk on a thread that nothing else waits for.
//!
//! For each incident the newest state that is not on disk is kept as a pending write. A slow disk costs the
//! states in between; a disk that hangs holds back at most [`WAITING`] incidents. The writing is done by a
//! separate process (`Recorder`), because a process whose own thread hangs in the disk cannot exit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::event_log::{EventLog, Note};
use hangwatch_evidence::writer::Recorder;
use hangwatch_incident::schema::Incident;
use hangwatch_incident::store::Store;

/// Maximum number of pending writes.
const WAITING: usize = 256;
/// The writer process is stopped after this time without work.
const IDLE: Duration = Duration::from_secs(5);

/// Queues incidents for writing. Clones share one queue.
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
    /// The write in progress.
    writing: Option<PendingWrite>,
    is_closed: bool,
}

/// A pending write.
#[derive(Clone)]
struct PendingWrite {
    incident: Arc<Incident>,
    completeness: Completeness,
    priority: Priority,
}

/// Which pending writes are dropped first when there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// The incident of a suspect, or the first that names one.
    High,
    /// Any other incident.
    Low,
}

/// Whether an incident may still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Completeness {
    /// It may change.
    Open,
    /// It is complete.
    Closed,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IncidentWriter {
    /// Creates the queue. A thread must call [`run`](Self::run).
    pub(super) fn new(event_log: EventLog) -> IncidentWriter {
        IncidentWriter { queue: Arc::default(), event_log }
    }

    /// Queues an incident and replaces an older pending state of it.
    ///
    /// The event log is told when the write of a closed incident ends. If the queue is full, a low-priority
    /// write is dropped and reported as lost.
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
            // A high-priority write replaces the latest low-priority one. Otherwise the new write is dropped.
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
            let error = format!("{WAITING} other incidents are waiting to be written");
            self.report(lost, Err(error));
        }
    }

    /// Reports the result of a write to the event log.
    fn report(&self, write: PendingWrite, written: Result<PathBuf, String>) {
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

    /// Writes incidents until the queue is closed and empty.
    ///
    /// `program` is the hangwatch binary that the writer process runs. Without it, or if it cannot be started,
    /// this thread writes.
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
            // Reported before `writing` is visibly empty. `close` may already have reported it as lost.
            let mut state = self.queue.state();
            if let Some(write) = state.writing.take() {
                self.report(write, written.map_err(|error| error.to_string()));
            }
            drop(state);
            self.queue.changed.notify_all();
        }
    }

    /// Waits for the next write, the end, or the idle timeout.
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

    /// Closes the queue and waits up to `most` for the writes to end. Reports the rest as lost.
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
        // A pending write is newer than the one in progress.
        let mut lost = std::mem::take(&mut state.waiting);
        if let Some(write) = state.writing.take() {
            lost.entry(write.incident.id.clone()).or_insert(write);
        }
        drop(state);
        for write in lost.into_values() {
            let error = format!("the disk did not answer within {most:?} while the watchdog ended");
            self.report(write, Err(error));
        }
    }
}

/// What `run` does next.
enum Next {
    Write(PendingWrite),
    /// There was no work for a while.
    Nothing,
    Closed,
}
