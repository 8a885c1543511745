//! The witness: the thread that takes evidence, so that the tick need not.
//!
//! For each [`Case`] it takes a picture of the segment at once, then has a helper capture the rest, a
//! few helpers at a time (`helper`); it writes down what was decided and how it ended, and hands the incident to
//! the [`archive`](super::archive). It waits for nothing but events, each with a limit.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use hangwatch::Segment;
use hangwatch::sys::clock;
use hangwatch_core::reap::Outcome;
use hangwatch_core::time::Nanos;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::archive::{Archive, Stands};
use super::case::{Case, Charge};
use super::dossier::Dossier;
use super::events::ExpiryOutcome;
use super::facts::Admitted;
use super::journal::{Journal, Note};
use super::messages::{Answer, Answers};
use super::seating::Seating;
use super::stand::{Ears, Stand, Task};
use super::tracers::Tracers;
use crate::evidence::capture::{Capture, Flow, Gone, MayStop, Subject};
use crate::evidence::options::{EvidenceOptions, Level};
use crate::evidence::picture::Seated;
use crate::evidence::piece::Gathered;
use crate::incident::schema::Ending;

use self::helper::{Helper, places, time_left};

mod helper;

/// How long the witness waits for the last incidents to be written, when it ends.
pub(super) const LAST_WRITES: Duration = Duration::from_secs(2);
/// How long it waits for helpers it has killed, when it ends.
const LAST_DEATHS: Duration = Duration::from_millis(200);

/// What a witness is made of.
pub(super) struct WitnessParts {
    pub(super) segment: Segment,
    pub(super) options: EvidenceOptions,
    pub(super) seating: Seating,
    pub(super) tracers: Tracers,
    pub(super) answers: Answers,
    pub(super) journal: Journal,
    pub(super) archive: Option<Archive>,
}

/// The witness's own things.
pub(super) struct Witness {
    parts: WitnessParts,
    ears: Ears,
    /// Every incident that has not come to its end.
    dossiers: Vec<Dossier>,
    /// Those that wait for a helper.
    waiting: VecDeque<Arc<Case>>,
    running: Vec<Helper>,
    gone: Vec<Gone>,
}

impl Witness {
    /// A witness, and how to talk to it.
    pub(super) fn new(parts: WitnessParts) -> io::Result<(Witness, Stand)> {
        let (stand, ears) = Stand::new(&parts.options)?;
        let (dossiers, waiting, running, gone) = Default::default();
        Ok((Witness { parts, ears, dossiers, waiting, running, gone }, stand))
    }

    /// Works until nobody talks to it any more.
    pub(super) fn run(mut self) {
        while self.take_tasks() == Talk::GoesOn {
            self.look_at_helpers();
            self.start_helpers();
            self.wait();
        }
        self.close();
    }

    fn take_tasks(&mut self) -> Talk {
        loop {
            match self.ears.tasks.try_recv() {
                Ok(Task::Open(case)) => self.open(case),
                Ok(Task::Signalled { case, at, signal }) => self.signalled(&case, at, signal),
                Ok(Task::Ended { case, at, signal, late_ns, outcome }) => {
                    let ending = ending(&case, at, signal, late_ns, outcome);
                    self.change(&case, |dossier| dossier.end(ending, outcome));
                }
                Err(TryRecvError::Empty) => return Talk::GoesOn,
                Err(TryRecvError::Disconnected) => return Talk::IsOver,
            }
        }
    }

    fn open(&mut self, case: Arc<Case>) {
        let WitnessParts { segment, options, seating, .. } = &self.parts;
        let words = segment.words();
        let seated = seating.seated(|lane| words.lane(lane).owner());
        let mut dossier = Dossier::open(&case, *segment, &seated, options);
        case.set_pictured();
        self.parts.answers.tell(Answer::Pictured { worker: case.worker.id });
        if options.level < Level::Full || options.program.is_none() {
            if options.level == Level::Full {
                dossier.miss("process", "there is no hangwatch program to capture it");
            }
            self.dossiers.push(dossier);
            self.captured(&case, Gathered::default());
            return;
        }
        // Whatever becomes of the rest, there is this.
        self.put(&dossier);
        // Who holds the others up is looked at first.
        if dossier.is_of_suspect() {
            self.waiting.push_front(case);
        } else {
            self.waiting.push_back(case);
        }
        self.dossiers.push(dossier);
    }

    fn signalled(&mut self, case: &Arc<Case>, at: Nanos, signal: u8) {
        self.change(case, |dossier| dossier.signalled(at, signal));
    }

    /// Changes the incident of a case, and has it written where it is complete.
    fn change(&mut self, case: &Arc<Case>, how: impl FnOnce(&mut Dossier)) {
        let Some(place) = self.place_of(case) else { return };
        how(&mut self.dossiers[place]);
        self.settle(place);
    }

    fn place_of(&self, case: &Arc<Case>) -> Option<usize> {
        self.dossiers.iter().position(|dossier| dossier.is_of(case))
    }

    /// Has the incident at this place written where it is complete.
    fn settle(&mut self, place: usize) {
        if self.dossiers[place].is_captured() {
            self.put(&self.dossiers[place]);
        }
        if self.dossiers[place].is_closed() {
            self.dossiers.swap_remove(place);
        }
    }

    fn put(&self, dossier: &Dossier) {
        let (incident, is_closed) = (dossier.incident(), dossier.is_closed());
        match &self.parts.archive {
            Some(archive) if is_closed => archive.put(incident, Stands::Closed),
            Some(archive) => archive.put(incident, Stands::Open),
            None if is_closed => self.parts.journal.note(Note::Closed { incident, dir: None }),
            None => {}
        }
    }

