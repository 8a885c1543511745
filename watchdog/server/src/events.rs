//! What a server has to tell: [`ServerEvent`]. [`emit`] writes its lines in the log.

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

/// Something that happened, complete: it may be kept, sent or printed at any later time.
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
    /// The server waits for another watchdog's end.
    Standby,
    /// It serves from now on.
    Serving {
        /// The lanes that were in use already, an earlier watchdog's.
        adopted_lanes: u32,
    },
    /// It has ended.
    Ended(Ended),
    /// A worker was admitted.
    Admitted(WorkerFacts),
    /// A worker is dead, or has exec'd into another program.
    Left {
        /// Which.
        worker: WorkerFacts,
        /// How.
        how: Leaving,
    },
    /// A deadline passed, and this is what became of it.
    Expired(Box<Expiry>),
    /// All evidence there will be of an expired worker is in; how its reap ended may be unknown yet.
    Captured(Arc<Incident>),
    /// Nothing will be added to an incident: how the reap ended is in it.
    Closed {
        /// It.
        incident: Arc<Incident>,
        /// Its directory, where it is kept.
        dir: Option<PathBuf>,
    },
    /// An incident, or what came of it lately, could not be kept.
    IncidentLost {
        /// Its name.
        id: String,
        /// Why not.
        error: String,
    },
    /// A timer has used the fraction of its allowance that was to be warned of.
    Warning(Box<TimerFacts>),
    /// In a shadow: a timer with a longer time of its own has run beyond its scope's deadline by the
    /// file, and would have been reaped for it.
    Overrun(Box<TimerFacts>),
    /// In a shadow: a timer that would have been reaped has come to its end.
    EndedLate {
        /// Which.
        timer: Box<TimerFacts>,
        /// How late it was, ns: to within the watchdog's interval, never too little.
        late_ns: u64,
    },
    /// An overdue worker is not signalled while this lasts.
    Held {
        /// The first of its overdue timers.
        timer: Box<TimerFacts>,
        /// Why.
        hold: Hold,
    },
    /// What was decided about an overdue worker with a look at the others of its job.
    Cascade(Box<Cascade>),
    /// The reap of a suspect ended.
    Suspect(Box<SuspectEnd>),
    /// A signal was sent.
    Signalled {
        /// To whom.
        worker: WorkerFacts,
        /// Which.
        signal: u8,
    },
    /// The error file that a worker's environment names was written before its signal, so that
    /// `torchrun` names the worker that hung; or it could not be.
    ErrorFile {
        /// Whose.
        worker: WorkerFacts,
        /// Which.
        path: PathBuf,
        /// Why it was not written.
        error: Option<String>,
    },
    /// What became of the processes that were to be removed with a worker.
    DescendantsKilled {
        /// Whose.
        worker: WorkerFacts,
        /// What became of them.
        removed: Removed,
    },
    /// The processes that are to be killed with a worker cannot be listed. It is tried again; until it
    /// works, neither they nor the worker are killed.
    DescendantsUnlisted {
        /// The worker.
        pid: u32,
        /// Why not.
        error: String,
    },
    /// A worker and its descendants, which the watchdog before this one had stopped to kill them, run again:
    /// this one does not kill them.
    Resumed {
        /// The worker.
        worker: WorkerFacts,
        /// How many processes were stopped.
        processes: usize,
    },
    /// A reap failed in a way it should not; the worker counts as reaped.
    ReapFailed {
        /// Whose.
        worker: WorkerFacts,
        /// How.
        error: String,
    },
    /// The brake holds: nobody is signalled until it is released.
    Limited {
        /// The limit that was reached, workers a minute.
        max_reaps: u32,
    },
    /// The brake was released.
    LimiterReleased,
    /// A lane lied, and is left alone until its owner is dead.
    Quarantined {
        /// The lane.
        lane: u32,
        /// What its owner said about itself.
        facts: LaneFacts,
    },
    /// The watchdog was late, and the timers armed then got the time back.
    Stalled {
        /// By how much, ns.
        length_ns: u64,
    },
    /// A lane's owner could not be asked about.
    AdmissionFailed {
        /// Why not.
        error: String,
    },
    /// The kernel refused a protection.
    Unprotected {
        /// What was asked for, and why it was refused.
        error: String,
    },
    /// A scope's name found no room in the segment; said once.
    ScopesFull {
        /// How many scopes it has room for.
        scopes: u32,
    },
    /// The server ends without one of its threads, which something holds for ever.
    LeftBehind {
        /// Which.
        who: &'static str,
    },
    /// Something happened to the segment's file.
    File(Finding),
    /// A thread of the watchdog panicked.
    Panicked {
        /// Which, where and why.
        message: String,
    },
    /// Events were lost, because the log could not keep up.
    Lost {
        /// How many.
        events: u64,
    },
    /// Lines were left out of the log, because there were too many of one kind. Their events were not.
    LeftOut {
        /// The kind of event, as the log calls it.
        kind: &'static str,
        /// How many lines.
        lines: u64,
        /// The lane they were about, where it was one.
        lane: Option<u32>,
        /// The process they were about, where it was one.
        pid: Option<u32>,
    },
}

