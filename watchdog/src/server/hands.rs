//! The hands: what a reap does to processes, through pidfds and nothing else.
//!
//! From a deadline to its signal there are two system calls: whether the lane's lock still stands
//! (`F_GETLK`), and the signal. What else must be known, whether a debugger, a freezer or an exec is
//! behind the silence, was asked of the clerk before: the tick wakes a little ahead of a deadline to
//! do so.

use std::collections::HashMap;
use std::sync::Arc;

use hangwatch::sys::lock::{Holder, holder};
use hangwatch::sys::pidfd::{SignalError, Signalled};
use hangwatch::sys::{clock, crash, host};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::expiry::{ExpiredTimer, WorkerId};
use hangwatch_core::lane::OwnerWord;
use hangwatch_core::policy::SIGKILL;
use hangwatch_core::reap::{Course, Event, Evidence, Hands, Hold, Outcome, Sent, Usual, Verdict};
use hangwatch_core::time::Nanos;

use super::case::{Case, Charge, Role, Weighed, evidence_ends};
use super::clerk::Desk;
use super::error_file::{self, Ordered};
use super::facts::{Admitted, LaneFacts};
use super::journal::{CascadeNote, Journal, Note, SuspectEndNote, SuspectNote, TimerNote};
use super::kin::{self, KinCase, KinDesk};
use super::messages::Question;
use super::options::{Holds, OwnProcess};
use super::witness::{Stand, Task};
use crate::evidence::options::Level;

/// How old an answer about a worker may be when it is signalled, ns.
const FRESH_NS: u64 = 5_000_000;
/// How soon an answer is looked for again, ns.
const SOON_NS: u64 = 200_000;
/// How soon it is asked for again, and looked for at leisure, ns.
const AGAIN_NS: u64 = 20_000_000;
/// How long an overdue worker is spared for want of an answer about what may hold it up, ns. (For
/// want of an answer about an exec, it is spared for ever.)
const SPARED_NS: u64 = 1_000_000_000;
/// How often one worker's reports, which end nothing, are given an incident, ns.
const REPORTS_APART_NS: u64 = 60_000_000_000;
/// Decisions about a worker that are kept for its incident.
const WEIGHED: usize = 8;

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandsError {
    #[error(transparent)]
    Signal(#[from] SignalError),
    #[error("the worker is the watchdog's own process, which is spared")]
    OwnProcess,
    #[error("the worker is not known")]
    Unknown,
}

/// A worker, and what was asked about it last.
struct Known {
    worker: Arc<Admitted>,
    /// It runs another program now: nothing may be sent to it, and it counts as dead.
    execd: bool,
    /// Its expiry, as the witness knows it: from the condemnation to the end of the reap.
    case: Option<Arc<Case>>,
    /// What was decided about it with a look at others: its next case tells of it.
    weighed: Vec<Weighed>,
    /// When it was last given an incident for a report.
    reported_at: Option<Nanos>,
    standing: Option<(Nanos, Option<Hold>)>,
    asked: Asked,
    /// Its error file, and until when its signal waits for it.
    error_file: Option<(Option<Ordered>, Nanos)>,
    /// Who is removed with it, since it is condemned, and until when a signal waits for the list.
    kin: Option<(Option<Arc<KinCase>>, Nanos)>,
}

/// When something was asked.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    first_at: Option<Nanos>,
    last_at: Option<Nanos>,
}

impl Asked {
    /// Whether to ask (again) now.
    fn is_due(&mut self, now: Nanos) -> bool {
        self.first_at.get_or_insert(now);
        if self.last_at.is_some_and(|at| now.since(at) < AGAIN_NS) {
            return false;
        }
        self.last_at = Some(now);
        true
    }

    fn since_first_ns(&self, now: Nanos) -> u64 {
        self.first_at.map_or(0, |at| now.since(at))
    }

    /// When to look for the answer.
    fn look_at(&self, now: Nanos) -> Nanos {
        let is_overdue = self.since_first_ns(now) > AGAIN_NS;
        now.plus(if is_overdue { AGAIN_NS } else { SOON_NS })
    }
}

/// A lane of which an answer about its missing lock is awaited or known.
struct Unlocked {
    owner: OwnerWord,
    same_program_at: Option<Nanos>,
    asked: Asked,
}

