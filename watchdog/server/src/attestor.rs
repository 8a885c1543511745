//! The attestor: verifies which process owns a lane, and notices when a process dies.
//!
//! Lock queries and `/proc` are slow, so they run on this thread and not in the tick. Whatever a process can
//! delay, such as reading its memory map, is left to the [`proc reader`](super::proc_reader).

mod inbox;
mod log_limit;
mod status;
mod workers;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, atomic::Ordering};

use hangwatch::sys::lock::{Holder, LockError, holder};
use hangwatch::sys::{clock, crash};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;
use rustix::event::{Timespec, epoll};

use self::inbox::Inbox;
use self::log_limit::LogLimit;
use self::status::{Status, StatusReader};
use self::workers::Workers;
use super::control::Control;
use super::error_file::ErrorFiles;
use super::event_log::{EventLog, Note};
use super::lane_registry::LaneRegistry;
use super::messages::{Answer, Answers, Question};
use super::proc_reader::{
    Finding, Found, Inspection, ProcReaderHandle, ProcReaderParts, VerifiedProcess,
};
use super::segment_file_check::SegmentFileCheck;
use super::threads::Spawner;
use super::tracers::Tracers;
use super::wake_up::WakeUp;
use super::worker::{Admitted, LaneFacts};

/// Time between two checks of admitted lanes, ns.
const ROUND_NS: u64 = 500_000_000;
/// Lanes that one check covers: 16 lock queries a second, 2 us each. The check only frees lanes sooner; the
/// lock is queried before each signal anyway.
const LANES_A_ROUND: usize = 8;
/// Lane checks between two checks of the segment's file.
const ROUNDS_PER_FILE_CHECK: u32 = 2;
/// How often the attestor checks whether an inspection waits for a thread, ns.
const INSPECTIONS_LOOK_NS: u64 = 100_000_000;
/// An inspection that takes longer is reported, ns.
const SLOW_INSPECTION_NS: u64 = 1_000_000_000;
/// Processor time of one lock query above which the tick makes none, ns.
const SLOW_LOCK_NS: u64 = 5_000_000;
/// How long no lock is queried after a slow query, ns.
const SLOW_LOCKS_AGAIN_NS: u64 = 10_000_000_000;
/// Maximum number of proc reader threads while lock queries are slow.
const READERS_WITH_SLOW_LOCKS: usize = 2;
/// The epoll data of the wake-up descriptor. Workers count from 1.
const WAKE_UP: u64 = 0;

/// How the tick asks the attestor.
pub(super) struct AttestorHandle {
    // Dropped in this order: the wake-up makes the attestor find the channel closed.
    questions: SyncSender<Question>,
    wake_up: WakeUp,
}

impl AttestorHandle {
    /// Asks a question. Returns false if the queue is full and the question must be asked again.
    pub(super) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok() && self.wake_up.wake()
    }
}

/// The state of the attestor's thread.
pub(super) struct Attestor {
    pub(super) segment: Segment,
    pub(super) control: Arc<Control>,
    pub(super) event_log: EventLog,
    pub(super) answers: Answers,
    inspections: ProcReaderHandle,
    findings: Receiver<Finding>,
    inbox: Inbox,
    /// Readable after a question, a finding, or the drop of the handle.
    wake_fd: Arc<OwnedFd>,
    epoll: OwnedFd,
    workers: Workers,
    status_reader: StatusReader,
    file_check: SegmentFileCheck,
    /// The lane at which the next check starts.
    next_lane: u32,
    /// No lock is queried before this time.
    locks_asked_from: Nanos,
    /// Bounds the log lines about workers that cannot be verified.
    log_limit: LogLimit,
}

/// What an attestor is made of.
pub(super) struct AttestorParts {
    pub(super) segment: Segment,
    pub(super) control: Arc<Control>,
    pub(super) event_log: EventLog,
    pub(super) answers: Answers,
    pub(super) spawner: Spawner,
    pub(super) error_files: Option<ErrorFiles>,
    pub(super) registry: LaneRegistry,
    pub(super) tracers: Tracers,
}

