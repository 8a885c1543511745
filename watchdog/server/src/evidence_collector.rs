//! The evidence collector: captures evidence of expired workers on its own thread.
//!
//! For each [`Case`] it takes a snapshot of the segment, then has a helper capture the rest, a few helpers at
//! a time. It adds the decisions and the outcome, and hands the incident to the
//! [`incident writer`](super::incident_writer). Every wait has a time limit.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use hangwatch::Segment;
use hangwatch::sys::clock;
use hangwatch_core::watchdog::reap::Outcome;
use hangwatch_core::wire::time::Nanos;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::case::Case;
use super::collector_handle::{CollectorHandle, Task, TaskReceiver};
use super::event_log::{EventLog, Note};
use super::events::ExpiryOutcome;
use super::incident_builder::IncidentBuilder;
use super::incident_writer::{Completeness, IncidentWriter};
use super::lane_registry::LaneRegistry;
use super::messages::{Answer, Answers};
use super::tracers::Tracers;
use super::worker::Admitted;
use hangwatch_evidence::capture::{Flow, Gone};
use hangwatch_evidence::options::{EvidenceOptions, Level};
use hangwatch_evidence::picture::Seated;
use hangwatch_evidence::piece::Gathered;
use hangwatch_incident::schema::Ending;

use self::helper::{Helper, places, time_left};
use self::starter::{Started, Starter, StarterParts};

pub(super) use self::snapshots::Snapshots;

mod helper;
mod snapshots;
mod starter;

/// How long the last incidents may take to be written when the server ends.
pub(super) const LAST_WRITES: Duration = Duration::from_secs(2);
/// How long killed helpers may take to die when the server ends.
const LAST_DEATHS: Duration = Duration::from_millis(200);

/// What an evidence collector is made of.
pub(super) struct EvidenceCollectorParts {
    pub(super) segment: Segment,
    pub(super) options: EvidenceOptions,
    pub(super) registry: LaneRegistry,
    pub(super) tracers: Tracers,
    pub(super) answers: Answers,
    pub(super) event_log: EventLog,
    pub(super) incident_writer: Option<IncidentWriter>,
}

/// The state of the evidence collector's thread.
pub(super) struct EvidenceCollector {
    parts: EvidenceCollectorParts,
    receiver: TaskReceiver,
    snapshots: Snapshots,
    /// The incidents that are not complete, by the address of their case.
    builders: BTreeMap<usize, IncidentBuilder>,
    /// The cases that wait for a helper.
    waiting: VecDeque<Arc<Case>>,
    /// `None` if there is no program for helpers, or evidence is limited to scopes.
    starter: Option<Starter>,
    /// The cases whose helper is being started.
    starting: Vec<Arc<Case>>,
    running: Vec<Helper>,
    gone: Vec<Gone>,
}

impl EvidenceCollector {
    /// Creates the collector and its handle.
    pub(super) fn new(
        parts: EvidenceCollectorParts,
    ) -> io::Result<(EvidenceCollector, CollectorHandle)> {
        let (collector_handle, receiver) = CollectorHandle::new(&parts.options)?;
        let starter = match (&parts.options.program, parts.options.level) {
            (Some(program), Level::Full) => Some(Starter::new(StarterParts {
                program: program.clone(),
                redactor: parts.options.redactor.clone(),
                memory_bytes: parts.options.memory_bytes,
                tracers: parts.tracers.clone(),
                wake_fd: Arc::clone(&receiver.wake_fd),
            })?),
            _ => None,
        };
        let redactor = parts.options.redactor.clone();
        let snapshots = Snapshots::new(parts.segment, parts.registry.clone(), redactor);
        let (builders, waiting, starting, running, gone) = Default::default();
        let collector = EvidenceCollector {
            parts,
            receiver,
            snapshots,
            builders,
            waiting,
            starter,
            starting,
            running,
            gone,
        };
        Ok((collector, collector_handle))
    }