/// The hands of a server.
pub(super) struct ProcessHands {
    segment: Segment,
    desk: Desk,
    error_files: Option<error_file::ErrorFiles>,
    kin: Option<KinDesk>,
    journal: Journal,
    own_process: OwnProcess,
    /// Whether anything is to be asked about what holds a worker up.
    holds_matter: bool,
    /// Whether the kernel would let a signal pass to a worker that is another user's by now.
    may_signal_anybody: bool,
    known: HashMap<WorkerId, Known>,
    lanes: Vec<Option<Arc<LaneFacts>>>,
    unlocked: HashMap<u32, Unlocked>,
    /// Who takes evidence, where any is to be taken.
    witness: Option<Stand>,
    /// Whether there is no time left for evidence: the server is told to end.
    is_hurried: bool,
    pub(super) reaped: u64,
}

/// What hands do beside signalling, and what they spare.
pub(super) struct HandsParts {
    /// Who writes error files, and who removes a worker's kin.
    pub(super) helpers: (Option<error_file::ErrorFiles>, Option<KinDesk>),
    /// Who takes evidence, where any is to be taken.
    pub(super) witness: Option<Stand>,
    pub(super) own_process: OwnProcess,
    /// Whether anything is to be asked about what holds a worker up.
    pub(super) holds_matter: bool,
}

