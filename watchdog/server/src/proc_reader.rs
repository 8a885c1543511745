//! The inspector: the threads that read what a process can keep a reader waiting for.
//!
//! A list of mappings or a command line can wait for a lock that a hung process holds over its own
//! memory, for ever; open files and locks are as many as a process likes. So one process is inspected by
//! one thread ([`queue`]), another thread is started where all are held up, and nobody waits for the
//! answers: an inspection that does not end keeps the lanes of that one process from being admitted, and
//! nobody is signalled for them.

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

/// Programs remembered to have the segment mapped at most; beyond, all are found out again.
const KNOWN: usize = 4096;

/// What the inspector is asked.
#[derive(Clone, Debug)]
pub(super) enum Inspection {
    /// Who owns this lane now?
    Owner { lane: u32 },
    /// What does it call itself, and which is its error file?
    Describe(Arc<Admitted>),
    /// Its lane has no lock: does this admitted worker still run the program it was admitted with?
    Unlocked { lane: u32, owner: OwnerWord, worker: Arc<Admitted> },
}

/// What it has found, for the clerk.
#[derive(Debug)]
pub(super) enum Finding {
    Owner {
        lane: u32,
        owner: OwnerWord,
        facts: Arc<LaneFacts>,
        found: Found,
    },
    /// It runs another program than it was admitted with.
    Execd(WorkerId),
}

/// Who owns a lane.
#[derive(Debug)]
pub(super) enum Found {
    /// The kernel vouches for this process.
    Process(Box<VerifiedProcess>),
    /// It is nobody who is to be admitted.
    Tell(Admission),
    /// That cannot be verified, for this reason.
    Unverified(String),
}

/// A process that holds a lane's lock and has the segment mapped.
#[derive(Debug)]
pub(super) struct VerifiedProcess {
    pub(super) process: Process,
    pub(super) image: Image,
    /// The memory of the program it runs, where the kernel tells of it.
    pub(super) memory: Option<Arc<Memory>>,
    /// As what it runs now.
    pub(super) origin: Origin,
}

impl VerifiedProcess {
    /// Whether the memory is there of the program it was proved to run, as far as that is known.
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

/// The programs that were found to have the segment mapped.
#[derive(Debug, Default)]
struct Mapped(Mutex<HashMap<Identity, Program>>);

/// A program, without keeping its memory's handle open.
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

/// What the inspector is made of.
#[derive(Clone)]
pub(super) struct ProcReaderParts {
    pub(super) segment: Segment,
    pub(super) answers: Answers,
    pub(super) findings: Sender<Finding>,
    /// What the clerk waits for.
    pub(super) wake_fd: Arc<OwnedFd>,
    pub(super) spawner: Spawner,
    pub(super) error_files: Option<ErrorFiles>,
}

/// How the clerk asks. Dropped, nothing is inspected any more.
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
    /// The way to the inspector, whose findings go to the clerk, with a call. Its first thread is started.
    pub(super) fn new(parts: ProcReaderParts) -> io::Result<ProcReaderHandle> {
        let (queue, mapped) = (Arc::new(Queue::default()), Arc::new(Mapped::default()));
        let inspections = ProcReaderHandle { queue, mapped, parts };
        inspections.start_thread(1)?;
        Ok(inspections)
    }

    /// Asks. The same inspection waits only once, so there is always room.
    pub(super) fn add(&self, inspection: Inspection) {
        self.queue.add(Nanos(clock::monotonic_ns()), inspection);
    }

    /// Starts another thread where all are held up and there are fewer than `most`.
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
        // Never joined: it may be stuck with a hung process.
        let started = spawner.spawn("hangwatch-look", move || proc_reader.run());
        started.map(drop).inspect_err(|_| self.queue.failed_to_start())
    }

    /// Whether anything waits for a thread.
    pub(super) fn has_waiting(&self) -> bool {
        self.queue.has_waiting()
    }

    /// The processes whose inspection has taken so long, ns.
    pub(super) fn slow_processes(&self, longer_than_ns: u64) -> Vec<i32> {
        self.queue.slow_processes(Nanos(clock::monotonic_ns()), longer_than_ns)
    }
}

/// One thread of it.
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
    /// Inspects until nobody asks any more.
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
        // Refused where there is no clerk any more.
        let _ = self.findings.send(finding);
        self.wake_fd.wake();
    }

    /// The process that an inspection may have to wait for: by the kernel's word, not by a lane's.
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

/// Whether the worker still runs the program it was admitted with, and as of when; `None` where that
/// cannot be said, or it is dead.
fn runs_same_program(
    worker: &Admitted,
    maps: impl Fn(Pid) -> io::Result<bool>,
) -> Option<(bool, Nanos)> {
    let pid = worker.process.pid;
    // Of a process with many mappings this takes its time: the answer is of when its image is read.
    let maps = maps(pid).ok()?;
    let at = Nanos(clock::monotonic_ns());
    let has_its_memory = worker.has_its_memory();
    // Asked after it: one about to die gives up its memory first, and maps nothing any more.
    let image = proc::image(pid).ok()??;
    // Asked last: what was read before was read of it.
    if worker.process.pidfd.is_dead() {
        return None;
    }
    // A program that attached anew after its exec has the segment mapped, and is another all the same.
    Some((maps && has_its_memory && worker.image == image, at))
}

fn describe(worker: &Admitted) {
    let pid = worker.process.pid;
    let name = proc::comm(pid).ok().flatten().unwrap_or_default();
    let arguments = proc::cmdline(pid).ok().flatten().unwrap_or_default();
    let error_file = error_file::named_by(pid);
    // Dead by now, what was read may be of another process.
    if !worker.process.pidfd.is_dead() {
        let _ = worker.command.set(Command { name, arguments });
        let _ = worker.error_file.set(error_file);
    }
}
