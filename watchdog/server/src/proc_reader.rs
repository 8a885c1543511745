//! The proc readers: threads that read files of `/proc` which a process can delay.
//!
//! Reading a list of mappings or a command line can block forever on a lock that a hung process holds on its
//! memory; a process can have any number of open files and locks. So each process is inspected by at most
//! one thread ([`queue`]), another thread is started when all are blocked, and nothing waits for the answers.
//! An inspection that does not end keeps only that process's lanes from being admitted, and the process is
//! not signalled.

mod owner;
mod queue;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hangwatch::sys::clock;
use hangwatch::sys::lock::{Holder, holder};
use hangwatch::sys::maps;
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::time::Nanos;
use hangwatch_process::attest::{Identity, Process};
use hangwatch_process::proc::{self, Image, Memory};
use rustix::process::Pid;

use self::queue::{Key, Queue};
use super::error_file::{self, ErrorFiles};
use super::messages::{Answer, Answers};
use super::threads::Spawner;
use super::wake_up::WakeUp;
use super::worker::{Admitted, Command, LaneFacts, Origin};

/// Maximum number of programs known to have the segment mapped. Beyond it, all are checked again.
const KNOWN: usize = 4096;

/// A question to a proc reader.
#[derive(Clone, Debug)]
pub(super) enum Inspection {
    /// Which process owns this lane?
    Owner { lane: u32 },
    /// What are its name, its arguments and its error file?
    Describe(Arc<Admitted>),
    /// Its lane has no lock: does it still run the program it was admitted with?
    Unlocked { lane: u32, owner: OwnerWord, worker: Arc<Admitted> },
}

/// An answer to the attestor.
#[derive(Debug)]
pub(super) enum Finding {
    Owner {
        lane: u32,
        owner: OwnerWord,
        facts: Arc<LaneFacts>,
        found: Found,
    },
    /// It runs a program other than the admitted one.
    Execd(WorkerId),
}

/// The owner of a lane.
#[derive(Debug)]
pub(super) enum Found {
    /// The kernel verifies this process.
    Process(Box<VerifiedProcess>),
    /// No process is to be admitted.
    Tell(Admission),
    /// It cannot be verified, for this reason.
    Unverified(String),
}

/// A process that holds a lane's lock and has the segment mapped.
#[derive(Debug)]
pub(super) struct VerifiedProcess {
    pub(super) process: Process,
    pub(super) image: Image,
    /// The memory of the program it runs, if the kernel gives access to it.
    pub(super) memory: Option<Arc<Memory>>,
    /// Its current credentials.
    pub(super) origin: Origin,
}

impl VerifiedProcess {
    /// Whether the memory of the verified program is still in use; true if that is not known.
    pub(super) fn has_memory(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| memory.is_in_use())
    }
}

impl Inspection {
    fn key(&self) -> Key {
        match self {
            Inspection::Owner { lane } => Key::Owner(*lane),
            Inspection::Describe(worker) => Key::Describe(worker.id.0),
            Inspection::Unlocked { lane, .. } => Key::Unlocked(*lane),
        }
    }
}

/// Programs that are known to have the segment mapped.
#[derive(Debug, Default)]
struct Mapped(Mutex<HashMap<Identity, Program>>);

/// A program. Its memory's handle is not kept open.
#[derive(Debug)]
struct Program {
    image: Image,
    memory: Option<Weak<Memory>>,
}

impl Mapped {
    fn is_known(&self, identity: Identity, image: Image) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in_use =
            |memory: &Weak<Memory>| memory.upgrade().is_some_and(|memory| memory.is_in_use());
        known.get(&identity).is_some_and(|program| {
            program.image == image && program.memory.as_ref().is_none_or(is_in_use)
        })
    }

    fn note(&self, identity: Identity, image: Image, memory: Option<&Arc<Memory>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(identity, Program { image, memory: memory.map(Arc::downgrade) });
    }
}

/// What the proc readers are made of.
#[derive(Clone)]
pub(super) struct ProcReaderParts {
    pub(super) segment: Segment,
    pub(super) answers: Answers,
    pub(super) findings: Sender<Finding>,
    /// The descriptor that wakes the attestor.
    pub(super) wake_fd: Arc<OwnedFd>,
    pub(super) spawner: Spawner,
    pub(super) error_files: Option<ErrorFiles>,
}

/// How the attestor asks. When it is dropped, the threads end.
pub(super) struct ProcReaderHandle {
    queue: Arc<Queue>,
    mapped: Arc<Mapped>,
    parts: ProcReaderParts,
}

impl Drop for ProcReaderHandle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl ProcReaderHandle {
    /// Creates the queue and starts the first thread. Findings go to the attestor and wake it.
    pub(super) fn new(parts: ProcReaderParts) -> io::Result<ProcReaderHandle> {
        let (queue, mapped) = (Arc::new(Queue::default()), Arc::new(Mapped::default()));
        let inspections = ProcReaderHandle { queue, mapped, parts };
        inspections.start_thread(1)?;
        Ok(inspections)
    }