impl Attestor {
    /// Creates the attestor and its handle.
    pub(super) fn new(parts: AttestorParts) -> io::Result<(Attestor, AttestorHandle)> {
        let AttestorParts {
            segment,
            control,
            event_log,
            answers,
            spawner,
            error_files,
            registry,
            tracers,
        } = parts;
        let lanes = segment.geometry().lanes as usize;
        let room = lanes * 2 + 64;
        let (sender, questions) = std::sync::mpsc::sync_channel(room);
        let (finder, findings) = std::sync::mpsc::channel();
        let (wake_up, wake_fd) = WakeUp::new()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake_fd, epoll::EventData::new_u64(WAKE_UP), epoll::EventFlags::IN)?;
        let inspections = ProcReaderHandle::new(ProcReaderParts {
            segment,
            answers: answers.clone(),
            findings: finder,
            wake_fd: Arc::clone(&wake_fd),
            spawner,
            error_files,
        })?;
        let handle = AttestorHandle { questions: sender, wake_up };
        let attestor = Attestor {
            file_check: SegmentFileCheck::new(segment),
            status_reader: StatusReader::new(Arc::clone(&control), event_log.clone(), tracers),
            segment,
            control,
            event_log,
            answers,
            inspections,
            findings,
            inbox: Inbox::new(questions, room),
            wake_fd,
            epoll,
            workers: Workers::new(registry),
            next_lane: 0,
            locks_asked_from: Nanos(0),
            log_limit: LogLimit::default(),
        };
        Ok((attestor, handle))
    }

    /// Answers questions until the handle is dropped.
    pub(super) fn run(mut self) {
        let mut rounds = 0u32;
        let mut round_at = Nanos(clock::monotonic_ns()).plus(ROUND_NS);
        loop {
            // With questions left it only polls, so that deaths are seen between two answers.
            self.wait(if self.inbox.is_empty() { self.next_look(round_at) } else { Nanos(0) });
            if self.inbox.collect().is_err() {
                return;
            }
            if let Some(question) = self.inbox.next() {
                self.answer(question);
            }
            while let Ok(finding) = self.findings.try_recv() {
                self.take(finding);
            }
            self.start_readers();
            if clock::monotonic_ns() >= round_at.0 {
                round_at = Nanos(clock::monotonic_ns()).plus(ROUND_NS);
                self.check_lanes();
                if rounds.is_multiple_of(ROUNDS_PER_FILE_CHECK) {
                    self.check_file();
                }
                rounds = rounds.wrapping_add(1);
            }
        }
    }

    /// Starts another proc reader thread if all are blocked.
    fn start_readers(&mut self) {
        if !self.inspections.has_waiting() {
            return;
        }
        // While lock queries are slow, more threads would only wait for each other.
        let are_slow = self.control.locks_are_slow.load(Ordering::Relaxed);
        let most = if are_slow { READERS_WITH_SLOW_LOCKS } else { usize::MAX };
        if let Err(error) = self.inspections.start_thread(most) {
            self.say("inspector", &format!("cannot start a thread that reads /proc: {error}"));
        }
    }

    /// Returns the latest time to wake up without an event.
    fn next_look(&self, round_at: Nanos) -> Nanos {
        if self.inspections.has_waiting() {
            round_at.min(Nanos(clock::monotonic_ns()).plus(INSPECTIONS_LOOK_NS))
        } else {
            round_at
        }
    }

    /// Waits for a question, a finding, a death or the next check.
    fn wait(&mut self, until: Nanos) {
        let left_ns = until.since(Nanos(clock::monotonic_ns()));
        let timeout = Timespec {
            tv_sec: (left_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (left_ns % 1_000_000_000).cast_signed(),
        };
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let dead: Vec<u64> = match epoll::wait(&self.epoll, &mut buffer, Some(&timeout)) {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            // Any other error would repeat at once.
            Err(rustix::io::Errno::INTR) => return,
            Err(_) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                return;
            }
        };
        for which in dead {
            if which == WAKE_UP {
                let _ = rustix::io::read(&self.wake_fd, &mut [0u8; 8]);
            } else {
                self.died(WorkerId(which));
            }
        }
    }

    fn died(&mut self, id: WorkerId) {
        self.status_reader.forget(id);
        if let Some(worker) = self.workers.remove(id) {
            let _ = epoll::delete(&self.epoll, worker.process.pidfd.as_fd());
            self.control.workers.store(self.workers.len(), Ordering::Relaxed);
            self.answers.tell(Answer::Died { worker: id });
        }
    }

    /// Applies what a proc reader found about a lane or a worker.
    fn take(&mut self, finding: Finding) {
        let (lane, owner, facts, found) = match finding {
            Finding::Owner { lane, owner, facts, found } => (lane, owner, facts, found),
            Finding::Execd(worker) => return self.forget_execd(worker),
        };
        if self.segment.words().lane(lane).owner() != owner {
            return; // a finding about the next owner follows
        }
        let worker = match found {
            Found::Process(proved) => self.add_worker(*proved),
            Found::Tell(admission) => {
                return self.tell_admission((lane, owner), admission, None, facts);
            }
            Found::Unverified(why) => Err(why),
        };
        match worker {
            Ok(worker) => {
                let admission = Admission::Worker(worker.id);
                self.tell_admission((lane, owner), admission, Some(worker), facts);
            }
            Err(why) => {
                self.say(&lane.to_string(), &format!("lane {lane}: {why}; will be checked again"));
                self.tell_admission((lane, owner), Admission::Unknown, None, facts);
            }
        }
    }

    /// Returns the worker of a verified process: the one already known, or a new one.
    fn add_worker(&mut self, proved: VerifiedProcess) -> Result<Arc<Admitted>, String> {
        if let Some(known) = self.workers.find(proved.process.identity) {
            // A dying process gives up its memory before its death is visible; its death follows.
            let is_memory_same = known.has_its_memory() || !proved.has_memory();
            if known.image == proved.image && is_memory_same {
                return Ok(known);
            }
            // It ran exec and attached again.
            self.forget_execd(known.id);
        }
        let worker = self.workers.add(proved);
        let data = epoll::EventData::new_u64(worker.id.0);
        let pidfd = worker.process.pidfd.as_fd();
        if let Err(error) = epoll::add(&self.epoll, pidfd, data, epoll::EventFlags::IN) {
            self.workers.remove(worker.id);
            return Err(format!("cannot watch for the end of process {}: {error}", worker.pid()));
        }
        self.control.workers.store(self.workers.len(), Ordering::Relaxed);
        self.inspections.add(Inspection::Describe(Arc::clone(&worker)));
        Ok(worker)
    }

    fn forget_execd(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.remove_execd(id) {
            let _ = epoll::delete(&self.epoll, worker.process.pidfd.as_fd());
        }
        self.control.workers.store(self.workers.len(), Ordering::Relaxed);
        self.answers.tell(Answer::Execd { worker: id });
    }

    fn answer(&mut self, question: Question) {
        crash::point("attestor");
        match question {
            Question::Admit { lane } => self.inspections.add(Inspection::Owner { lane }),
            Question::Status { worker } => {
                let Some(admitted) = self.workers.get(worker) else { return };
                // Read before the status: the status is at least this fresh.
                let at = Nanos(clock::monotonic_ns());
                match self.status_reader.look(at, &admitted) {
                    Status::Standing(hold) => {
                        self.answers.tell(Answer::Status { worker, at, hold });
                    }
                    Status::Execd => self.forget_execd(worker),
                    Status::Unverified(why) => {
                        let why = why.into_boxed_str();
                        self.answers.tell(Answer::Unverified { worker, why });
                    }
                    Status::NotYet => {}
                }
            }
            Question::Unlocked { lane, owner, worker } => {
                if let Some(worker) = self.workers.get(worker) {
                    self.inspections.add(Inspection::Unlocked { lane, owner, worker });
                }
            }
        }
    }

    /// Logs what keeps workers from being verified, with a rate limit for each `what`.
    fn say(&mut self, what: &str, text: &str) {
        if self.log_limit.is_due(Nanos(clock::monotonic_ns()), what) {
            self.event_log.note(Note::Admission(text.to_owned()));
        }
    }

    /// Logs which processes delay their inspection.
    fn say_who_is_slow(&mut self) {
        for pid in self.inspections.slow_processes(SLOW_INSPECTION_NS) {
            let text = format!(
                "process {pid} delays reads of /proc: its lanes cannot be verified yet, so it is not \
                 signalled for them"
            );
            self.say(&format!("slow {pid}"), &text);
        }
    }

    /// Checks some admitted lanes. A free lock means that the worker ran exec or closed its descriptors.
    fn check_lanes(&mut self) {
        self.workers.forget_dead_origins();
        self.say_who_is_slow();
        let used = self.segment.words().lanes_used();
        for _ in 0..LANES_A_ROUND.min(used as usize) {
            let lane = self.next_lane % used;
            self.next_lane = lane + 1;
            let Some((owner, id)) = self.workers.owner_of(lane) else { continue };
            if self.segment.words().lane(lane).owner() != owner {
                self.workers.clear(lane);
                continue;
            }
            let Some(worker) = self.workers.get(id) else { continue };
            let Some(held) = self.holder_of(lane) else { return };
            if !worker.is_self() && matches!(held, Ok(Holder::Free)) {
                self.inspections.add(Inspection::Unlocked { lane, owner, worker });
            }
        }
    }

    /// Queries which process holds a lane's lock.
    ///
    /// The kernel walks all locks of the file, and any process of the job can take many. If that takes too
    /// long, this returns `None` for a while, and the tick makes no queries either.
    fn holder_of(&mut self, lane: u32) -> Option<Result<Holder, LockError>> {
        let now = Nanos(clock::monotonic_ns());
        if now < self.locks_asked_from {
            return None;
        }
        // Measured as processor time: a busy machine does not make a query slow.
        let from = thread_time_ns();
        let held = holder(self.segment.file(), lane_lock_byte(lane));
        let took_ns = thread_time_ns().saturating_sub(from);
        let are_slow = took_ns > SLOW_LOCK_NS;
        self.control.locks_are_slow.store(are_slow, Ordering::Relaxed);
        if are_slow {
            self.locks_asked_from = now.plus(SLOW_LOCKS_AGAIN_NS);
            let text = format!(
                "a lock query on the segment's file takes {} ms: a process of the job holds very many record \
                 locks on it (see /proc/locks); signals may be late",
                took_ns / 1_000_000
            );
            self.say("locks", &text);
        }
        Some(held)
    }

    fn check_file(&mut self) {
        let trusted = clock::counter_is_system_clock_now();
        self.control.counter_is_clock.store(trusted, Ordering::Relaxed);
        for finding in self.file_check.check() {
            self.event_log.note(Note::File(finding));
            if finding == super::segment_file_check::Finding::Truncated {
                self.control.truncated.store(true, Ordering::Release);
                self.answers.tick_waker.wake();
            }
        }
    }

    fn tell_admission(
        &mut self,
        question: (u32, OwnerWord),
        admission: Admission,
        worker: Option<Arc<Admitted>>,
        facts: Arc<LaneFacts>,
    ) {
        let (lane, owner) = question;
        match &worker {
            Some(worker) => self.workers.assign(lane, owner, worker.id),
            None => self.workers.clear(lane),
        }
        self.answers.tell(Answer::Admission { lane, owner, admission, worker, facts });
    }
}

/// Returns the processor time of this thread, ns.
fn thread_time_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::TryRecvError;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    #[test]
    fn attestor_ends_when_its_handle_is_dropped() {
        for _ in 0..1000 {
            let (questions, asked) = std::sync::mpsc::sync_channel(1);
            let (wake_up, wake_fd) = WakeUp::new().unwrap();
            let handle = AttestorHandle { questions, wake_up };
            let tick = std::thread::spawn(move || drop(handle));
            let mut polled = [PollFd::new(&wake_fd, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut polled, None).unwrap(), 1);
            assert_eq!(asked.try_recv().unwrap_err(), TryRecvError::Disconnected);
            tick.join().unwrap();
        }
    }
}