    /// Runs until the handle is dropped.
    pub(super) fn run(mut self) {
        while self.take_tasks() == Input::Open {
            self.look_at_helpers();
            self.start_helpers();
            self.wait();
        }
        self.close();
    }

    fn take_tasks(&mut self) -> Input {
        loop {
            match self.receiver.tasks.try_recv() {
                Ok(Task::Open(case)) => {
                    self.receiver.has_taken();
                    self.open(case);
                }
                Ok(Task::Signalled { case, at, signal }) => self.signalled(&case, at, signal),
                Ok(Task::Ended { case, at, signal, late_ns, outcome }) => {
                    let ending = ending(&case, at, signal, late_ns, outcome);
                    self.change(&case, |builder| builder.end(ending, outcome));
                }
                Err(TryRecvError::Empty) => return Input::Open,
                Err(TryRecvError::Disconnected) => return Input::Closed,
            }
        }
    }

    fn open(&mut self, case: Arc<Case>) {
        let EvidenceCollectorParts { segment, options, .. } = &self.parts;
        let mut builder = IncidentBuilder::open(&case, *segment, &mut self.snapshots, options);
        case.set_has_snapshot();
        self.parts.answers.tell(Answer::SnapshotTaken { worker: case.worker.id });
        if self.starter.is_none() {
            if options.level == Level::Full {
                builder.add_missing("process", "there is no hangwatch program to capture it");
            }
            self.builders.insert(key(&case), builder);
            self.captured(&case, Gathered::default());
            return;
        }
        // A first version is written, whatever happens to the rest.
        self.put(&builder);
        // The suspect is captured first.
        let is_of_suspect = builder.is_of_suspect();
        self.builders.insert(key(&case), builder);
        if is_of_suspect {
            self.waiting.push_front(case);
        } else {
            self.waiting.push_back(case);
        }
    }

    fn signalled(&mut self, case: &Arc<Case>, at: Nanos, signal: u8) {
        self.change(case, |builder| builder.signalled(at, signal));
    }

    /// Changes the incident of a case, and queues it for writing once its evidence is in.
    fn change(&mut self, case: &Arc<Case>, how: impl FnOnce(&mut IncidentBuilder)) {
        if let Some(builder) = self.builders.get_mut(&key(case)) {
            how(builder);
            self.settle(case);
        }
    }

    /// Queues the incident of a case for writing once its evidence is in, and forgets it when it is complete.
    fn settle(&mut self, case: &Arc<Case>) {
        let Some(builder) = self.builders.get(&key(case)) else { return };
        if builder.is_captured() {
            self.put(builder);
        }
        if builder.is_closed() {
            self.builders.remove(&key(case));
        }
    }

    fn put(&self, builder: &IncidentBuilder) {
        let (incident, is_closed) = (builder.incident(), builder.is_closed());
        let completeness = if is_closed { Completeness::Closed } else { Completeness::Open };
        match &self.parts.incident_writer {
            Some(incident_writer) => {
                incident_writer.put(incident, completeness, builder.priority());
            }
            None if is_closed => self.parts.event_log.note(Note::Closed { incident, dir: None }),
            None => {}
        }
    }

    /// Tells the tick that no more evidence will come.
    fn finish_capture(&self, case: &Arc<Case>) {
        case.set_captured();
        self.parts.answers.tell(Answer::Captured { worker: case.worker.id });
    }

    /// Starts helpers for waiting cases, and takes over those that have started.
    fn start_helpers(&mut self) {
        let Some(starter) = &self.starter else { return };
        while self.running.len() + self.starting.len() < places() {
            let Some(case) = self.waiting.pop_front() else { break };
            self.starting.push(Arc::clone(&case));
            starter.start(case);
        }
        let mut failed = Vec::new();
        while let Some(Started { case, capture }) = starter.started() {
            let place = self.starting.iter().position(|starting| Arc::ptr_eq(starting, &case));
            let is_wanted = place.map(|place| self.starting.swap_remove(place)).is_some();
            match capture {
                Ok(capture) if is_wanted => {
                    self.running.push(Helper { case, capture, since: now() });
                }
                // Its case has continued without it.
                Ok(capture) => self.gone.push(capture.end(None).1),
                Err(why) if is_wanted => failed.push((case, why)),
                Err(_) => {}
            }
        }
        for (case, why) in failed {
            self.captured(&case, Gathered::without(&why));
        }
    }

