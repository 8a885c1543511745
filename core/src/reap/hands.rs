//! What a reap does to the world, and what it tells of it: [`Hands`] and [`Event`].

use crate::expiry::{ExpiredTimer, WorkerId};
use crate::time::Nanos;

/// Whether a worker may be signalled now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Go,
    /// It may not while this lasts; it is reported.
    Held(Hold),
    /// Not before the kernel has answered; asked again at this time.
    Wait(Nanos),
}

/// Why an overdue worker is reported and not signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// A debugger traces it.
    Traced,
    /// Its control group is frozen.
    Frozen,
    /// It is stopped, and the watchdog was told to leave stopped workers alone.
    Stopped,
    /// It runs as another user now, whom it could not have signalled when it was admitted.
    OtherUser,
}

/// How sending a signal went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was sent, at this time.
    At(Nanos),
    /// The process was dead already.
    Gone,
}

/// Whether the evidence is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// As much as there will be.
    Ready,
    /// Not yet; asked again at this time.
    Pending(Nanos),
}

/// What a reap does to the world.
pub trait Hands {
    /// A failure that should not be.
    type Error: core::fmt::Debug;
    /// Whether the worker that owns `lane` may be signalled.
    fn verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict;
    /// Captures evidence; called until it is ready. The default has none to capture.
    fn evidence(&mut self, _now: Nanos, _worker: WorkerId, _timers: &[ExpiredTimer]) -> Evidence {
        Evidence::Ready
    }
    /// Sends a signal through the kernel's own handle on the process.
    ///
    /// # Errors
    /// Where the signal could not be sent, and not because the process is dead.
    fn signal(&mut self, worker: WorkerId, signal: u8) -> Result<Sent, Self::Error>;
    /// Whether the process is dead, by that handle.
    fn is_dead(&mut self, worker: WorkerId) -> bool;
    /// Takes note of what happened.
    fn note(&mut self, event: Event<'_, Self::Error>);
}

/// How an expiry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The worker died of the first signal, or of SIGKILL after it.
    Reaped,
    /// The worker had ended before a signal was sent.
    Exited,
    /// Reported only: the timer or the watchdog is notify-only.
    Reported,
    /// Reported only, because the brake holds.
    Braked,
    /// The worker survived SIGKILL until now. Another event follows when it is dead.
    Unkillable,
    /// The signal could not be sent; the worker counts as reaped.
    Failed,
}

/// One thing a reap has to tell.
#[derive(Debug)]
pub enum Event<'e, E> {
    /// An expiry came to its end (or to a point that must be known: unkillable).
    Expiry {
        /// Whose.
        worker: WorkerId,
        /// Which timer.
        timer: &'e ExpiredTimer,
        /// The last signal sent, 0 for none.
        signal: u8,
        /// How late the first signal (or the report) came after the deadline, ns.
        late_ns: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// An overdue worker is not signalled while this lasts. Told once.
    Held {
        /// Whose.
        worker: WorkerId,
        /// The first of its overdue timers.
        timer: &'e ExpiredTimer,
        /// Why.
        hold: Hold,
    },
    /// The brake engaged.
    Braked {
        /// The limit that was reached, workers a minute.
        max_reaps: u32,
    },
    /// A signal was sent.
    Signalled {
        /// To whom.
        worker: WorkerId,
        /// Which.
        signal: u8,
    },
    /// A reap failed in a way it should not.
    Failed {
        /// Whose.
        worker: WorkerId,
        /// How.
        error: E,
    },
}
