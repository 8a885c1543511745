//! The handle of the evidence collector: the tick queues tasks and never waits.

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

/// Maximum number of cases that wait for the evidence collector. Later tasks of an accepted case are never
/// lost; there are only a few for each.
const CASES: usize = 4096;

/// A task for the evidence collector.
#[derive(Debug)]
pub(super) enum Task {
    /// A case is to be opened.
    Open(Arc<Case>),
    /// A signal was sent.
    Signalled { case: Arc<Case>, at: Nanos, signal: u8 },
    /// The expiry has an outcome, which may be followed by another.
    Ended { case: Arc<Case>, at: Nanos, signal: u8, late_ns: u64, outcome: Outcome },
}

/// How the tick queues tasks for the evidence collector.
pub(super) struct CollectorHandle {
    // Dropped in this order: the wake-up makes the collector find the channel closed.
    tasks: Sender<Task>,
    /// Number of queued cases.
    unopened: Arc<AtomicUsize>,
    wake_up: WakeUp,
    pub(super) level: Level,
    pub(super) budget_ns: u64,
}

/// The evidence collector's end of the queue.
pub(super) struct TaskReceiver {
    pub(super) tasks: Receiver<Task>,
    /// Readable after a task was queued, or when the handle was dropped.
    pub(super) wake_fd: Arc<OwnedFd>,
    unopened: Arc<AtomicUsize>,
}

impl TaskReceiver {
    /// Records that a case was taken from the queue.
    pub(super) fn has_taken(&self) {
        // Relaxed: an independent count.
        self.unopened.fetch_sub(1, Ordering::Relaxed);
    }
}

impl CollectorHandle {
    /// Creates both ends.
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

    /// Queues a task. Returns false if too many cases are waiting, or the collector has ended.
    pub(super) fn tell(&self, task: Task) -> bool {
        if matches!(task, Task::Open(_)) {
            // Relaxed: an independent count. A case beyond the limit is subtracted again.
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
