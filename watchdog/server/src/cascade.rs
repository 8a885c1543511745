//! The decisions of `--cascade`: [`Cascade`] for an overdue worker, [`SuspectEnd`] for a killed suspect.
//!
//! Each can be read as fields, as a sentence, and is written as one log line.

use hangwatch_core::watchdog::cascade::Scene;
use hangwatch_core::watchdog::reap::{Course, Excluded, Outcome, Usual};

use super::events::{ExpiryOutcome, TimerFacts, WorkerFacts, hold_name};
use super::worker::LaneFacts;

/// A decision about an overdue worker, based on where the other workers of its job wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Cascade {
    /// The timer of the overdue worker. The others were checked in its scope or in one inside it.
    pub timer: TimerFacts,
    /// The scope in which the others were checked.
    pub scope: String,
    /// How many workers are inside the scope, overdue, and outside it.
    pub scene: Scene,
    /// The worker that is not in the scope, if the kernel verifies it.
    pub suspect: Option<Suspect>,
    /// The decision.
    pub course: Course,
}

/// A worker that the other workers of its job wait for.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Its process.
    pub worker: WorkerFacts,
    /// What the owner of one of its lanes wrote about itself.
    pub owner: LaneFacts,
}

/// The end of a suspect's reap.
#[derive(Clone, Debug, PartialEq)]
pub struct SuspectEnd {
    /// The suspect.
    pub suspect: Suspect,
    /// The scope in which the others waited.
    pub scope: String,
    /// Its timer that was condemned, if one was armed.
    pub timer: Option<TimerFacts>,
    /// The last signal sent; 0 if there was none.
    pub signal: u8,
    /// The outcome.
    pub outcome: Outcome,
    /// For an unkillable process, the kernel function it sleeps in, if known.
    pub wait_channel: Option<String>,
    /// The id of its incident, if evidence was captured.
    pub incident: Option<String>,
}

impl Suspect {
    fn name(&self) -> String {
        match self.owner.rank {
            Some(rank) => format!("rank {rank} (pid {})", self.worker.pid),
            None => format!("pid {}", self.worker.pid),
        }
    }
}

impl Cascade {
    /// Returns the decision's name: `suspect_first`, `held_back`, `suspect_told` or `as_usual`.
    pub fn name(&self) -> &'static str {
        match self.course {
            Course::SuspectFirst { .. } => "suspect_first",
            Course::HeldBack { .. } => "held_back",
            Course::Told => "suspect_told",
            Course::Usual(_) => "as_usual",
        }
    }

    /// Explains the decision in one sentence.
    pub fn sentence(&self) -> String {
        let Scene { inside, overdue, .. } = self.scene;
        let seen = format!("{inside} workers of the job are in {:?}", self.scope);
        let suspect = self.suspect.as_ref().map(Suspect::name);
        let suspect = suspect.as_deref().unwrap_or("the worker they waited for");
        match self.course {
            Course::SuspectFirst { .. } => format!(
                "{seen} and all are overdue, only {suspect} is outside: it is killed first, this worker is \
                 held back"
            ),
            Course::HeldBack { .. } if self.suspect.is_none() => {
                format!(
                    "the worker outside {:?} is killed first: this worker is held back",
                    self.scope
                )
            }
            Course::HeldBack { .. } => format!(
                "{seen} and only {suspect} is not; {overdue} of them overdue: this worker is held back"
            ),
            Course::Told => {
                format!("{seen} and only {suspect} is not: it may be the one that hangs")
            }
            Course::Usual(usual) => format!("killed as usual: {}", self.usual(usual, suspect)),
        }
    }

    /// Explains why the suspect is killed, in one sentence.
    pub(super) fn reason_for_suspect(&self) -> String {
        format!(
            "all {} other workers of its job were overdue in {:?}, and it was not there",
            self.scene.inside, self.scope
        )
    }

    fn usual(&self, usual: Usual, suspect: &str) -> String {
        let (scope, outside) = (&self.scope, self.scene.outside);
        match usual {
            Usual::Alone => format!("no other worker of its job is in {scope:?}"),
            Usual::NobodyOutside => format!("every worker of its job is in {scope:?}"),
            Usual::SeveralOutside => {
                format!("{outside} workers of its job are not in {scope:?}, not one")
            }
            Usual::Unproved => format!(
                "the kernel does not verify the one worker of its job that is not in {scope:?}"
            ),
            Usual::HeldLongEnough => {
                "it has been held back for the time that --cascade allows".to_owned()
            }
            Usual::Excluded(reason) => {
                let why = match reason {
                    Excluded::OwnProcess => "is the watchdog's own process",
                    Excluded::ReportsOnly => "is only reported",
                    Excluded::HasLeft => "was in it with the others and has left it",
                    Excluded::AtWork => "is still recording, so it is working",
                    Excluded::Held(hold) => {
                        return format!(
                            "only {suspect} is not in {scope:?}, but it cannot run ({})",
                            hold_name(hold)
                        );
                    }
                    Excluded::Limited => {
                        "is not killed: the kill limiter (--max-reaps) has tripped"
                    }
                };
                format!("only {suspect} is not in {scope:?}, but it {why}")
            }
        }
    }

    /// Whether the log contains it at the default level.
    pub(super) fn is_told(&self) -> bool {
        !matches!(self.course, Course::Usual(Usual::Alone))
    }

    /// Writes it to the log. A worker that hangs alone is logged at debug level only.
    pub(super) fn emit(&self, segment: &str) {
        let timer = &self.timer;
        let suspect_pid = self.suspect.as_ref().map(|suspect| suspect.worker.pid);
        let suspect_rank = self.suspect.as_ref().and_then(|suspect| suspect.owner.rank);
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    segment,
                    event = "cascade",
                    lane = timer.lane,
                    timer = timer.timer,
                    pid = timer.worker.as_ref().map(|worker| worker.pid),
                    job = (!timer.owner.job.is_empty()).then_some(timer.owner.job.as_str()),
                    rank = timer.owner.rank,
                    scope = self.scope,
                    deadline_ns = timer.deadline_ns,
                    decision = self.name(),
                    suspect_pid,
                    suspect_rank,
                    inside = self.scene.inside,
                    overdue = self.scene.overdue,
                    outside = self.scene.outside,
                    "{}",
                    self.sentence()
                )
            };
        }
        match self.course {
            Course::Usual(Usual::Alone) => line!(debug),
            Course::Usual(_) => line!(info),
            _ => line!(warn),
        }
    }
}

