//! What the tick asks of the other threads, and what they answer.
//!
//! The tick never waits on a channel: a question that finds no room is lost, and asked again by the
//! table's and the verdicts' own retries; an answer waits in the clerk's or the inspector's hands until
//! there is room.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;

use super::doorbell::TickWaker;
use super::worker::{Admitted, LaneFacts};

/// What the clerk is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// Who owns this lane?
    Admit { lane: u32 },
    /// Is anything holding this worker up that is not its own doing?
    Status { worker: WorkerId },
    /// This lane of an admitted worker has no lock: does the worker still run the same program?
    Unlocked { lane: u32, owner: OwnerWord, worker: WorkerId },
}

/// What the tick is told.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Who owns a lane.
    Admission {
        lane: u32,
        owner: OwnerWord,
        admission: Admission,
        worker: Option<Arc<Admitted>>,
        facts: Arc<LaneFacts>,
    },
    /// How a worker stood at that time.
    Status { worker: WorkerId, at: Nanos, hold: Option<Hold> },
    /// How a worker stands cannot be verified, for this reason.
    Unverified { worker: WorkerId, why: Box<str> },
    /// A lane without its lock whose owner ran the same program, with the segment mapped, at that
    /// time.
    SameProgram { lane: u32, owner: OwnerWord, at: Nanos },
    /// What the segment says of an expired worker has been taken down.
    SnapshotTaken { worker: WorkerId },
    /// There is no more evidence of an expired worker to wait for.
    Captured { worker: WorkerId },
    /// The process is dead.
    Died { worker: WorkerId },
    /// The process runs another program now; its lanes are told of one by one.
    Execd { worker: WorkerId },
}

/// The way to the tick.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) sender: SyncSender<Answer>,
    pub(super) tick_waker: TickWaker,
}

impl Answers {
    /// Tells the tick, waiting for room; nothing where there is no tick any more.
    pub(super) fn tell(&self, answer: Answer) {
        match self.sender.try_send(answer) {
            Err(std::sync::mpsc::TrySendError::Full(answer)) => {
                self.tick_waker.wake();
                let _ = self.sender.send(answer);
            }
            Ok(()) | Err(std::sync::mpsc::TrySendError::Disconnected(_)) => {}
        }
        self.tick_waker.wake();
    }
}