    /// Queues an inspection. The same inspection is queued only once, so the queue is bounded.
    pub(super) fn add(&self, inspection: Inspection) {
        self.queue.add(Nanos(clock::monotonic_ns()), inspection);
    }

    /// Starts another thread if all are blocked and there are fewer than `most`.
    pub(super) fn start_thread(&self, most: usize) -> io::Result<()> {
        if !self.queue.wants_thread(Nanos(clock::monotonic_ns()), most) {
            return Ok(());
        }
        let ProcReaderParts { segment, answers, findings, wake_fd, spawner, error_files } =
            self.parts.clone();
        let proc_reader = ProcReader {
            queue: Arc::clone(&self.queue),
            mapped: Arc::clone(&self.mapped),
            segment,
            answers,
            findings,
            wake_fd: WakeUp::of(&wake_fd),
            error_files,
        };
        // Never joined: it may hang on a hung process.
        let started = spawner.spawn("hangwatch-look", move || proc_reader.run());
        started.map(drop).inspect_err(|_| self.queue.failed_to_start())
    }

    /// Whether an inspection waits for a thread.
    pub(super) fn has_waiting(&self) -> bool {
        self.queue.has_waiting()
    }

    /// Returns the processes whose inspection has taken longer than this, ns.
    pub(super) fn slow_processes(&self, longer_than_ns: u64) -> Vec<i32> {
        self.queue.slow_processes(Nanos(clock::monotonic_ns()), longer_than_ns)
    }
}

/// One thread.
struct ProcReader {
    queue: Arc<Queue>,
    mapped: Arc<Mapped>,
    segment: Segment,
    answers: Answers,
    findings: Sender<Finding>,
    wake_fd: WakeUp,
    error_files: Option<ErrorFiles>,
}

impl ProcReader {
    /// Runs inspections until the handle is dropped.
    fn run(self) {
        let now = || Nanos(clock::monotonic_ns());
        while let Some(inspection) = self.queue.next(now) {
            let pid = self.process_of(&inspection);
            let Some(inspection) = self.queue.begin(now(), pid, inspection) else { continue };
            match inspection {
                Inspection::Owner { lane } => self.tell(self.owner(lane)),
                Inspection::Describe(worker) => {
                    describe(&worker);
                    if let (Some(files), Some(Some(_))) =
                        (&self.error_files, worker.error_file.get())
                    {
                        files.prepare();
                    }
                }
                Inspection::Unlocked { lane, owner, worker } => {
                    match runs_same_program(&worker, |pid| self.maps(pid)) {
                        Some((true, at)) => {
                            self.answers.tell(Answer::SameProgram { lane, owner, at });
                        }
                        Some((false, _)) => self.tell(Finding::Execd(worker.id)),
                        None => {}
                    }
                }
            }
            self.queue.end(pid);
        }
    }

    fn tell(&self, finding: Finding) {
        // Fails if the attestor has ended.
        let _ = self.findings.send(finding);
        self.wake_fd.wake();
    }

    /// Returns the process that an inspection may block on: the lock's holder rather than the lane's claim.
    fn process_of(&self, inspection: &Inspection) -> i32 {
        let lane = match inspection {
            Inspection::Describe(worker) | Inspection::Unlocked { worker, .. } => {
                return worker.process.pid.as_raw_pid();
            }
            Inspection::Owner { lane } => *lane,
        };
        match holder(self.segment.file(), lane_lock_byte(lane)) {
            Ok(Holder::Process(pid)) => pid.as_raw_pid(),
            _ => self.segment.words().lane(lane).owner().pid().cast_signed(),
        }
    }

    fn maps(&self, pid: Pid) -> io::Result<bool> {
        maps::maps_segment(pid, self.segment.file().id())
    }
}

/// Whether the worker still runs the admitted program, and at what time; `None` if that is unknown or it is
/// dead.
fn runs_same_program(
    worker: &Admitted,
    maps: impl Fn(Pid) -> io::Result<bool>,
) -> Option<(bool, Nanos)> {
    let pid = worker.process.pid;
    // This takes long for a process with many mappings, so the time is taken when the image is read.
    let maps = maps(pid).ok()?;
    let at = Nanos(clock::monotonic_ns());
    let has_its_memory = worker.has_its_memory();
    // Read after the maps: a dying process gives up its memory first and then maps nothing.
    let image = proc::image(pid).ok()??;
    // Checked last: if it lives, the reads before were of this process.
    if worker.process.pidfd.is_dead() {
        return None;
    }
    // A program that attached again after exec has the segment mapped, but is another program.
    Some((maps && has_its_memory && worker.image == image, at))
}

fn describe(worker: &Admitted) {
    let pid = worker.process.pid;
    let name = proc::comm(pid).ok().flatten().unwrap_or_default();
    let arguments = proc::cmdline(pid).ok().flatten().unwrap_or_default();
    let error_file = error_file::named_by(pid);
    // If it is dead, what was read may be of another process.
    if !worker.process.pidfd.is_dead() {
        let _ = worker.command.set(Command { name, arguments });
        let _ = worker.error_file.set(error_file);
    }
}