    /// Tells the tick that there is no more to wait for.
    fn told(&self, case: &Arc<Case>) {
        case.set_captured();
        self.parts.answers.tell(Answer::Captured { worker: case.worker.id });
    }

    fn start_helpers(&mut self) {
        let Some(program) = self.parts.options.program.clone() else { return };
        while self.running.len() < places() {
            let Some(case) = self.waiting.pop_front() else { return };
            let left = time_left(&case);
            let subject = Subject {
                pid: case.worker.pid(),
                pidfd: case.worker.process.pidfd.as_fd(),
                first_tid: case.facts.as_ref().map(|facts| facts.tid),
                may_stop: match case.charge {
                    Charge::Condemned => MayStop::Yes,
                    Charge::Reported => MayStop::No,
                },
                budget: left,
                redactor: &self.parts.options.redactor,
            };
            if left.is_zero() {
                self.captured(&case, Gathered::without("too slow: other captures came first"));
                continue;
            }
            match Capture::start(&program, subject) {
                Ok(capture) => {
                    self.parts.tracers.add(capture.pid());
                    self.running.push(Helper { case, capture, since: now() });
                }
                Err(error) => {
                    let why = format!("no helper: {}: {error}", program.display());
                    self.captured(&case, Gathered::without(&why));
                }
            }
        }
    }

    /// Takes in what helpers have told, and ends those that are done or too slow.
    fn look_at_helpers(&mut self) {
        let mut place = 0;
        while place < self.running.len() {
            let helper = &mut self.running[place];
            let flow = helper.capture.pump();
            let too_slow = helper.too_slow(self.waiting.len()).filter(|_| flow == Flow::Open);
            if flow == Flow::Open && !helper.capture.is_complete() && too_slow.is_none() {
                place += 1;
                continue;
            }
            let Helper { case, capture, .. } = self.running.swap_remove(place);
            let (gathered, gone) = capture.end(too_slow);
            self.gone.push(gone);
            self.captured(&case, gathered);
        }
        // One that waits for a helper while the budget goes by is not waited for.
        while let Some(place) = self.waiting.iter().position(|case| time_left(case).is_zero()) {
            if let Some(case) = self.waiting.remove(place) {
                self.captured(&case, Gathered::without("too slow: other captures came first"));
            }
        }
        let tracers = &self.parts.tracers;
        self.gone.retain_mut(|gone| {
            let is_dead = gone.is_dead();
            if is_dead {
                tracers.remove(gone.pid());
            }
            !is_dead
        });
    }

    fn captured(&mut self, case: &Arc<Case>, gathered: Gathered) {
        self.told(case);
        let Some(place) = self.place_of(case) else { return };
        let dossier = &mut self.dossiers[place];
        dossier.capture(gathered, now());
        // Before it is written: the word that it is closed must be the last.
        self.parts.journal.note(Note::Captured(dossier.incident()));
        self.settle(place);
    }

    /// Waits for a task, something told by a helper, or the end of a budget.
    fn wait(&mut self) {
        let helpers = self.running.iter().map(|helper| helper.time_left(self.waiting.len()));
        let waiting = self.waiting.iter().map(|case| time_left(case));
        let dying = (!self.gone.is_empty()).then_some(Duration::from_millis(10));
        let timeout = helpers.chain(waiting).chain(dying).min().map(|left| {
            let left = left.max(Duration::from_micros(100));
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut polled = vec![PollFd::new(&self.ears.called, PollFlags::IN)];
        polled
            .extend(self.running.iter().map(|helper| PollFd::new(&helper.capture, PollFlags::IN)));
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Any other refusal would come again at once.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        let _ = rustix::io::read(&self.ears.called, &mut [0u8; 8]);
    }

    /// The watchdog ends: what has come is kept.
    fn close(mut self) {
        for case in std::mem::take(&mut self.waiting) {
            self.captured(&case, Gathered::without("the watchdog ended"));
        }
        for Helper { case, capture, .. } in std::mem::take(&mut self.running) {
            let (gathered, gone) = capture.end(Some("the watchdog ended"));
            self.gone.push(gone);
            self.captured(&case, gathered);
        }
        let until = Instant::now() + LAST_DEATHS;
        while !self.gone.is_empty() && Instant::now() < until {
            self.gone.retain_mut(|gone| !gone.is_dead());
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(archive) = &self.parts.archive {
            archive.close(LAST_WRITES);
        }
    }
}

/// How a case's expiry ended.
fn ending(case: &Case, at: Nanos, signal: u8, late_ns: u64, outcome: Outcome) -> Ending {
    let wait_channel = (outcome == Outcome::Unkillable)
        .then(|| hangwatch::sys::process::wchan(case.worker.process.pid).ok().flatten())
        .flatten();
    Ending {
        at: case.clocks().moment(at),
        outcome: ExpiryOutcome::Reap(outcome).name().to_owned(),
        signal,
        late_ns,
        wait_channel,
    }
}

fn now() -> Nanos {
    Nanos(clock::monotonic_ns())
}

/// Whether anybody talks to the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Talk {
    GoesOn,
    IsOver,
}

/// What a worker calls itself, as far as that is known by now.
pub(super) fn seated(worker: &Admitted) -> Seated {
    let command = worker.command.get().cloned().unwrap_or_default();
    Seated { pid: worker.pid(), name: command.name, arguments: command.arguments }
}
