//! Carries out reaps: verifies workers and signals them, through pidfds only.
//!
//! [`PidfdControl`] implements the core's [`ProcessControl`]. Between a deadline and its signal it makes two
//! system calls: a query of the lane's lock (`F_GETLK`) and the signal. Whether a debugger, a freezer or an
//! exec explains the silence is asked of the attestor beforehand: the tick wakes a little before a deadline
//! to do so.

mod cases;
mod tracked;
mod verdicts;

use std::collections::HashMap;
use std::sync::Arc;

use hangwatch::Segment;
use hangwatch::sys::{clock, crash};
use hangwatch_core::watchdog::expiry::ExpiredTimer;
use hangwatch_core::watchdog::policy::SIGKILL;
use hangwatch_core::watchdog::reap::{
    Course, Event, Evidence, Hold, Outcome, ProcessControl, Sent, Verdict,
};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;
use hangwatch_process::descendants::Reach;
use hangwatch_process::pidfd::{SignalError, Signalled};
use rustix::process::Signal;

use super::attestor::AttestorHandle;
use super::case::Role;
use super::collector_handle::{CollectorHandle, Task};
use super::control::Control;
use super::descendant_killer::{DescendantsHandle, KillerWatch};
use super::error_file;
use super::event_log::{CascadeNote, EventLog, Note, SuspectEndNote, SuspectNote, TimerNote};
use super::options::{Holds, OwnProcess};
use super::worker::{Admitted, LaneFacts};
use tracked::{Asked, Awaited, Tracked, Unlocked};

/// How soon the tick checks for an answer, ns.
const SOON_NS: u64 = 200_000;
/// How soon an unanswered question is asked again, and then checked, ns.
const AGAIN_NS: u64 = 20_000_000;

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    #[error(transparent)]
    Signal(#[from] SignalError),
    #[error("the worker is the watchdog's own process, which is excluded")]
    OwnProcess,
    #[error("the worker is not known")]
    Unknown,
}

/// The process control of a server.
pub(super) struct PidfdControl {
    segment: Segment,
    attestor_handle: AttestorHandle,
    error_files: Option<error_file::ErrorFiles>,
    descendants: Option<DescendantsHandle>,
    reach: Reach,
    event_log: EventLog,
    own_process: OwnProcess,
    /// Whether the status of a worker affects its treatment.
    holds_matter: bool,
    control: Arc<Control>,
    known: HashMap<WorkerId, Tracked>,
    lanes: Vec<Option<Arc<LaneFacts>>>,
    unlocked: HashMap<u32, Unlocked>,
    /// The evidence collector, if evidence is captured.
    collector: Option<CollectorHandle>,
    /// Whether the server is ending, so that no signal waits for evidence.
    is_hurried: bool,
    pub(super) reaped: u64,
}

/// The settings and handles of a [`PidfdControl`].
pub(super) struct PidfdControlParts {
    /// The writer of error files and the descendant killer, where they are enabled.
    pub(super) helpers: (Option<error_file::ErrorFiles>, Option<DescendantsHandle>),
    /// Which processes are killed with a worker.
    pub(super) reach: Reach,
    /// The evidence collector, if evidence is captured.
    pub(super) collector: Option<CollectorHandle>,
    pub(super) own_process: OwnProcess,
    /// Whether the status of a worker affects its treatment.
    pub(super) holds_matter: bool,
    pub(super) control: Arc<Control>,
}

impl PidfdControl {
    pub(super) fn new(
        segment: Segment,
        attestor_handle: AttestorHandle,
        parts: PidfdControlParts,
        event_log: EventLog,
    ) -> PidfdControl {
        let PidfdControlParts { helpers, reach, collector, own_process, holds_matter, control } =
            parts;
        let (error_files, descendants) = helpers;
        PidfdControl {
            lanes: vec![None; segment.geometry().lanes as usize],
            segment,
            attestor_handle,
            error_files,
            descendants,
            reach,
            event_log,
            own_process,
            holds_matter,
            control,
            known: HashMap::new(),
            unlocked: HashMap::new(),
            collector,
            is_hurried: false,
            reaped: 0,
        }
    }

    pub(super) fn attestor_handle(&self) -> &AttestorHandle {
        &self.attestor_handle
    }

