//! Opens and ends the cases of expiries, from the condemnation to the outcome.

use std::sync::Arc;

use hangwatch::sys::clock;
use hangwatch_core::watchdog::expiry::ExpiredTimer;
use hangwatch_core::watchdog::reap::{Course, Outcome, ProcessControl, Usual};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::time::Nanos;

use super::super::case::{CascadeDecision, Case, CaseKind, Role, evidence_ends};
use super::super::collector_handle::Task;
use super::super::event_log::{CascadeNote, Note};
use super::super::options::OwnProcess;
use super::PidfdControl;
use super::tracked::Tracked;
use hangwatch_evidence::options::Level;

/// Time between two incidents of one worker for expiries that are only reported, ns.
const REPORTS_APART_NS: u64 = 60_000_000_000;
/// Maximum number of cascade decisions kept for a worker's incident.
const MAX_DECISIONS: usize = 8;

impl PidfdControl {
    /// Whether the snapshot of this worker's lanes is still to be taken.
    pub(crate) fn is_awaited(&self, worker: WorkerId) -> bool {
        let case = self.known.get(&worker).and_then(|known| known.case.as_ref());
        case.is_some_and(|case| !case.has_snapshot())
    }

    /// Stops waiting for evidence. Returns the workers whose reap has waited for it.
    pub(crate) fn hurry(&mut self) -> Vec<WorkerId> {
        self.is_hurried = true;
        let waits = |known: &Tracked| known.case.as_ref().is_some_and(|case| !case.is_captured());
        self.known.iter().filter(|(_, known)| waits(known)).map(|(id, _)| *id).collect()
    }

    /// Opens a case and queues it for the evidence collector. Returns `None` if there is no collector, or if its
    /// queue is full.
    fn open_case(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
        kind: CaseKind,
    ) -> Option<Arc<Case>> {
        let collector_handle = self.collector.as_ref()?;
        let facts = timers.first().and_then(|timer| self.facts_of(timer.lane));
        let deadline = timers.iter().map(|timer| timer.deadline).min();
        let until = evidence_ends(now, deadline, collector_handle.budget_ns);
        let known = self.known.get_mut(&worker)?;
        let decisions = std::mem::take(&mut known.decisions);
        // A suspect may have no timer. Its lane was then found by the cascade.
        let facts = facts.or_else(|| {
            let mut suspects = decisions.iter().filter(|decisions| decisions.role == Role::Suspect);
            suspects.next_back()?.note.suspect.as_ref()?.owner.clone()
        });
        let (segment, of_it) = (self.segment.name(), Arc::clone(&known.worker));
        let case =
            Arc::new(Case::new(segment, of_it, facts, timers, decisions, kind, (now, until)));
        if collector_handle.tell(Task::Open(Arc::clone(&case))) {
            return Some(Arc::clone(known.case.insert(case)));
        }
        let error = "no evidence: too many other expiries are waiting for theirs".to_owned();
        self.event_log.note(Note::IncidentLost { id: case.id(), error });
        None
    }

    /// Returns the case of an expiry with its outcome. An expiry that is only reported gets a new case, at most
    /// one per [`REPORTS_APART_NS`].
    pub(super) fn case_of(
        &mut self,
        worker: WorkerId,
        timer: &ExpiredTimer,
        outcome: Outcome,
    ) -> Option<Arc<Case>> {
        let is_excluded = self.is_excluded(worker);
        let known = self.known.get_mut(&worker)?;
        if !outcome.is_report() {
            return known.case.clone();
        }
        // The watchdog's own process needs none, and a report does not end the incident of a running reap.
        if is_excluded || known.case.is_some() {
            return None;
        }
        let now = Nanos(clock::monotonic_ns());
        if known.reported_at.is_some_and(|at| now.since(at) < REPORTS_APART_NS) {
            return None;
        }
        known.reported_at = Some(now);
        let case = self.open_case(now, worker, &[*timer], CaseKind::Reported);
        if let Some(known) = self.known.get_mut(&worker) {
            known.case = None; // a report has no further course
        }
        case
    }

    /// Returns until when the reap waits for evidence, if it does.
    pub(super) fn awaits_evidence(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Option<Nanos> {
        let case = match self.known.get(&worker) {
            Some(Tracked { case: Some(case), .. }) => Arc::clone(case),
            Some(known) if known.worker.is_self() && self.own_process == OwnProcess::Exclude => {
                return None;
            }
            _ => self.open_case(now, worker, timers, CaseKind::Condemned)?,
        };
        let is_full = self
            .collector
            .as_ref()
            .is_some_and(|collector_handle| collector_handle.level == Level::Full);
        // The tick enforces the limit itself: a collector that hangs delays no signal.
        let is_awaited = is_full && !self.is_hurried && !case.is_captured() && now < case.until;
        is_awaited.then_some(case.until)
    }

    /// Sends the outcome of an expiry to the evidence collector.
    pub(super) fn end_case(
        &mut self,
        worker: WorkerId,
        case: &Arc<Case>,
        signal: u8,
        late_ns: u64,
        outcome: Outcome,
    ) {
        if outcome == Outcome::Failed
            && let Some(known) = self.known.get_mut(&worker)
        {
            known.case = None; // the worker is alive and may expire again
        }
        let at = Nanos(clock::monotonic_ns());
        if let Some(collector_handle) = &self.collector {
            let case = Arc::clone(case);
            collector_handle.tell(Task::Ended { case, at, signal, late_ns, outcome });
        }
    }

    /// Keeps a cascade decision for the incident of this worker.
    pub(super) fn keep_decision(&mut self, worker: WorkerId, role: Role, note: &CascadeNote) {
        let is_told = self.collector.is_some() && note.course != Course::Usual(Usual::Alone);
        if let Some(known) = self.known.get_mut(&worker).filter(|_| is_told) {
            let suspects = |decisions: &CascadeDecision| decisions.role == Role::Suspect;
            if role == Role::Suspect && known.decisions.iter().any(suspects) {
                return; // every worker that waits for the suspect repeats the decision
            }
            if known.decisions.len() == MAX_DECISIONS {
                known.decisions.remove(0); // the newest decisions led to the outcome
            }
            let at = Nanos(clock::monotonic_ns());
            known.decisions.push(CascadeDecision { at, role, note: note.clone() });
        }
    }
}
