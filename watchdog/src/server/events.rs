//! What a server has to tell: [`ServerEvent`], and its lines in the log.
//!
//! [`emit`] writes an event through `tracing`, one line each, with these fields and no others; times
//! end in their unit, points in time are `CLOCK_MONOTONIC`:
//!
//! | field | of | meaning |
//! | --- | --- | --- |
//! | `segment` | all | the segment's name |
//! | `event` | all | what happened: `expired`, `warning`, `overrun`, `ended_late`, `held`, `signalled`, ... |
//! | `lane`, `timer` | timers | which timer |
//! | `pid`, `command` | workers | the process as the watchdog sees it; absent where unproved |
//! | `thread`, `tid`, `job`, `rank`, `world_size`, `host` | timers | what the worker said of itself at its attach |
//! | `scope`, `kind` | timers | what was timed; `guard`, `keyed` or `heartbeat` |
//! | `deadline_ns`, `allowance_ms` | timers | when it was due, stalls credited; how long it had |
//! | `late_ms` | `expired` | from the deadline to the signal, or to the report |
//! | `signal` | `expired`, `signalled` | the last signal sent, 0 for none |
//! | `decision` | `cascade` | `suspect_first`, `held_back`, `suspect_told` or `as_usual`; the message says why |
//! | `suspect_pid`, `suspect_rank` | `cascade` | the one who is not where the others wait |
//! | `inside`, `overdue`, `outside` | `cascade` | how many workers of the job are in the scope, have run out of time there, are not there |
//! | `outcome` | `expired`, `suspect` | `reaped`, `exited`, `reported`, `braked`, `unkillable`, `failed`, `unattestable` |
//! | `processes` | `kin` | how many processes were removed with a worker |
//! | `spared`, `survivors`, `fallback` | `kin` | other workers among them, by pid; those that live; why `--reap` did not reach as far as it was to |
//! | `path`, `error` | `error_file` | the worker's error file; why it could not be written |
//! | `hold` | `held` | `traced`, `frozen`, `stopped`, or `other_user`: not the one who attached |
//! | `wait_channel` | `expired` | of an unkillable worker: the kernel function it sleeps in |
//! | `incident` | `expired`, `suspect`, `incident_lost` | the incident's name: `hangwatch show` tells it |
//! | `error` | `incident_lost`, ... | why |

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hangwatch_core::lane::TimerKind;
use hangwatch_core::reap::Hold;

use super::cascade::{Cascade, SuspectEnd};
use super::control::Ended;
use super::facts::{Command, LaneFacts};
use super::vigil::Finding;
use crate::incident::schema::Incident;
use crate::kin::Removed;
use crate::state::kind_name;

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
    Kin {
        /// Whose.
        worker: WorkerFacts,
        /// What became of them.
        removed: Removed,
    },
    /// A reap failed in a way it should not; the worker counts as reaped.
    ReapFailed {
        /// Whose.
        worker: WorkerFacts,
        /// How.
        error: String,
    },
    /// The brake holds: nobody is signalled until it is released.
    Braked {
        /// The limit that was reached, workers a minute.
        max_reaps: u32,
    },
    /// The brake was released.
    BrakeReleased,
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
    /// What it calls itself; empty where that could not be read.
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
    Reap(hangwatch_core::reap::Outcome),
    /// Reported only: whose it is cannot be proved.
    Unattestable,
}

impl ExpiryOutcome {
    /// Its name in the log.
    pub fn name(self) -> &'static str {
        use hangwatch_core::reap::Outcome;
        match self {
            ExpiryOutcome::Reap(Outcome::Reaped) => "reaped",
            ExpiryOutcome::Reap(Outcome::Exited) => "exited",
            ExpiryOutcome::Reap(Outcome::Reported) => "reported",
            ExpiryOutcome::Reap(Outcome::Braked) => "braked",
            ExpiryOutcome::Reap(Outcome::Unkillable) => "unkillable",
            ExpiryOutcome::Reap(Outcome::Failed) => "failed",
            ExpiryOutcome::Unattestable => "unattestable",
        }
    }
}

impl fmt::Display for Command {
    /// The arguments, or the name where there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.arguments.is_empty() {
            f.write_str(&self.name)
        } else {
            f.write_str(&self.arguments.join(" "))
        }
    }
}