    /// Records which worker owns a lane.
    pub(super) fn learn(
        &mut self,
        lane: u32,
        facts: Arc<LaneFacts>,
        worker: Option<Arc<Admitted>>,
    ) {
        if let Some(place) = self.lanes.get_mut(lane as usize) {
            *place = Some(facts);
        }
        self.unlocked.remove(&lane);
        let Some(worker) = worker else { return };
        if !self.known.contains_key(&worker.id) {
            self.event_log.note(Note::Admitted(Arc::clone(&worker)));
            let known = Tracked {
                worker,
                execd: false,
                case: None,
                decisions: Vec::new(),
                reported_at: None,
                status: None,
                asked: Asked::default(),
                awaited: Awaited::default(),
                is_signalled: false,
                error_file: None,
                kill_task: None,
                lane,
            };
            self.known.insert(known.worker.id, known);
        }
    }

    pub(super) fn record_status(&mut self, worker: WorkerId, at: Nanos, hold: Option<Hold>) {
        if let Some(known) = self.known.get_mut(&worker) {
            known.status = Some((at, hold));
            known.asked = Asked::default();
            known.awaited.answers += u32::from(known.awaited.since.is_some());
            known.awaited.why = None;
        }
    }

    /// Records that a worker's status cannot be verified. It is asked again later, and not signalled.
    pub(super) fn unverified(&mut self, worker: WorkerId, why: Box<str>) {
        if let Some(known) = self.known.get_mut(&worker) {
            known.awaited.why = Some(why);
        }
    }

    /// Whether any of these workers is alive and has not been signalled.
    pub(super) fn is_any_unsignalled(&self, workers: &[WorkerId]) -> bool {
        let mut known = workers.iter().filter_map(|worker| self.known.get(worker));
        known.any(|known| !known.is_signalled)
    }

    pub(super) fn ran_same_program(&mut self, lane: u32, owner: OwnerWord, at: Nanos) {
        if let Some(unlocked) = self.unlocked.get_mut(&lane)
            && unlocked.owner == owner
        {
            unlocked.same_program_at = Some(at);
            unlocked.answers += 1;
            unlocked.asked = Asked::default();
        }
    }

    /// Whether the descendants of workers are killed with them.
    pub(super) fn removes_descendants(&self) -> bool {
        self.descendants.is_some()
    }

    /// Returns an admitted worker.
    pub(super) fn admitted(&self, worker: WorkerId) -> Option<Arc<Admitted>> {
        self.known.get(&worker).map(|known| Arc::clone(&known.worker))
    }

    /// Changes how workers that cannot run are treated.
    pub(super) fn set_holds(&mut self, holds: Holds) {
        self.holds_matter = holds.matter();
        // Earlier answers were given under the old setting.
        self.known.values_mut().for_each(|known| known.status = None);
    }

    /// Records that the worker runs another program: it is treated as dead from now on.
    pub(super) fn execd(&mut self, worker: WorkerId) {
        if let Some(known) = self.known.get_mut(&worker) {
            known.execd = true;
        }
    }

    /// Forgets a worker that has left.
    pub(super) fn forget(&mut self, worker: WorkerId) -> Option<Arc<Admitted>> {
        let known = self.known.remove(&worker)?;
        if let (Some(killer), Some(case)) = (&self.descendants, &known.kill_task) {
            if known.execd {
                case.leave();
            } else {
                killer.worker_died(case);
            }
        }
        Some(known.worker)
    }

    pub(super) fn facts_of(&self, lane: u32) -> Option<Arc<LaneFacts>> {
        self.lanes.get(lane as usize)?.clone()
    }

    pub(super) fn timer_note(&self, worker: Option<WorkerId>, timer: &ExpiredTimer) -> TimerNote {
        let known = worker.and_then(|worker| self.known.get(&worker));
        TimerNote {
            timer: *timer,
            worker: known.map(|known| Arc::clone(&known.worker)),
            owner: self.facts_of(timer.lane),
        }
    }

    fn suspect_note(&self, worker: WorkerId, lane: u32) -> Option<SuspectNote> {
        let worker = Arc::clone(&self.known.get(&worker)?.worker);
        Some(SuspectNote { worker, owner: self.facts_of(lane) })
    }

