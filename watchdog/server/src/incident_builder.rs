//! Builds an incident: from the first snapshot to the outcome of the reap.

use std::sync::Arc;

use hangwatch::Segment;
use hangwatch_core::watchdog::expiry::ExpiredTimer;
use hangwatch_core::watchdog::reap::Outcome;
use hangwatch_core::wire::signal;
use hangwatch_core::wire::time::Nanos;

use super::case::{Case, CaseKind, Role};
use super::event_log;
use super::evidence_collector::{Snapshots, described};
use super::incident_writer::Priority;
use hangwatch_evidence::options::{EvidenceOptions, Level};
use hangwatch_evidence::picture::Seen;
use hangwatch_evidence::piece::Gathered;
use hangwatch_evidence::waits::conclude;
use hangwatch_incident::moment::Clocks;
use hangwatch_incident::schema::{
    Decision, Ending, Evidence, Incident, Lane, Missing, Timer, VERSION, Worker,
};
use hangwatch_incident::story;
use hangwatch_text::brief_ns;

/// An incident under construction.
pub(super) struct IncidentBuilder {
    case: Arc<Case>,
    incident: Arc<Incident>,
    is_captured: bool,
    is_ended: bool,
}

impl IncidentBuilder {
    /// Starts an incident with a snapshot of the segment.
    pub(super) fn open(
        case: &Arc<Case>,
        segment: Segment,
        snapshots: &mut Snapshots,
        options: &EvidenceOptions,
    ) -> IncidentBuilder {
        let clocks = case.clocks();
        let timers: Vec<Timer> =
            case.timers.iter().map(|timer| timer_of(segment, timer, case, clocks)).collect();
        let job = case.facts.as_ref().map(|facts| facts.job.clone()).unwrap_or_default();
        let Seen { own, others } = snapshots.seen_by(case);
        let suspect = snapshots.suspect(&job, &timers);
        let is_suspect = suspect.as_ref().is_some_and(|it| it.pid == Some(case.worker.pid()));
        let listed = snapshots.listed(case.id(), others, is_suspect);
        let incident = Incident {
            version: VERSION,
            id: case.id(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            segment: segment.name().to_owned(),
            at: clocks.moment(case.at),
            worker: worker_of(case, options),
            decisions: decisions(segment, case, &timers, options),
            ending: None,
            evidence: evidence_of(own, &timers, options),
            others: listed.others,
            others_left_out: listed.left_out,
            others_in: listed.all_in,
            suspect,
            timers,
            ..Incident::default()
        };
        let incident = Arc::new(incident);
        IncidentBuilder { case: Arc::clone(case), incident, is_captured: false, is_ended: false }
    }

    /// Whether its worker is the suspect.
    pub(super) fn is_of_suspect(&self) -> bool {
        let suspect = self.incident.suspect.as_ref();
        suspect.is_some_and(|suspect| suspect.pid == Some(self.case.worker.pid()))
    }

    /// Its priority for the incident writer.
    pub(super) fn priority(&self) -> Priority {
        let names = self.incident.suspect.is_some() && self.incident.others_in.is_none();
        if self.is_of_suspect() || names { Priority::High } else { Priority::Low }
    }

    /// Returns the incident as it is now.
    pub(super) fn incident(&self) -> Arc<Incident> {
        Arc::clone(&self.incident)
    }

    /// Whether the incident is complete.
    pub(super) fn is_closed(&self) -> bool {
        self.is_captured && self.is_ended
    }

    pub(super) fn is_captured(&self) -> bool {
        self.is_captured
    }

    /// Records that a piece of evidence is missing, and why.
    pub(super) fn add_missing(&mut self, what: &str, why: &str) {
        let missing = Missing { what: what.to_owned(), why: why.to_owned() };
        Arc::make_mut(&mut self.incident).evidence.missing.push(missing);
    }

    /// Adds what a helper captured.
    pub(super) fn capture(&mut self, gathered: Gathered, now: Nanos) {
        self.is_captured = true;
        let Incident { evidence, worker, waits, .. } = Arc::make_mut(&mut self.incident);
        if let Some(named) = gathered.worker {
            worker.name = named.name;
            worker.command = named.command;
        }
        let Evidence { level, budget_ns, lanes, missing, .. } = std::mem::take(evidence);
        *evidence = Evidence {
            level,
            budget_ns,
            lanes,
            taken_ns: now.since(self.case.at),
            missing: [missing, gathered.evidence.missing].concat(),
            ..gathered.evidence
        };
        *waits = gathered.waits.map(|graph| conclude(graph, [&*evidence]));
    }

    pub(super) fn signalled(&mut self, at: Nanos, signal: u8) {
        let overdue = self.case.timers.first().filter(|timer| timer.deadline <= at);
        let late = overdue.map(|timer| brief_ns(at.since(timer.deadline)));
        let late = late.map_or_else(String::new, |late| format!(", {late} after the deadline"));
        let name = signal::spelled(signal);
        self.decide(at, story::SIGNALLED, format!("{name} was sent{late}"));
    }

    /// Records the outcome. A later outcome replaces it only if it differs.
    pub(super) fn end(&mut self, ending: Ending, outcome: Outcome) {
        let incident = Arc::make_mut(&mut self.incident);
        // If several timers expired, the first has the earliest deadline.
        if incident.ending.as_ref().is_none_or(|before| before.outcome != ending.outcome) {
            incident.ending = Some(ending);
        }
        self.is_ended = outcome != Outcome::Unkillable;
    }

    fn decide(&mut self, at: Nanos, what: &str, why: String) {
        let at = self.case.clocks().moment(at);
        let decision = Decision { at, what: what.to_owned(), why };
        Arc::make_mut(&mut self.incident).decisions.push(decision);
    }
}

fn timer_of(segment: Segment, timer: &ExpiredTimer, case: &Case, clocks: Clocks) -> Timer {
    let ExpiredTimer { lane, timer: index, detail, deadline, .. } = *timer;
    let scope = segment.words().scope_name(lane, index, detail.scope);
    let state = match case.kind {
        CaseKind::Condemned => "condemned",
        CaseKind::Reported => "reported",
    };
    Timer {
        lane,
        timer: index,
        scope: scope.map_or_else(|| "(unknown)".to_owned(), |name| name.as_str().to_owned()),
        kind: detail.kind.name().to_owned(),
        state: state.to_owned(),
        acquired: clocks.moment(detail.acquired_at),
        deadline: Some(clocks.moment(deadline)),
        age_ns: case.at.since(detail.acquired_at),
        allowance_ns: deadline.since(detail.acquired_at),
        task: segment.words().lane(lane).task(index.into()),
    }
}

fn worker_of(case: &Case, options: &EvidenceOptions) -> Worker {
    let described = described(&case.worker);
    let facts = case.facts.as_deref().cloned().unwrap_or_default();
    Worker {
        pid: Some(described.pid),
        name: described.name,
        command: options.redactor.arguments(&described.arguments),
        job: facts.job,
        rank: facts.rank,
        world_size: facts.world_size,
        local_rank: facts.local_rank,
    }
}

/// Lists the cascade decisions about a worker, and the decision that opened its case.
fn decisions(
    segment: Segment,
    case: &Case,
    timers: &[Timer],
    options: &EvidenceOptions,
) -> Vec<Decision> {
    let clocks = case.clocks();
    let decisions = case.decisions.iter().map(|decisions| {
        let cascade = event_log::cascade(segment, &options.redactor, &decisions.note);
        let (what, why) = match decisions.role {
            Role::Overdue => (cascade.name(), cascade.sentence()),
            Role::Suspect => ("reaped_first", cascade.reason_for_suspect()),
        };
        Decision { at: clocks.moment(decisions.at), what: what.to_owned(), why }
    });
    decisions.chain([opening(case, timers, clocks)]).collect()
}

fn opening(case: &Case, timers: &[Timer], clocks: Clocks) -> Decision {
    let scope = timers.first().map(|timer| timer.scope.as_str()).unwrap_or_default();
    let is_overdue = case.timers.first().is_some_and(|timer| timer.deadline <= case.at);
    let (what, why) = match case.kind {
        CaseKind::Condemned if timers.is_empty() => {
            ("condemned", "the other workers wait for it, and it has no timer armed".to_owned())
        }
        CaseKind::Condemned if !is_overdue => (
            "condemned",
            format!("the other workers wait for it; the deadline of its {scope:?} had not passed"),
        ),
        CaseKind::Condemned => ("condemned", format!("the deadline of {scope:?} passed")),
        CaseKind::Reported => (
            "reported",
            format!("the deadline of {scope:?} passed; this is only reported, without a signal"),
        ),
    };
    Decision { at: clocks.moment(case.at), what: what.to_owned(), why }
}

/// Returns the evidence from the segment: the worker's lanes, that of the first timer first.
fn evidence_of(mut lanes: Vec<Lane>, timers: &[Timer], options: &EvidenceOptions) -> Evidence {
    let first = timers.first().map(|timer| timer.lane);
    lanes.sort_by_key(|lane| Some(lane.lane) != first);
    let budget_ns = match options.level {
        Level::Full => u64::try_from(options.budget.as_nanos()).unwrap_or(u64::MAX),
        Level::Off | Level::Scopes => 0,
    };
    Evidence { level: options.level.name().to_owned(), budget_ns, lanes, ..Evidence::default() }
}
