//! The events of a server: [`ServerEvent`]. [`emit`] writes one to the log.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::wire::lane::TimerKind;

use super::cascade::{Cascade, SuspectEnd};
use super::control::Ended;
use super::segment_file_check::Finding;
use super::worker::{Command, LaneFacts};
use hangwatch_incident::schema::Incident;
use hangwatch_process::descendants::Removed;
use hangwatch_text::{plain, plain_words};

pub use self::log::emit;

pub(super) mod limits;
mod log;

/// An event, complete in itself: it can be kept, sent or printed at any time.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerEvent {
    /// The segment.
    pub segment: &'static str,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum What {
    /// The server waits until another watchdog ends.
    Standby,
    /// The server serves the segment from now on.
    Serving {
        /// The lanes that are already in use, from an earlier watchdog.
        adopted_lanes: u32,
    },
    /// The server has ended.
    Ended(Ended),
    /// A worker was verified and admitted.
    Admitted(WorkerFacts),
    /// A worker has died, or runs another program.
    Left {
        /// The worker.
        worker: WorkerFacts,
        /// How it left.
        how: Leaving,
    },
    /// A deadline passed; the outcome is known.
    Expired(Box<Expiry>),
    /// All evidence of an expired worker is in. The outcome of its reap may still be unknown.
    Captured(Arc<Incident>),
    /// An incident is complete, with the outcome of the reap.
    Closed {
        /// The incident.
        incident: Arc<Incident>,
        /// Its directory, if it is on disk.
        dir: Option<PathBuf>,
    },
    /// An incident, or its newest state, could not be written.
    IncidentLost {
        /// The incident's id.
        id: String,
        /// The cause.
        error: String,
    },
    /// A timer has used the part of its timeout at which a warning was requested.
    Warning(Box<TimerFacts>),
    /// In shadow mode: a timer with a longer timeout of its own has passed the deadline of its scope in the
    /// deadlines file, and would have been killed.
    Overrun(Box<TimerFacts>),
    /// In shadow mode: a timer that would have been killed has ended.
    EndedLate {
        /// The timer.
        timer: Box<TimerFacts>,
        /// How late it was, ns, rounded up to the interval between two ticks.
        late_ns: u64,
    },
    /// An overdue worker is not signalled while something keeps it from running.
    Held {
        /// Its first overdue timer.
        timer: Box<TimerFacts>,
        /// What keeps it from running.
        hold: Hold,
    },
    /// A decision about an overdue worker, based on the other workers of its job.
    Cascade(Box<Cascade>),
    /// The reap of a suspect ended.
    Suspect(Box<SuspectEnd>),
    /// A signal was sent.
    Signalled {
        /// The process.
        worker: WorkerFacts,
        /// The signal.
        signal: u8,
    },
    /// A worker's error file was written before its signal, so that `torchrun` names the worker that hung; or
    /// it could not be written.
    ErrorFile {
        /// The worker.
        worker: WorkerFacts,
        /// The path of the file.
        path: PathBuf,
        /// Why it was not written; `None` if it was.
        error: Option<String>,
    },
    /// The processes below a worker were killed with it.
    DescendantsKilled {
        /// The worker.
        worker: WorkerFacts,
        /// What happened to them.
        removed: Removed,
    },
    /// The processes that are to be killed with a worker cannot be listed. The listing is retried; until it
    /// succeeds, neither they nor the worker are killed.
    DescendantsUnlisted {
        /// The pid of the worker.
        pid: u32,
        /// The cause.
        error: String,
    },
    /// A worker and its descendants, which the previous watchdog had stopped in order to kill them, run again,
    /// because this watchdog does not kill them.
    Resumed {
        /// The worker.
        worker: WorkerFacts,
        /// How many processes were stopped.
        processes: usize,
    },
    /// A reap failed unexpectedly; the worker counts as reaped.
    ReapFailed {
        /// The worker.
        worker: WorkerFacts,
        /// The cause.
        error: String,
    },
    /// The kill limiter has tripped: nothing is signalled until it is released.
    Limited {
        /// The limit, in kills per minute.
        max_reaps: u32,
    },
    /// The kill limiter was released.
    LimiterReleased,
    /// A lane has invalid values. Its deadlines are not enforced until its owner is dead.
    Quarantined {
        /// The lane.
        lane: u32,
        /// What its owner wrote about itself.
        facts: LaneFacts,
    },
    /// The watchdog was late. Timers that were armed at that time are extended by the delay.
    Stalled {
        /// The delay, ns.
        length_ns: u64,
    },
    /// A lane's owner could not be verified.
    AdmissionFailed {
        /// The cause.
        error: String,
    },
    /// The kernel refused a protection.
    Unprotected {
        /// What was requested, and why it was refused.
        error: String,
    },
    /// A scope name did not fit into the segment; reported once.
    ScopesFull {
        /// The number of scopes the segment can hold.
        scopes: u32,
    },
    /// The server ended without one of its threads, which hangs in a system call or a callback.
    LeftBehind {
        /// The thread.
        who: &'static str,
    },
    /// The segment's file was truncated, removed or replaced.
    File(Finding),
    /// A thread of the watchdog panicked.
    Panicked {
        /// The thread, the place and the message.
        message: String,
    },
    /// Events were lost because the log was too slow.
    Lost {
        /// How many.
        events: u64,
    },
    /// Log lines were dropped because too many were of one kind. Their events were not dropped.
    LeftOut {
        /// The kind of event, as `event` in the log.
        kind: &'static str,
        /// How many lines.
        lines: u64,
        /// The lane, if all lines were about one.
        lane: Option<u32>,
        /// The process, if all lines were about one.
        pid: Option<u32>,
    },
}

