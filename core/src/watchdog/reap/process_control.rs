//! What a reap does to the world, and what it tells of it: [`ProcessControl`] and [`Event`].

use crate::watchdog::cascade::{Member, Scene};
use crate::watchdog::expiry::ExpiredTimer;
use crate::watchdog::worker::WorkerId;
use crate::wire::scope::ScopeId;
use crate::wire::time::Nanos;

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

impl Verdict {
    /// What it is about a worker that may have been condemned by a watchdog before this one: that may have
    /// stopped the worker itself, to kill it after its descendants, and stopped it would stay.
    pub(super) fn of_condemned(self, is_condemned: bool) -> Verdict {
        if is_condemned && self == Verdict::Held(Hold::Stopped) { Verdict::Go } else { self }
    }
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
pub trait ProcessControl {
    /// A failure that should not be.
    type Error: core::fmt::Debug;
    /// Whether the worker that owns `lane` may be signalled.
    fn verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict;
    /// Whether the worker is never signalled, whatever it does: the watchdog's own process. Its
    /// expired timers are reported and not condemned.
    fn is_excluded(&self, _worker: WorkerId) -> bool {
        false
    }
    /// Captures evidence; called until it is ready. The default has none to capture.
    fn evidence(&mut self, _now: Nanos, _worker: WorkerId, _timers: &[ExpiredTimer]) -> Evidence {
        Evidence::Ready
    }
    /// Sends a signal through the kernel's own handle on the process.
    ///
    /// # Errors
    /// Where the signal could not be sent, and not because the process is dead.
    fn signal(&mut self, worker: WorkerId, signal: u8) -> Result<Sent, Self::Error>;
    /// Whether SIGKILL is about to be sent, by a thread that sees to other processes first: until then
    /// the worker does not count as unkillable.
    fn is_kill_pending(&self, _worker: WorkerId) -> bool {
        false
    }
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
    /// Reported only, because the kill limiter holds.
    Limited,
    /// The worker survived SIGKILL until now. Another event follows when it is dead.
    Unkillable,
    /// The signal could not be sent: the reap ends, and the worker keeps its timers as reported.
    Failed,
}

impl Outcome {
    /// Whether nobody was signalled for it, and nobody will be.
    pub fn is_report(self) -> bool {
        matches!(self, Outcome::Reported | Outcome::Limited)
    }
}

/// What is done about an overdue worker after a look at the others of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is held back: the suspect comes first. No longer than until then.
    HeldBack {
        /// Its deadline and the time of the cascade.
        until: Nanos,
    },
    /// It is held back, and the suspect is reaped now.
    SuspectFirst {
        /// Its deadline and the time of the cascade.
        until: Nanos,
    },
    /// It is reaped as usual, and the suspect only told of: so the policy is.
    Told,
    /// It is reaped as usual.
    Usual(Usual),
}

/// Why a worker is reaped as usual although suspects are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usual {
    /// Nobody else of its job is in the scope.
    Alone,
    /// Everybody of its job is.
    NobodyOutside,
    /// More than one of its job is not.
    SeveralOutside,
    /// The one who is not cannot be proved by the kernel.
    Unproved,
    /// It has had the time of the cascade.
    HeldLongEnough,
    /// There is a suspect, which may not be reaped.
    Excluded(Excluded),
}

/// Why a suspect is not reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// It is the watchdog's own process.
    OwnProcess,
    /// Its timers ask for reports only.
    ReportsOnly,
    /// It was in the scope with the others, and has left it.
    HasLeft,
    /// Its flight record has been overwritten since: it is at work.
    AtWork,
    /// It could not run.
    Held(Hold),
    /// The kill limiter holds.
    Limited,
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
    /// What was decided about an overdue worker with a look at the others of its job. Told when it
    /// changes.
    Cascade {
        /// The overdue worker.
        worker: WorkerId,
        /// Its timer, in whose scope the others were looked at.
        timer: &'e ExpiredTimer,
        /// What was seen.
        scene: Scene,
        /// Who is not in the scope, where that is one the kernel vouches for.
        suspect: Option<Member>,
        /// What was decided.
        course: Course,
    },
    /// The reap of a suspect came to its end (or to a point that must be known: unkillable).
    Suspect {
        /// The suspect.
        worker: WorkerId,
        /// A lane of its.
        lane: u32,
        /// The scope in which the others waited.
        scope: ScopeId,
        /// Its own timer that was condemned for it, where it had one armed.
        timer: Option<&'e ExpiredTimer>,
        /// The last signal sent, 0 for none.
        signal: u8,
        /// How it ended.
        outcome: Outcome,
    },
    /// The kill limiter engaged.
    Limited {
        /// The limit that was reached, workers a minute.
        max_reaps: u32,
    },
    /// A signal was sent.
    Signalled {
        /// To whom.
        worker: WorkerId,
        /// Which.
        signal: u8,
        /// When.
        at: Nanos,
    },
    /// A reap failed in a way it should not.
    Failed {
        /// Whose.
        worker: WorkerId,
        /// How.
        error: E,
    },
}