impl ProcessHands {
    pub(super) fn new(
        segment: Segment,
        desk: Desk,
        parts: HandsParts,
        journal: Journal,
    ) -> ProcessHands {
        let HandsParts { helpers: (error_files, kin), witness, own_process, holds_matter } = parts;
        ProcessHands {
            lanes: vec![None; segment.geometry().lanes as usize],
            segment,
            desk,
            error_files,
            kin,
            journal,
            own_process,
            holds_matter,
            may_signal_anybody: host::may_signal_anybody(),
            known: HashMap::new(),
            unlocked: HashMap::new(),
            witness,
            is_hurried: false,
            reaped: 0,
        }
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Takes note of who owns a lane.
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
            self.journal.note(Note::Admitted(Arc::clone(&worker)));
            let known = Known {
                worker,
                execd: false,
                case: None,
                weighed: Vec::new(),
                reported_at: None,
                standing: None,
                asked: Asked::default(),
                error_file: None,
                kin: None,
            };
            self.known.insert(known.worker.id, known);
        }
    }

    pub(super) fn stood(&mut self, worker: WorkerId, at: Nanos, hold: Option<Hold>) {
        if let Some(known) = self.known.get_mut(&worker) {
            known.standing = Some((at, hold));
            known.asked = Asked::default();
        }
    }

    pub(super) fn ran_same_program(&mut self, lane: u32, owner: OwnerWord, at: Nanos) {
        if let Some(unlocked) = self.unlocked.get_mut(&lane)
            && unlocked.owner == owner
        {
            unlocked.same_program_at = Some(at);
            unlocked.asked = Asked::default();
        }
    }

    /// Changes what holds a worker up.
    pub(super) fn set_holds(&mut self, holds: Holds) {
        self.holds_matter = holds.matter();
        // What was answered before was asked otherwise.
        self.known.values_mut().for_each(|known| known.standing = None);
    }

    /// The worker runs another program: from here on it is as good as dead.
    pub(super) fn execd(&mut self, worker: WorkerId) {
        if let Some(known) = self.known.get_mut(&worker) {
            known.execd = true;
        }
    }

    /// Forgets a worker that is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) -> Option<Arc<Admitted>> {
        let known = self.known.remove(&worker)?;
        if let (Some(desk), Some((Some(case), _))) = (&self.kin, &known.kin) {
            if known.execd {
                case.leave();
            } else {
                desk.worker_died(case);
            }
        }
        Some(known.worker)
    }

    /// Whether the lanes of this worker are still to be taken down as evidence.
    pub(super) fn is_awaited(&self, worker: WorkerId) -> bool {
        let case = self.known.get(&worker).and_then(|known| known.case.as_ref());
        case.is_some_and(|case| !case.is_pictured())
    }

    /// Takes no time for evidence any more. Returns those whose reap has waited for it.
    pub(super) fn hurry(&mut self) -> Vec<WorkerId> {
        self.is_hurried = true;
        let waits = |known: &Known| known.case.as_ref().is_some_and(|case| !case.is_captured());
        self.known.iter().filter(|(_, known)| waits(known)).map(|(id, _)| *id).collect()
    }

    /// Opens a case of this worker, and tells the witness. `None` where there is no witness, or it has
    /// more to do than it can.
    fn open_case(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
        charge: Charge,
    ) -> Option<Arc<Case>> {
        let stand = self.witness.as_ref()?;
        let facts = timers.first().and_then(|timer| self.facts_of(timer.lane));
        let deadline = timers.iter().map(|timer| timer.deadline).min();
        let until = evidence_ends(now, deadline, stand.budget_ns);
        let known = self.known.get_mut(&worker)?;
        let weighed = std::mem::take(&mut known.weighed);
        // A suspect may have no timer: then who it said it is stands where it was found.
        let facts = facts.or_else(|| {
            let mut suspects = weighed.iter().filter(|weighed| weighed.role == Role::Suspect);
            suspects.next_back()?.note.suspect.as_ref()?.owner.clone()
        });
        let (segment, of_it) = (self.segment.name(), Arc::clone(&known.worker));
        let case =
            Arc::new(Case::new(segment, of_it, facts, timers, weighed, charge, (now, until)));
        stand.tell(Task::Open(Arc::clone(&case))).then(|| Arc::clone(known.case.insert(case)))
    }

    /// The case of an expiry that came to its end: of one that is only reported, a new one now and
    /// then.
    fn case_of(
        &mut self,
        worker: WorkerId,
        timer: &ExpiredTimer,
        outcome: Outcome,
    ) -> Option<Arc<Case>> {
        let is_spared = self.is_spared(worker);
        let known = self.known.get_mut(&worker)?;
        if !matches!(outcome, Outcome::Reported | Outcome::Braked) || known.case.is_some() {
            return known.case.clone();
        }
        if is_spared {
            return None; // it knows itself
        }
        let now = Nanos(clock::monotonic_ns());
        if known.reported_at.is_some_and(|at| now.since(at) < REPORTS_APART_NS) {
            return None;
        }
        known.reported_at = Some(now);
        let case = self.open_case(now, worker, &[*timer], Charge::Reported);
        if let Some(known) = self.known.get_mut(&worker) {
            known.case = None; // it ends with its beginning
        }
        case
    }

    /// Until when evidence of a condemned worker is waited for, where it is.
    fn awaits_evidence(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Option<Nanos> {
        let case = match self.known.get(&worker) {
            Some(Known { case: Some(case), .. }) => Arc::clone(case),
            Some(known) if known.worker.is_self() && self.own_process == OwnProcess::Spare => {
                return None;
            }
            _ => self.open_case(now, worker, timers, Charge::Condemned)?,
        };
        let is_full = self.witness.as_ref().is_some_and(|stand| stand.level == Level::Full);
        // The tick bounds it by itself: a witness that hangs delays no signal.
        let is_awaited = is_full && !self.is_hurried && !case.is_captured() && now < case.until;
        is_awaited.then_some(case.until)
    }

    /// Tells the witness how an expiry ended.
    fn end_case(
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
        if let Some(stand) = &self.witness {
            let case = Arc::clone(case);
            // Where there is no room, the incident has no ending; the log does.
            stand.tell(Task::Ended { case, at, signal, late_ns, outcome });
        }
    }

    /// Whether the clerk is asked about a worker before it is signalled.
    fn must_ask(&self, worker: WorkerId) -> bool {
        let known = self.known.get(&worker);
        self.holds_matter
            || (self.may_signal_anybody && known.is_some_and(|known| !known.worker.is_self()))
    }

    /// A deadline of this worker is near: asks what will have to be known.
    pub(super) fn prepare(&mut self, now: Nanos, worker: WorkerId) {
        if !self.must_ask(worker) {
            return;
        }
        let Some(known) = self.known.get_mut(&worker) else { return };
        let fresh = known.standing.is_some_and(|(at, _)| now.since(at) < FRESH_NS / 2);
        if !fresh && known.asked.is_due(now) {
            self.desk.ask(Question::Standing { worker });
        }
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

    /// Keeps a decision for the incident of this worker.
    fn weigh(&mut self, worker: WorkerId, role: Role, note: &CascadeNote) {
        let is_told = self.witness.is_some() && note.course != Course::Usual(Usual::Alone);
        if let Some(known) = self.known.get_mut(&worker).filter(|_| is_told) {
            let suspects = |weighed: &Weighed| weighed.role == Role::Suspect;
            if role == Role::Suspect && known.weighed.iter().any(suspects) {
                return; // each of those who wait for it says so
            }
            if known.weighed.len() == WEIGHED {
                known.weighed.remove(0); // the last ones led to its end
            }
            let at = Nanos(clock::monotonic_ns());
            known.weighed.push(Weighed { at, role, note: note.clone() });
        }
    }

    fn suspect_note(&self, worker: WorkerId, lane: u32) -> Option<SuspectNote> {
        let worker = Arc::clone(&self.known.get(&worker)?.worker);
        Some(SuspectNote { worker, owner: self.facts_of(lane) })
    }

    /// Whether the lane's lock stands, or the worker is known to be the program it was all the same.
    fn lock_verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict {
        let Some(known) = self.known.get(&worker) else {
            return Verdict::Wait(now.plus(AGAIN_NS));
        };
        // The kernel keeps silent about a process's own locks, and this one has not exec'd.
        if known.worker.is_self() {
            return Verdict::Go;
        }
        let held = holder(self.segment.file(), lane_lock_byte(lane));
        if matches!(held, Ok(Holder::Process(pid)) if pid == known.worker.process.pid) {
            return Verdict::Go;
        }
        let owner = self.segment.words().lane(lane).owner();
        let unlocked = self.unlocked.entry(lane).or_insert(Unlocked {
            owner,
            same_program_at: None,
            asked: Asked::default(),
        });
        if unlocked.owner != owner {
            *unlocked = Unlocked { owner, same_program_at: None, asked: Asked::default() };
        }
        if unlocked.same_program_at.is_some_and(|at| now.since(at) < FRESH_NS) {
            return Verdict::Go;
        }
        if unlocked.asked.is_due(now) {
            self.desk.ask(Question::Unlocked { lane, owner, worker });
        }
        Verdict::Wait(unlocked.asked.look_at(now))
    }

    /// Whether the signal still has to wait for the worker's error file, which is ordered now if it was
    /// not: who sees the worker die finds it there.
    fn awaits_error_file(&mut self, now: Nanos, worker: WorkerId, timers: &[ExpiredTimer]) -> bool {
        let Some(files) = &self.error_files else { return false };
        let Some(known) = self.known.get(&worker) else { return false };
        if known.error_file.is_none() {
            let spared = known.worker.is_self() && self.own_process == OwnProcess::Spare;
            let notes = timers.iter().map(|timer| self.timer_note(Some(worker), timer)).collect();
            let ordered = if spared { None } else { files.order(&known.worker, notes) };
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

    /// Whether the list of those that are removed with a worker is to be waited for; it is ordered
    /// first.
    fn awaits_kin(&mut self, now: Nanos, worker: WorkerId) -> bool {
        let (Some(desk), Some(known)) = (&self.kin, self.known.get_mut(&worker)) else {
            return false;
        };
        if known.worker.is_self() {
            return false; // what this process started is not a worker's to take along
        }
        let (case, until) =
            known.kin.get_or_insert_with(|| (desk.open(&known.worker), now.plus(kin::BUDGET_NS)));
        case.as_ref().is_some_and(|case| now < *until && !case.is_listed())
    }

    /// Whether anybody is being removed with a worker.
    pub(super) fn is_removing_kin(&self) -> bool {
        self.kin.as_ref().is_some_and(KinDesk::is_at_work)
    }

    /// Whether something holds the worker up that is not its own doing.
    fn hold_verdict(&mut self, now: Nanos, worker: WorkerId) -> Verdict {
        if !self.must_ask(worker) {
            return Verdict::Go;
        }
        let Some(known) = self.known.get_mut(&worker) else {
            return Verdict::Go;
        };
        match known.standing {
            Some((at, hold)) if now.since(at) < FRESH_NS => hold.map_or(Verdict::Go, Verdict::Held),
            _ => {
                if known.asked.is_due(now) {
                    self.desk.ask(Question::Standing { worker });
                }
                if known.asked.since_first_ns(now) > SPARED_NS {
                    return Verdict::Go;
                }
                Verdict::Wait(known.asked.look_at(now))
            }
        }
    }
}

impl Hands for ProcessHands {
    type Error = HandsError;

    fn verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict {
        crash::point("verdict");
        match self.lock_verdict(now, worker, lane) {
            Verdict::Go => self.hold_verdict(now, worker),
            other => other,
        }
    }

    fn is_spared(&self, worker: WorkerId) -> bool {
        let known = self.known.get(&worker);
        self.own_process == OwnProcess::Spare && known.is_some_and(|known| known.worker.is_self())
    }

    fn evidence(&mut self, now: Nanos, worker: WorkerId, timers: &[ExpiredTimer]) -> Evidence {
        crash::point("condemned");
        // All at the same time.
        let captured_by = self.awaits_evidence(now, worker, timers);
        let (awaits_file, awaits_kin) =
            (self.awaits_error_file(now, worker, timers), self.awaits_kin(now, worker));
        if awaits_file || awaits_kin {
            return Evidence::Pending(now.plus(SOON_NS));
        }
        captured_by.map_or(Evidence::Ready, Evidence::Pending)
    }

    fn signal(&mut self, worker: WorkerId, signal: u8) -> Result<Sent, HandsError> {
        let known = self.known.get(&worker).ok_or(HandsError::Unknown)?;
        // To a dead process whose parent has not waited for it the kernel would "send" it.
        if known.execd || known.worker.process.pidfd.is_dead() {
            return Ok(Sent::Gone);
        }
        if known.worker.is_self() && self.own_process == OwnProcess::Spare {
            return Err(HandsError::OwnProcess);
        }
        crash::point("signal");
        let sent = known.worker.process.pidfd.signal_number(signal)?;
        crash::point("signalled");
        if let (Some(desk), Some((Some(case), _))) = (&self.kin, &known.kin) {
            match signal {
                SIGKILL => desk.kill(case),
                _ => case.signalled(),
            }
        }
        Ok(match sent {
            Signalled::Sent => Sent::At(Nanos(clock::monotonic_ns())),
            Signalled::Gone => Sent::Gone,
        })
    }

    fn is_dead(&mut self, worker: WorkerId) -> bool {
        let known = self.known.get(&worker);
        known.is_none_or(|known| known.execd || known.worker.process.pidfd.is_dead())
    }

    fn note(&mut self, event: Event<'_, HandsError>) {
        let known =
            |hands: &Self, worker| hands.known.get(&worker).map(|known| Arc::clone(&known.worker));
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
                self.weigh(worker, Role::Overdue, &note);
                if let (Course::SuspectFirst { .. }, Some(suspect)) = (course, suspect_worker) {
                    self.weigh(suspect, Role::Suspect, &note);
                }
                Some(Note::Cascade(note))
            }
            Event::Suspect { worker, lane, scope, timer, signal, outcome } => {
                if outcome == hangwatch_core::reap::Outcome::Reaped {
                    self.reaped += 1;
                }
                let case = self.known.get(&worker).and_then(|known| known.case.clone());
                if let Some(case) = &case {
                    // It has run out of no time of its own.
                    self.end_case(worker, case, signal, 0, outcome);
                }
                let timer = timer.map(|timer| self.timer_note(Some(worker), timer));
                self.suspect_note(worker, lane).map(|suspect| {
                    Note::Suspect(SuspectEndNote { suspect, scope, timer, signal, outcome, case })
                })
            }
            Event::Braked { max_reaps } => Some(Note::Braked { max_reaps }),
            Event::Signalled { worker, signal } => {
                let case = self.known.get(&worker).and_then(|known| known.case.clone());
                if let (Some(stand), Some(case)) = (&self.witness, case) {
                    let at = Nanos(clock::monotonic_ns());
                    stand.tell(Task::Signalled { case, at, signal });
                }
                known(self, worker).map(|worker| Note::Signalled { worker, signal })
            }
            Event::Failed { worker, error } => known(self, worker)
                .map(|worker| Note::ReapFailed { worker, error: error.to_string() }),
        };
        if let Some(note) = note {
            self.journal.note(note);
        }
    }
}