impl SuspectEnd {
    /// Explains what was done and why, in one sentence.
    pub fn sentence(&self) -> String {
        let timer = match &self.timer {
            Some(timer) => format!("its timer in {:?} was condemned for it", timer.scope),
            None => "it had no timer armed".to_owned(),
        };
        format!(
            "all other workers of its job were overdue in {:?} and it was not there; {timer}",
            self.scope
        )
    }

    pub(super) fn emit(&self, segment: &str) {
        let Suspect { worker: WorkerFacts { pid, command }, owner } = &self.suspect;
        let command = command.to_string();
        tracing::warn!(
            segment,
            event = "suspect",
            pid,
            command,
            thread = owner.thread,
            job = (!owner.job.is_empty()).then_some(owner.job.as_str()),
            rank = owner.rank,
            scope = self.scope,
            signal = self.signal,
            outcome = ExpiryOutcome::Reap(self.outcome).name(),
            wait_channel = self.wait_channel,
            incident = self.incident,
            "{}",
            self.sentence()
        );
    }
}

#[cfg(test)]
mod tests {
    use hangwatch_core::wire::lane::TimerKind;
    use hangwatch_core::wire::scope::ScopeId;
    use hangwatch_core::wire::time::Nanos;

    use super::*;

    #[test]
    fn decision_reads_as_a_sentence() {
        let timer = TimerFacts {
            lane: 0,
            timer: 0,
            worker: None,
            owner: LaneFacts::default(),
            scope: "step".to_owned(),
            kind: TimerKind::Guard,
            acquired_at_ns: 0,
            deadline_ns: 1,
        };
        let scene =
            Scene { scope: ScopeId(1), inside: 3, overdue: 2, outside: 1, entered_at: Nanos(0) };
        let owner = LaneFacts { rank: Some(2), ..LaneFacts::default() };
        let worker = WorkerFacts { pid: 77, ..WorkerFacts::default() };
        let suspect = Some(Suspect { worker, owner });
        let check = |course, name: &str, sentence: &str| {
            let (timer, suspect) = (timer.clone(), suspect.clone());
            let told = Cascade { timer, scope: "barrier".into(), scene, suspect, course };
            assert_eq!((told.name(), told.sentence().as_str()), (name, sentence));
        };
        let until = Nanos(5);
        check(
            Course::HeldBack { until },
            "held_back",
            "3 workers of the job are in \"barrier\" and only rank 2 (pid 77) is not; 2 of them \
              overdue: this worker is held back",
        );
        check(
            Course::Usual(Usual::Excluded(Excluded::AtWork)),
            "as_usual",
            "killed as usual: only rank 2 (pid 77) is not in \"barrier\", but it is still recording, \
             so it is working",
        );
    }
}
