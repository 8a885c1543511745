//! What was decided about a worker with a look at the others of its job: [`Cascade`], and how it ended
//! for a suspect: [`SuspectEnd`]. Both as facts, as one sentence, and as a line in the log.

use hangwatch_core::watchdog::cascade::Scene;
use hangwatch_core::watchdog::reap::{Course, Excluded, Outcome, Usual};

use super::events::{ExpiryOutcome, TimerFacts, WorkerFacts, hold_name};
use super::worker::LaneFacts;

/// What was decided about an overdue worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Cascade {
    /// The overdue worker's timer, in whose scope, or inside it, the others were looked at.
    pub timer: TimerFacts,
    /// The scope in which they were looked at.
    pub scope: String,
    /// What was seen there.
    pub scene: Scene,
    /// The one who is not there, if the kernel vouches for it.
    pub suspect: Option<Suspect>,
    /// What was decided.
    pub course: Course,
}

/// A worker that holds the others up.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Its process.
    pub worker: WorkerFacts,
    /// What the owner of a lane of its said about itself.
    pub owner: LaneFacts,
}

/// A suspect's reap, at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct SuspectEnd {
    /// Who.
    pub suspect: Suspect,
    /// Where the others waited.
    pub scope: String,
    /// Its own timer that was condemned for it, where it had one armed.
    pub timer: Option<TimerFacts>,
    /// The last signal sent, 0 for none.
    pub signal: u8,
    /// How it ended.
    pub outcome: Outcome,
    /// Of an unkillable one: the kernel function it sleeps in, where the kernel tells.
    pub wait_channel: Option<String>,
    /// Its incident's name, where evidence was captured.
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
    /// The decision's name: `suspect_first`, `held_back`, `suspect_told` or `as_usual`.
    pub fn name(&self) -> &'static str {
        match self.course {
            Course::SuspectFirst { .. } => "suspect_first",
            Course::HeldBack { .. } => "held_back",
            Course::Told => "suspect_told",
            Course::Usual(_) => "as_usual",
        }
    }

    /// What was decided and why, in one sentence.
    pub fn sentence(&self) -> String {
        let Scene { inside, overdue, .. } = self.scene;
        let seen = format!("{inside} workers of the job are in {:?}", self.scope);
        let suspect = self.suspect.as_ref().map(Suspect::name);
        let suspect = suspect.as_deref().unwrap_or("the one they waited for");
        match self.course {
            Course::SuspectFirst { .. } => format!(
                "{seen} and all are overdue, only {suspect} is not there: it is reaped first, this \
                 one is held back"
            ),
            Course::HeldBack { .. } if self.suspect.is_none() => {
                format!("who is not in {:?} is removed first: this one is held back", self.scope)
            }
            Course::HeldBack { .. } => format!(
                "{seen} and only {suspect} is not; {overdue} of them overdue: this one is held back"
            ),
            Course::Told => format!("{seen} and only {suspect} is not: it may be what hangs"),
            Course::Usual(usual) => format!("reaped as usual: {}", self.usual(usual, suspect)),
        }
    }

    /// Why the suspect is reaped, in one sentence.
    pub(super) fn reason_for_suspect(&self) -> String {
        format!(
            "all {} other workers of its job ran out of time in {:?}, and it was not there",
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
                "the one worker of its job that is not in {scope:?} cannot be proved by the kernel"
            ),
            Usual::HeldLongEnough => "it has been held back for the time of the cascade".to_owned(),
            Usual::Excluded(spared) => {
                let why = match spared {
                    Excluded::OwnProcess => "is the watchdog's own process",
                    Excluded::ReportsOnly => "asks for reports only",
                    Excluded::HasLeft => "was in it with the others and has left it",
                    Excluded::AtWork => "goes on recording, and so is at work",
                    Excluded::Held(hold) => {
                        return format!(
                            "only {suspect} is not in {scope:?}, but it is held up ({})",
                            hold_name(hold)
                        );
                    }
                    Excluded::Limited => "may not be reaped while the brake holds",
                };
                format!("only {suspect} is not in {scope:?}, but it {why}")
            }
        }
    }

    /// Whether it is in the log of who asks for no more than usual.
    pub(super) fn is_told(&self) -> bool {
        !matches!(self.course, Course::Usual(Usual::Alone))
    }

    /// Writes it to the log: who hangs by itself is nothing to tell but to those who ask for more.
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
    /// What was done and why, in one sentence.
    pub fn sentence(&self) -> String {
        let timer = match &self.timer {
            Some(timer) => format!("a timer of its in {:?} was condemned for it", timer.scope),
            None => "it had no timer armed".to_owned(),
        };
        format!(
            "all other workers of its job ran out of time in {:?} and it was not there; {timer}",
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
    fn a_decision_is_told_in_a_sentence() {
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
             overdue: this one is held back",
        );
        check(
            Course::Usual(Usual::Excluded(Excluded::AtWork)),
            "as_usual",
            "reaped as usual: only rank 2 (pid 77) is not in \"barrier\", but it goes on recording, \
             and so is at work",
        );
    }
}