/// How a worker left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Its process is dead.
    Died,
    /// Its process runs another program now.
    Execd,
}

/// A process that the kernel vouched for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its pid as the watchdog sees it.
    pub pid: u32,
    /// What it calls itself, redacted; empty where that could not be read.
    pub command: Command,
}

/// A timer and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct TimerFacts {
    /// Its lane.
    pub lane: u32,
    /// Its index in the lane.
    pub timer: u16,
    /// Whose; `None` where the kernel has not said.
    pub worker: Option<WorkerFacts>,
    /// What the lane's owner said about itself.
    pub owner: LaneFacts,
    /// The scope's name.
    pub scope: String,
    /// What kind of deadline.
    pub kind: TimerKind,
    /// When it was acquired or last kicked, ns.
    pub acquired_at_ns: u64,
    /// When it was due, with every stall credited, ns.
    pub deadline_ns: u64,
}

impl TimerFacts {
    /// How long it had, ns.
    pub fn allowance_ns(&self) -> u64 {
        self.deadline_ns.saturating_sub(self.acquired_at_ns)
    }
}

/// One expiry and its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Expiry {
    /// The timer.
    pub timer: TimerFacts,
    /// The last signal sent, 0 for none.
    pub signal: u8,
    /// From the deadline to the first signal, or to the report, ns. A signal counts when its system
    /// call has returned. Without real-time priority that may be after the death, a few hundred
    /// microseconds later: the kernel may give the core to the victim first.
    pub late_ns: u64,
    /// How it ended.
    pub outcome: ExpiryOutcome,
    /// Of an unkillable worker: the kernel function it sleeps in, where the kernel tells.
    pub wait_channel: Option<String>,
    /// Its incident's name, where evidence was captured.
    pub incident: Option<String>,
}

/// How an expiry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpiryOutcome {
    /// As the reap says.
    Reap(hangwatch_core::watchdog::reap::Outcome),
    /// Reported only: whose it is cannot be proved.
    Unattestable,
}

impl ExpiryOutcome {
    /// Whether nobody was signalled for it, and nobody will be.
    pub fn is_report(self) -> bool {
        match self {
            ExpiryOutcome::Reap(outcome) => outcome.is_report(),
            ExpiryOutcome::Unattestable => true,
        }
    }

    /// Its name in the log.
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
    /// The arguments, or the name where there are none; clean and bounded.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.arguments.is_empty() {
            plain(&self.name).fmt(f)
        } else {
            plain_words(&self.arguments).fmt(f)
        }
    }
}

/// The name of what holds a worker up.
pub fn hold_name(hold: Hold) -> &'static str {
    match hold {
        Hold::Traced => "traced",
        Hold::Frozen => "frozen",
        Hold::Stopped => "stopped",
        Hold::OtherUser => "other_user",
    }
}