    /// Whether the signal must wait for the worker's error file, which is ordered at the first call. When the
    /// worker's death is visible, the file exists.
    fn awaits_error_file(&mut self, now: Nanos, worker: WorkerId, timers: &[ExpiredTimer]) -> bool {
        let Some(files) = &self.error_files else { return false };
        let Some(known) = self.known.get(&worker) else { return false };
        if known.error_file.is_none() {
            let spared = known.worker.is_self() && self.own_process == OwnProcess::Exclude;
            let notes = timers.iter().map(|timer| self.timer_note(Some(worker), timer)).collect();
            let ordered =
                if spared { None } else { files.order(&known.worker, notes, &self.event_log) };
            let until = now.plus(error_file::BUDGET_NS);
            if let Some(known) = self.known.get_mut(&worker) {
                known.error_file = Some((ordered, until));
            }
        }
        match &self.known[&worker].error_file {
            Some((Some(ordered), until)) => now < *until && !ordered.is_done(),
            _ => false,
        }
    }

    /// Whether the signal must wait for the list of descendants, which is ordered at the first call. There is no
    /// time limit.
    fn awaits_descendants(&mut self, worker: WorkerId) -> bool {
        let (Some(killer), Some(known)) = (&self.descendants, self.known.get_mut(&worker)) else {
            return false;
        };
        if known.worker.is_self() {
            return false; // children of the watchdog itself are not killed with it
        }
        !known.kill_task.get_or_insert_with(|| killer.start(&known.worker)).is_listed()
    }

    /// Whether the first signal of any worker waits for the list of its descendants.
    pub(super) fn is_listing_descendants(&self) -> bool {
        self.known
            .values()
            .any(|known| known.kill_task.as_ref().is_some_and(|case| case.is_being_listed()))
    }

    /// Cancels the kill of a worker's descendants, because the worker stays alive.
    fn leave_descendants(&mut self, worker: WorkerId) {
        let descendants = self.known.get_mut(&worker).and_then(|known| known.kill_task.take());
        if let Some(case) = descendants {
            case.leave();
        }
    }

    /// Watches the progress of the descendant killer, if there is one.
    pub(super) fn watch_killer(&self) -> Option<KillerWatch> {
        self.descendants.as_ref().map(|killer| killer.progress().watch())
    }

    /// Whether the descendants of any worker are being killed.
    pub(super) fn is_killing_descendants(&self) -> bool {
        self.descendants.as_ref().is_some_and(DescendantsHandle::is_at_work)
    }
}

impl ProcessControl for PidfdControl {
    type Error = ControlError;

    fn verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict {
        crash::point("verdict");
        let verdict = match self.lock_verdict(now, worker, lane) {
            Verdict::Go => self.hold_verdict(now, worker),
            other => other,
        };
        self.note_verdict(now, worker, verdict);
        if let Some(known) = self.known.get_mut(&worker) {
            known.lane = lane;
        }
        verdict
    }

    fn is_excluded(&self, worker: WorkerId) -> bool {
        let known = self.known.get(&worker);
        self.own_process == OwnProcess::Exclude && known.is_some_and(|known| known.worker.is_self())
    }

    fn evidence(&mut self, now: Nanos, worker: WorkerId, timers: &[ExpiredTimer]) -> Evidence {
        crash::point("condemned");
        // All three in parallel.
        let captured_by = self.awaits_evidence(now, worker, timers);
        let (awaits_file, awaits_descendants) =
            (self.awaits_error_file(now, worker, timers), self.awaits_descendants(worker));
        if awaits_file || awaits_descendants {
            return Evidence::Pending(now.plus(SOON_NS));
        }
        captured_by.map_or(Evidence::Ready, Evidence::Pending)
    }

