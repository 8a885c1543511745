//! How the tick talks to the witness: without waiting.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use hangwatch_core::watchdog::reap::Outcome;
use hangwatch_core::wire::time::Nanos;

use super::case::Case;
use super::wake_up::WakeUp;
use hangwatch_evidence::options::{EvidenceOptions, Level};

/// Cases that wait for the witness to open them at most. What follows an opened case is never lost: each
/// case is followed by a few tasks.
const CASES: usize = 4096;

/// What the witness is told.
#[derive(Debug)]
pub(super) enum Task {
    /// A case was opened.
    Open(Arc<Case>),
    /// A signal was sent.
    Signalled { case: Arc<Case>, at: Nanos, signal: u8 },
    /// The expiry has come to its end, or to a point that must be known.
    Ended { case: Arc<Case>, at: Nanos, signal: u8, late_ns: u64, outcome: Outcome },
}

/// How the tick talks to the witness: without waiting.
pub(super) struct CollectorHandle {
    // Dropped in this order: woken, the witness finds that nobody is left.
    tasks: Sender<Task>,
    /// Cases told and not taken yet.
    unopened: Arc<AtomicUsize>,
    wake_up: WakeUp,
    pub(super) level: Level,
    pub(super) budget_ns: u64,
}

/// Where the witness hears.
pub(super) struct TaskReceiver {
    pub(super) tasks: Receiver<Task>,
    /// Readable when something was told, or nobody is left.
    pub(super) wake_fd: Arc<OwnedFd>,
    unopened: Arc<AtomicUsize>,
}

impl TaskReceiver {
    /// A case was taken out of the queue.
    pub(super) fn has_taken(&self) {
        // Relaxed: a count, which orders nothing else.
        self.unopened.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CollectorHandle {
    /// One to tell it, and one for the witness to hear.
    pub(super) fn new(options: &EvidenceOptions) -> io::Result<(CollectorHandle, TaskReceiver)> {
        let (sender, tasks) = channel();
        let unopened = Arc::<AtomicUsize>::default();
        let (wake_up, wake_fd) = WakeUp::new()?;
        let collector_handle = CollectorHandle {
            tasks: sender,
            unopened: Arc::clone(&unopened),
            wake_up,
            level: options.level,
            budget_ns: u64::try_from(options.budget.as_nanos()).unwrap_or(u64::MAX),
        };
        Ok((collector_handle, TaskReceiver { tasks, wake_fd, unopened }))
    }

    /// Tells the witness; false where too many cases wait already, or it has ended.
    pub(super) fn tell(&self, task: Task) -> bool {
        if matches!(task, Task::Open(_)) {
            // Relaxed: a count, which orders nothing else. One too many is taken back.
            if self.unopened.fetch_add(1, Ordering::Relaxed) >= CASES {
                self.unopened.fetch_sub(1, Ordering::Relaxed);
                return false;
            }
        }
        let is_told = self.tasks.send(task).is_ok();
        self.wake_up.wake();
        is_told
    }
}