/// The name of what holds a worker up.
pub(crate) fn hold_name(hold: Hold) -> &'static str {
    match hold {
        Hold::Traced => "traced",
        Hold::Frozen => "frozen",
        Hold::Stopped => "stopped",
        Hold::OtherUser => "other_user",
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds with a fraction are for reading")]
fn ms(ns: u64) -> f64 {
    (ns as f64 / 1000.0).round() / 1000.0
}

/// Emits one line with the fields of a timer, and those given.
macro_rules! timer_line {
    ($level:ident, $event:literal, $segment:expr, $timer:expr, $($field:tt)*) => {{
        let timer: &TimerFacts = $timer;
        let command = timer.worker.as_ref().map(|worker| worker.command.to_string());
        tracing::$level!(
            segment = $segment,
            event = $event,
            lane = timer.lane,
            timer = timer.timer,
            pid = timer.worker.as_ref().map(|worker| worker.pid),
            command,
            thread = timer.owner.thread,
            tid = timer.owner.tid,
            job = (!timer.owner.job.is_empty()).then_some(timer.owner.job.as_str()),
            rank = timer.owner.rank,
            world_size = timer.owner.world_size,
            host = (!timer.owner.host.is_empty()).then_some(timer.owner.host.as_str()),
            scope = timer.scope,
            kind = kind_name(timer.kind),
            deadline_ns = timer.deadline_ns,
            allowance_ms = ms(timer.allowance_ns()),
            $($field)*
        );
    }};
}

/// Writes an event to the log.
pub fn emit(event: &ServerEvent) {
    let segment = event.segment;
    match &event.what {
        What::Expired(expiry) => emit_expiry(segment, expiry),
        What::Warning(timer) => {
            timer_line!(warn, "warning", segment, timer, "a deadline comes near");
        }
        What::Overrun(timer) => {
            timer_line!(warn, "overrun", segment, timer, "would be reaped by the deadlines file");
        }
        What::EndedLate { timer, late_ns } => {
            let late_ms = ms(*late_ns);
            timer_line!(info, "ended_late", segment, timer, late_ms, "a late acquire has ended");
        }
        What::Held { timer, hold } => {
            let hold = hold_name(*hold);
            timer_line!(warn, "held", segment, timer, hold, "overdue, but held up: not signalled");
        }
        What::Cascade(cascade) => cascade.emit(segment),
        What::Suspect(end) => end.emit(segment),
        What::Signalled { worker, signal } => {
            let WorkerFacts { pid, command } = worker;
            tracing::info!(segment, event = "signalled", pid, %command, signal, "signalled");
        }
        What::ErrorFile { worker: WorkerFacts { pid, command }, path, error } => {
            let path = path.display();
            if let Some(error) = error {
                tracing::warn!(segment, event = "error_file", pid, %command, %path, error, "no error file");
            } else {
                tracing::info!(segment, event = "error_file", pid, %command, %path, "error file written");
            }
        }
        What::Kin { worker, removed } => emit_kin(segment, worker, removed),
        What::ReapFailed { worker, error } => {
            let WorkerFacts { pid, command } = worker;
            tracing::error!(segment, event = "reap_failed", pid, %command, error, "a reap failed");
        }
        What::Admitted(WorkerFacts { pid, command }) => {
            tracing::debug!(segment, event = "admitted", pid, %command, "admitted");
        }
        What::Left { worker: WorkerFacts { pid, command }, how } => {
            let how = if *how == Leaving::Died { "died" } else { "execd" };
            tracing::debug!(segment, event = "left", pid, %command, how, "left");
        }
        What::IncidentLost { id, error } => tracing::error!(
            segment,
            event = "incident_lost",
            incident = id,
            error,
            "an incident could not be kept"
        ),
        other => emit_about_itself(segment, other),
    }
}

fn emit_expiry(segment: &str, expiry: &Expiry) {
    let late_ms = ms(expiry.late_ns);
    let Expiry { timer, signal, outcome, wait_channel, incident, .. } = expiry;
    let (outcome, wait_channel) = (outcome.name(), wait_channel.as_deref());
    let incident = incident.as_deref();
    timer_line!(
        warn,
        "expired",
        segment,
        timer,
        late_ms,
        signal,
        outcome,
        wait_channel,
        incident,
        "expired"
    );
}

fn emit_kin(segment: &str, worker: &WorkerFacts, removed: &Removed) {
    let WorkerFacts { pid, command } = worker;
    let Removed { signalled, spared, survivors, fallback } = removed;
    let spared: Vec<String> = spared.iter().map(ToString::to_string).collect();
    let listed = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
    let (spared, survivors) = (listed(&spared), listed(survivors));
    macro_rules! line {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                segment, event = "kin", pid, %command, processes = signalled, spared, survivors,
                fallback, $text
            )
        };
    }
    if survivors.is_some() {
        line!(error, "not all processes below a worker could be removed with it");
    } else if fallback.is_some() {
        line!(warn, "a worker's descendants were removed with it, and no others");
    } else {
        line!(info, "the processes of a worker were removed with it");
    }
}

fn emit_about_itself(segment: &str, what: &What) {
    match what {
        What::Standby => tracing::info!(segment, event = "standby", "waiting for the segment"),
        What::Serving { adopted_lanes } => {
            tracing::info!(segment, event = "serving", adopted_lanes, "serving");
        }
        What::Ended(why) => {
            let why = format!("{why:?}").to_lowercase();
            tracing::info!(segment, event = "ended", why, "ended");
        }
        What::Braked { max_reaps } => tracing::error!(
            segment,
            event = "braked",
            max_reaps,
            "the brake holds: nobody is signalled until `hangwatch release-brake` releases it; who is \
             overdue still is judged again then"
        ),
        What::BrakeReleased => {
            let text = "the brake is released: who is overdue still is judged again";
            tracing::info!(segment, event = "brake_released", "{text}");
        }
        What::Quarantined { lane, facts } => tracing::error!(
            segment,
            event = "quarantined",
            lane,
            claimed_pid = facts.claimed_pid,
            "a lane lied: its deadlines are not enforced until its owner is dead"
        ),
        What::Stalled { length_ns } => {
            let late_ms = ms(*length_ns);
            let text = "the watchdog was late: deadlines armed then got the time back";
            tracing::warn!(segment, event = "stalled", late_ms, "{text}");
        }
        What::AdmissionFailed { error } => {
            tracing::error!(
                segment,
                event = "admission_failed",
                error,
                "cannot admit every worker"
            );
        }
        What::Unprotected { error } => {
            tracing::info!(segment, event = "unprotected", error, "a protection was refused");
        }
        What::File(finding) => {
            let finding = format!("{finding:?}").to_lowercase();
            tracing::error!(
                segment,
                event = "file",
                finding,
                "the segment's file was tampered with"
            );
        }
        What::Panicked { message } => {
            tracing::error!(
                segment,
                event = "panicked",
                message_text = message,
                "the watchdog panicked"
            );
        }
        What::Lost { events } => {
            tracing::error!(segment, event = "lost", events, "events were lost");
        }
        _ => {}
    }
}
