//! How the tick talks to the witness: without waiting.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hangwatch_core::reap::Outcome;
use hangwatch_core::time::Nanos;

use super::case::Case;
use super::wake_up::WakeUp;
use crate::evidence::options::{EvidenceOptions, Level};

/// Tasks that wait for the witness at most.
const TASKS: usize = 4096;

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
pub(super) struct Stand {
    // Dropped in this order: woken, the witness finds that nobody is left.
    tasks: SyncSender<Task>,
    wake_up: WakeUp,
    pub(super) level: Level,
    pub(super) budget_ns: u64,
}

/// Where the witness hears.
pub(super) struct Ears {
    pub(super) tasks: Receiver<Task>,
    /// Readable when something was told, or nobody is left.
    pub(super) called: Arc<OwnedFd>,
}

impl Stand {
    /// One to tell it, and one for the witness to hear.
    pub(super) fn new(options: &EvidenceOptions) -> io::Result<(Stand, Ears)> {
        let (sender, tasks) = sync_channel(TASKS);
        let (wake_up, called) = WakeUp::new()?;
        let stand = Stand {
            tasks: sender,
            wake_up,
            level: options.level,
            budget_ns: u64::try_from(options.budget.as_nanos()).unwrap_or(u64::MAX),
        };
        Ok((stand, Ears { tasks, called }))
    }

    /// Tells the witness; false where there is no room.
    pub(super) fn tell(&self, task: Task) -> bool {
        let is_told = self.tasks.try_send(task).is_ok();
        self.wake_up.wake();
        is_told
    }
}
