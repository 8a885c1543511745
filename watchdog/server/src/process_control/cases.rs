//! Cases: what the witness is told of an expiry, from the condemnation to the end of the reap.

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

/// How often one worker's reports, which end nothing, are given an incident, ns.
const REPORTS_APART_NS: u64 = 60_000_000_000;
/// Decisions about a worker that are kept for its incident.
const MAX_DECISIONS: usize = 8;

impl PidfdControl {
    /// Whether the lanes of this worker are still to be taken down as evidence.
    pub(crate) fn is_awaited(&self, worker: WorkerId) -> bool {
        let case = self.known.get(&worker).and_then(|known| known.case.as_ref());
        case.is_some_and(|case| !case.has_snapshot())
    }

    /// Takes no time for evidence any more. Returns those whose reap has waited for it.
    pub(crate) fn hurry(&mut self) -> Vec<WorkerId> {
        self.is_hurried = true;
        let waits = |known: &Tracked| known.case.as_ref().is_some_and(|case| !case.is_captured());
        self.known.iter().filter(|(_, known)| waits(known)).map(|(id, _)| *id).collect()
    }

    /// Opens a case of this worker, and tells the witness. `None` where there is no witness, or it has
    /// more to do than it can.
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
        // A suspect may have no timer: then who it said it is stands where it was found.
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
        let error = "not captured: too many other expiries wait for their evidence".to_owned();
        self.event_log.note(Note::IncidentLost { id: case.id(), error });
        None
    }

    /// The case of an expiry that came to its end: of one that is only reported, a new one now and
    /// then.
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
        // The watchdog knows itself; and the incident of a reap under way does not end with a report.
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
            known.case = None; // it ends with its beginning
        }
        case
    }

    /// Until when evidence of a condemned worker is waited for, where it is.
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
        // The tick bounds it by itself: a witness that hangs delays no signal.
        let is_awaited = is_full && !self.is_hurried && !case.is_captured() && now < case.until;
        is_awaited.then_some(case.until)
    }

    /// Tells the witness how an expiry ended.
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
            known.case = None; // it lives on, and may expire again
        }
        let at = Nanos(clock::monotonic_ns());
        if let Some(collector_handle) = &self.collector {
            let case = Arc::clone(case);
            collector_handle.tell(Task::Ended { case, at, signal, late_ns, outcome });
        }
    }

    /// Keeps a decision for the incident of this worker.
    pub(super) fn keep_decision(&mut self, worker: WorkerId, role: Role, note: &CascadeNote) {
        let is_told = self.collector.is_some() && note.course != Course::Usual(Usual::Alone);
        if let Some(known) = self.known.get_mut(&worker).filter(|_| is_told) {
            let suspects = |decisions: &CascadeDecision| decisions.role == Role::Suspect;
            if role == Role::Suspect && known.decisions.iter().any(suspects) {
                return; // each of those who wait for it says so
            }
            if known.decisions.len() == MAX_DECISIONS {
                known.decisions.remove(0); // the last ones led to its end
            }
            let at = Nanos(clock::monotonic_ns());
            known.decisions.push(CascadeDecision { at, role, note: note.clone() });
        }
    }
}