    fn signal(&mut self, worker: WorkerId, signal: u8) -> Result<Sent, ControlError> {
        let known = self.known.get_mut(&worker).ok_or(ControlError::Unknown)?;
        known.is_signalled = true;
        // The kernel reports success for a signal to a zombie.
        if known.execd || known.worker.process.pidfd.is_dead() {
            return Ok(Sent::Gone);
        }
        if known.worker.is_self() && self.own_process == OwnProcess::Exclude {
            return Err(ControlError::OwnProcess);
        }
        let descendants = self.descendants.as_ref().zip(known.kill_task.as_ref());
        if descendants.is_some_and(|(_, case)| case.is_kill_pending()) {
            return Ok(Sent::At(Nanos(clock::monotonic_ns()))); // SIGKILL follows the end of its descendants
        }
        let pidfd = &known.worker.process.pidfd;
        crash::point("signal");
        let sent = match descendants {
            // A stopped worker cannot fork, exec or change until its descendants have been killed.
            Some((killer, case)) if signal == SIGKILL && !case.is_being_removed() => {
                // Noted first: if this watchdog dies now, its successor finds what is stopped.
                self.segment.words().lane(known.lane).note_stop(self.reach.code());
                let sent = pidfd.signal(Signal::STOP)?;
                killer.kill(case);
                sent
            }
            _ => pidfd.signal_number(signal)?,
        };
        crash::point("signalled");
        if let Some((_, case)) = descendants {
            case.signalled();
        }
        Ok(match sent {
            Signalled::Sent => Sent::At(Nanos(clock::monotonic_ns())),
            Signalled::Gone => Sent::Gone,
        })
    }

    fn is_kill_pending(&self, worker: WorkerId) -> bool {
        let case = self.known.get(&worker).and_then(|known| known.kill_task.as_ref());
        case.is_some_and(|case| case.is_kill_pending())
    }

    fn is_dead(&mut self, worker: WorkerId) -> bool {
        let Some(known) = self.known.get(&worker) else { return true };
        // A death seen here ends the reap and clears the timers. Not before the snapshot is taken; the attestor
        // reports the death as well.
        (known.execd || known.worker.process.pidfd.is_dead()) && !self.is_awaited(worker)
    }

    fn note(&mut self, event: Event<'_, ControlError>) {
        let known = |process_control: &Self, worker| {
            process_control.known.get(&worker).map(|known| Arc::clone(&known.worker))
        };
        let note = match event {
            Event::Expiry { worker, timer, signal, late_ns, outcome } => {
                if outcome == Outcome::Reaped {
                    self.reaped += 1;
                }
                let case = self.case_of(worker, timer, outcome);
                if let Some(case) = &case {
                    self.end_case(worker, case, signal, late_ns, outcome);
                }
                let timer = self.timer_note(Some(worker), timer);
                Some(Note::Expiry { timer, signal, late_ns, outcome, case })
            }
            Event::Held { worker, timer, hold } => {
                Some(Note::Held { timer: self.timer_note(Some(worker), timer), hold })
            }
            Event::Cascade { worker, timer, scene, suspect, course } => {
                let timer = self.timer_note(Some(worker), timer);
                let suspect_worker = suspect.and_then(|one| one.worker);
                let suspect = suspect.and_then(|one| self.suspect_note(one.worker?, one.lane));
                let note = CascadeNote { timer, scene, suspect, course };
                self.keep_decision(worker, Role::Overdue, &note);
                if let (Course::SuspectFirst { .. }, Some(suspect)) = (course, suspect_worker) {
                    self.keep_decision(suspect, Role::Suspect, &note);
                }
                Some(Note::Cascade(note))
            }
            Event::Suspect { worker, lane, scope, timer, signal, outcome } => {
                if outcome == Outcome::Reaped {
                    self.reaped += 1;
                }
                let case = self.known.get(&worker).and_then(|known| known.case.clone());
                if let Some(case) = &case {
                    // No deadline of its own has passed.
                    self.end_case(worker, case, signal, 0, outcome);
                }
                let timer = timer.map(|timer| self.timer_note(Some(worker), timer));
                self.suspect_note(worker, lane).map(|suspect| {
                    Note::Suspect(SuspectEndNote { suspect, scope, timer, signal, outcome, case })
                })
            }
            Event::Limited { max_reaps } => Some(Note::Limited { max_reaps }),
            Event::Signalled { worker, signal, at } => {
                let case = self.known.get(&worker).and_then(|known| known.case.clone());
                if let (Some(collector_handle), Some(case)) = (&self.collector, case) {
                    collector_handle.tell(Task::Signalled { case, at, signal });
                }
                known(self, worker).map(|worker| Note::Signalled { worker, signal })
            }
            Event::Failed { worker, error } => {
                self.leave_descendants(worker);
                known(self, worker)
                    .map(|worker| Note::ReapFailed { worker, error: error.to_string() })
            }
        };
        if let Some(note) = note {
            self.event_log.note(note);
        }
    }
}
