//! Messages between the tick and the other threads: [`Question`] and [`Answer`].
//!
//! The tick never waits for a channel. A question that does not fit into the queue is lost and asked again
//! later; a thread with an answer waits until there is room.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;

use super::doorbell::TickWaker;
use super::worker::{Admitted, LaneFacts};

/// A question to the attestor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// Which process owns this lane?
    Admit { lane: u32 },
    /// Does this worker run the admitted program, and is it able to run?
    Status { worker: WorkerId },
    /// This lane has no lock: does its admitted worker still run the same program?
    Unlocked { lane: u32, owner: OwnerWord, worker: WorkerId },
}

/// An answer to the tick.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The owner of a lane.
    Admission {
        lane: u32,
        owner: OwnerWord,
        admission: Admission,
        worker: Option<Arc<Admitted>>,
        facts: Arc<LaneFacts>,
    },
    /// A worker's status at that time: what keeps it from running, if anything does.
    Status { worker: WorkerId, at: Nanos, hold: Option<Hold> },
    /// A worker's status cannot be verified, for this reason.
    Unverified { worker: WorkerId, why: Box<str> },
    /// At that time, the owner of a lane without a lock ran the admitted program and had the segment mapped.
    SameProgram { lane: u32, owner: OwnerWord, at: Nanos },
    /// The snapshot of an expired worker's lanes is taken.
    SnapshotTaken { worker: WorkerId },
    /// No more evidence of an expired worker is expected.
    Captured { worker: WorkerId },
    /// The process is dead.
    Died { worker: WorkerId },
    /// The process runs another program. Its lanes are reported one by one.
    Execd { worker: WorkerId },
}

/// Sends answers to the tick, and wakes it.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) sender: SyncSender<Answer>,
    pub(super) tick_waker: TickWaker,
}

impl Answers {
    /// Sends an answer and waits for room. Does nothing if the tick has ended.
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