    /// Reads what helpers have sent, and ends those that are complete or too slow.
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
        // A case whose budget ends before a helper is free continues without one.
        let is_over = |case: &Arc<Case>| time_left(case).is_zero();
        let (late, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(is_over);
        self.waiting = waiting.into();
        let (hung, starting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.starting).into_iter().partition(is_over);
        self.starting = starting;
        self.give_up(late, "too slow: other captures came first");
        self.give_up(hung, "too slow: its helper did not start within the budget");
        let tracers = &self.parts.tracers;
        self.gone.retain_mut(|gone| {
            let is_dead = gone.is_dead();
            if is_dead {
                tracers.remove(gone.pid());
            }
            !is_dead
        });
    }

    /// Continues these cases without a helper.
    fn give_up(&mut self, cases: Vec<Arc<Case>>, why: &str) {
        for case in cases {
            self.captured(&case, Gathered::without(why));
        }
    }

    fn captured(&mut self, case: &Arc<Case>, gathered: Gathered) {
        self.finish_capture(case);
        let Some(builder) = self.builders.get_mut(&key(case)) else { return };
        builder.capture(gathered, now());
        // Before it is queued for writing: `Closed` must be the last event.
        self.parts.event_log.note(Note::Captured(builder.incident()));
        self.settle(case);
    }

    /// Waits for a task, for data from a helper, or for the end of a budget.
    fn wait(&mut self) {
        let helpers = self.running.iter().map(|helper| helper.time_left(self.waiting.len()));
        let waiting = self.waiting.iter().chain(&self.starting).map(|case| time_left(case));
        let dying = (!self.gone.is_empty()).then_some(Duration::from_millis(10));
        let timeout = helpers.chain(waiting).chain(dying).min().map(|left| {
            let left = left.max(Duration::from_micros(100));
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut polled = vec![PollFd::new(&self.receiver.wake_fd, PollFlags::IN)];
        polled
            .extend(self.running.iter().map(|helper| PollFd::new(&helper.capture, PollFlags::IN)));
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Any other error would repeat at once.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        let _ = rustix::io::read(&self.receiver.wake_fd, &mut [0u8; 8]);
    }

    /// Ends the collector and keeps the evidence that has arrived.
    fn close(mut self) {
        let waiting = std::mem::take(&mut self.waiting).into();
        self.give_up(waiting, "the watchdog ended");
        let starting = std::mem::take(&mut self.starting);
        self.give_up(starting, "the watchdog ended");
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
        if let Some(incident_writer) = &self.parts.incident_writer {
            incident_writer.close(LAST_WRITES);
        }
    }
}

/// The outcome of a case's expiry.
fn ending(case: &Case, at: Nanos, signal: u8, late_ns: u64, outcome: Outcome) -> Ending {
    let wait_channel = (outcome == Outcome::Unkillable)
        .then(|| hangwatch_process::proc::wchan(case.worker.process.pid).ok().flatten())
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

/// The key of an open case: its address, which is unique while it is referenced.
fn key(case: &Arc<Case>) -> usize {
    Arc::as_ptr(case).addr()
}

/// Whether the handle of the collector still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    Closed,
}

/// Returns a worker's pid, name and arguments, as far as they are known.
pub(super) fn described(worker: &Admitted) -> Seated {
    let command = worker.command.get().cloned().unwrap_or_default();
    Seated { pid: worker.pid(), name: command.name, arguments: command.arguments }
}