/// How a worker left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// The process died.
    Died,
    /// The process runs another program.
    Execd,
}

/// A process that the kernel verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its pid in the watchdog's PID namespace.
    pub pid: u32,
    /// Its name and redacted arguments; empty if they could not be read.
    pub command: Command,
}

/// A timer and its owner.
#[derive(Clone, Debug, PartialEq)]
pub struct TimerFacts {
    /// Its lane.
    pub lane: u32,
    /// Its index in the lane.
    pub timer: u16,
    /// The owner; `None` if it is not verified.
    pub worker: Option<WorkerFacts>,
    /// What the lane's owner wrote about itself.
    pub owner: LaneFacts,
    /// The scope's name.
    pub scope: String,
    /// Which handle it has.
    pub kind: TimerKind,
    /// When it was acquired or last kicked, ns.
    pub acquired_at_ns: u64,
    /// Its deadline, ns, extended by every stall.
    pub deadline_ns: u64,
}

impl TimerFacts {
    /// Returns its timeout, ns.
    pub fn allowance_ns(&self) -> u64 {
        self.deadline_ns.saturating_sub(self.acquired_at_ns)
    }
}

/// An expiry and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Expiry {
    /// The timer.
    pub timer: TimerFacts,
    /// The last signal sent; 0 if there was none.
    pub signal: u8,
    /// Time from the deadline to the first signal, or to the report, ns. It is taken when the system call
    /// returns. Without real-time priority this may be a few hundred microseconds after the death, because the
    /// kernel may run the killed process first.
    pub late_ns: u64,
    /// How it ended.
    pub outcome: ExpiryOutcome,
    /// For an unkillable worker, the kernel function it sleeps in, if known.
    pub wait_channel: Option<String>,
    /// The id of its incident, if evidence was captured.
    pub incident: Option<String>,
}

/// How an expiry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryOutcome {
    /// The outcome of the reap.
    Reap(hangwatch_core::watchdog::reap::Outcome),
    /// Only reported: the kernel does not prove which process owns the lane.
    Unattestable,
}

impl ExpiryOutcome {
    /// Whether it is only a report: nothing was or will be signalled for it.
    pub fn is_report(self) -> bool {
        match self {
            ExpiryOutcome::Reap(outcome) => outcome.is_report(),
            ExpiryOutcome::Unattestable => true,
        }
    }

    /// Returns its name in the log.
    pub fn name(self) -> &'static str {
        use hangwatch_core::watchdog::reap::Outcome;
        match self {
            ExpiryOutcome::Reap(Outcome::Reaped) => "reaped",
            ExpiryOutcome::Reap(Outcome::Exited) => "exited",
            ExpiryOutcome::Reap(Outcome::Reported) => "reported",
            ExpiryOutcome::Reap(Outcome::Limited) => "braked",
            ExpiryOutcome::Reap(Outcome::Unkillable) => "unkillable",
            ExpiryOutcome::Reap(Outcome::Failed) => "failed",
            ExpiryOutcome::Unattestable => "unattestable",
        }
    }
}

impl fmt::Display for Command {
    /// Writes the arguments, or the name if there are none; safe to print and bounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.arguments.is_empty() {
            plain(&self.name).fmt(f)
        } else {
            plain_words(&self.arguments).fmt(f)
        }
    }
}

/// Returns the name of what keeps a worker from running.
pub fn hold_name(hold: Hold) -> &'static str {
    match hold {
        Hold::Traced => "traced",
        Hold::Frozen => "frozen",
        Hold::Stopped => "stopped",
        Hold::OtherUser => "other_user",
    }
}
