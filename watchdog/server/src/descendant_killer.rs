//! The descendant killer: a thread that lists the descendants of a condemned worker, and kills them and it.
//!
//! [`descendants`](hangwatch_process::descendants) says which processes are descendants and how they are
//! killed.
//!
//! A task starts when a worker is condemned. Its descendants are listed before the first signal, which waits
//! for the list, and listed again until the worker is to be killed or dies of a gentler signal. To kill the
//! worker, the tick sends SIGSTOP and leaves SIGKILL to this thread, which sends it last. If a worker ends
//! before it was signalled, its descendants are left alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use hangwatch::sys::lock::{Holder, holder};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::wire::lane::LaneState;
use rustix::process::Pid;

use super::event_log::{EventLog, Note};
use super::lane_registry::LaneRegistry;
use super::worker::Admitted;
use hangwatch_process::descendants::{Descendants, Excluded, IsWorker, Reach, Rights, Step};
use hangwatch_process::lineage;

/// Minimum time between two lists of the descendants of a living worker.
const PERIOD: Duration = Duration::from_millis(20);
/// A list that takes long is renewed less often: after this many times its duration.
const SHARE: u32 = 8;
/// How soon a kill continues after a pause.
const PAUSE: Duration = Duration::from_millis(2);
/// A step that takes longer than this counts as stuck.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Number of failures in a row after which a kill is given up, if the server has ended.
const FAILURES: u32 = 100;

/// The descendants of one worker, as the tick sees them.
#[derive(Debug)]
pub(super) struct KillTask {
    worker: Arc<Admitted>,
    is_listed: AtomicBool,
    /// The last attempt to list them failed.
    is_failing: AtomicBool,
    is_signalled: AtomicBool,
    is_over: AtomicBool,
    is_cancelled: AtomicBool,
    /// SIGKILL was sent to the worker, or the task ended without it.
    is_worker_killed: AtomicBool,
    /// The number of tasks that are killing.
    at_work: Arc<AtomicUsize>,
}

impl KillTask {
    /// Whether the descendants have been listed at least once.
    pub(super) fn is_listed(&self) -> bool {
        // Acquire: pairs with the Release in `ActiveTask::step`.
        self.is_listed.load(Ordering::Acquire)
    }

    /// Whether the descendants are being listed for the first time and `/proc` responds.
    pub(super) fn is_being_listed(&self) -> bool {
        !self.is_listed() && !self.is_failing.load(Ordering::Relaxed)
    }

    /// Whether the worker is to be killed and SIGKILL has not been sent yet.
    pub(super) fn is_kill_pending(&self) -> bool {
        // Acquire: pairs with the Release in `ActiveTask::step`.
        self.is_over.load(Ordering::Acquire) && !self.is_worker_killed.load(Ordering::Acquire)
    }

    /// Whether the worker is to be killed, or was killed.
    pub(super) fn is_being_removed(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Records that the worker was sent a signal that it may survive.
    pub(super) fn signalled(&self) {
        self.is_signalled.store(true, Ordering::Relaxed);
    }

    /// Cancels the task unless the kill has begun.
    pub(super) fn leave(&self) {
        if !self.is_over.load(Ordering::Acquire) {
            self.is_cancelled.store(true, Ordering::Release);
        }
    }
}

/// How the tick controls the descendant killer, without waiting.
pub(super) struct DescendantsHandle {
    /// Contains each worker at most twice.
    calls: Sender<Option<Arc<KillTask>>>,
    at_work: Arc<AtomicUsize>,
    progress: Progress,
}

/// The progress of the descendant killer. A thread waits for the killer as long as this changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

/// Checks the progress from time to time.
pub(super) struct KillerWatch {
    progress: Progress,
    seen: u64,
    changed_at: Instant,
}

impl Progress {
    pub(super) fn watch(&self) -> KillerWatch {
        KillerWatch { progress: self.clone(), seen: 0, changed_at: Instant::now() }
    }
}

impl KillerWatch {
    /// Whether there was progress within [`STANDSTILL`]. Otherwise the killer hangs, for example in `/proc`.
    pub(super) fn makes_progress(&mut self) -> bool {
        let seen = self.progress.0.load(Ordering::Relaxed);
        if seen != self.seen {
            (self.seen, self.changed_at) = (seen, Instant::now());
        }
        self.changed_at.elapsed() < STANDSTILL
    }
}

/// The descendant killer's thread.
pub(super) struct DescendantKiller {
    calls: Receiver<Option<Arc<KillTask>>>,
    segment: Segment,
    registry: LaneRegistry,
    reach: Reach,
    event_log: EventLog,
    progress: Progress,
    tasks: Vec<ActiveTask>,
}

/// A task in progress.
struct ActiveTask {
    task: Arc<KillTask>,
    reach: Reach,
    /// `None` until the worker could be read once.
    descendants: Option<Descendants>,
    /// When it continues.
    due: Instant,
    /// Number of failures in a row.
    failures: u32,
}

/// What a step of a task did, and what comes next.
enum Advanced {
    Listed(Step),
    Removed(Step),
}

/// Creates the handle and the killer.
pub(super) fn descendant_killer(
    (segment, registry): (Segment, LaneRegistry),
    reach: Reach,
    event_log: EventLog,
) -> (DescendantsHandle, DescendantKiller) {
    let (sender, calls) = channel();
    let progress = Progress::default();
    let handle =
        DescendantsHandle { calls: sender, at_work: Arc::default(), progress: progress.clone() };
    (
        handle,
        DescendantKiller {
            calls,
            segment,
            registry,
            reach,
            event_log,
            progress,
            tasks: Vec::new(),
        },
    )
}

impl DescendantsHandle {
    /// Starts a task for a worker.
    pub(super) fn start(&self, worker: &Arc<Admitted>) -> Arc<KillTask> {
        let task = Arc::new(KillTask {
            worker: Arc::clone(worker),
            is_listed: AtomicBool::new(false),
            is_failing: AtomicBool::new(false),
            is_signalled: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            is_worker_killed: AtomicBool::new(false),
            at_work: Arc::clone(&self.at_work),
        });
        // If the killer has ended, the server is ending, and its successor continues.
        let _ = self.calls.send(Some(Arc::clone(&task)));
        task
    }

    /// Kills the descendants and then the worker, which was sent SIGSTOP or has died of a signal.
    pub(super) fn kill(&self, task: &KillTask) {
        if !task.is_over.swap(true, Ordering::AcqRel) {
            self.at_work.fetch_add(1, Ordering::AcqRel);
            let _ = self.calls.send(None);
        }
    }

    /// Handles the death of a worker: its descendants are killed if it was signalled, and left otherwise.
    pub(super) fn worker_died(&self, task: &KillTask) {
        if task.is_signalled.load(Ordering::Relaxed) {
            self.kill(task);
        } else {
            task.leave();
        }
    }

    /// Returns the killer's progress.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether any task is killing.
    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::Acquire) > 0
    }
}

impl DescendantKiller {
    /// Runs tasks until the handle is dropped and no kill is in progress.
    pub(super) fn run(mut self) {
        let mut is_open = true;
        while is_open || !self.tasks.is_empty() {
            // Relaxed: readers only check that it changes.
            self.progress.0.fetch_add(1, Ordering::Relaxed);
            let next = self.tasks.iter().map(|open| open.due).min();
            let wait = next.map(|due| due.saturating_duration_since(Instant::now()));
            match self.calls.recv_timeout(wait.unwrap_or(Duration::MAX)) {
                Ok(call) => self.take(call),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    is_open = false;
                    self.tasks
                        .retain(|open| open.task.is_being_removed() && open.failures < FAILURES);
                    std::thread::sleep(wait.unwrap_or_default());
                }
            }
            while let Ok(call) = self.calls.try_recv() {
                self.take(call);
            }
            if !self.tasks.is_empty() {
                self.step();
            }
        }
    }

    fn take(&mut self, call: Option<Arc<KillTask>>) {
        let due = Instant::now();
        match call {
            Some(task) => {
                let (reach, descendants, failures) = (self.reach, None, 0);
                self.tasks.push(ActiveTask { task, reach, descendants, due, failures });
            }
            None => self.tasks.iter_mut().for_each(|open| {
                if open.task.is_kill_pending() {
                    open.due = due;
                }
            }),
        }
    }

    fn step(&mut self) {
        let excluded = self.excluded();
        let (now, event_log) = (Instant::now(), &self.event_log);
        self.tasks.retain_mut(|open| {
            self.progress.0.fetch_add(1, Ordering::Relaxed);
            let is_done = open.due <= now && open.step(&excluded, event_log);
            if is_done && open.task.is_being_removed() {
                let worker = Arc::clone(&open.task.worker);
                let removed = open.descendants.as_mut().map(Descendants::removed);
                event_log
                    .note(Note::DescendantsKilled { worker, removed: removed.unwrap_or_default() });
                open.task.at_work.fetch_sub(1, Ordering::AcqRel);
            }
            !is_done
        });
    }

    /// Lists the processes that must not be killed: the other workers of the segment, the watchdog, and its
    /// ancestors.
    ///
    /// # Errors
    /// If `/proc` cannot be read. Then no process is signalled.
    fn excluded(&self) -> std::io::Result<Excluded> {
        let is_worker = Some(is_worker(self.segment, &self.registry));
        let mut excluded = Excluded { is_worker, ..Excluded::default() };
        excluded.own_line.extend(lineage::own_line()?);
        excluded.own_line.insert(rustix::process::getpid());
        Ok(excluded)
    }
}

/// Tells whether a process is a worker: one that was admitted, or that says so itself and is about to be.
/// What a lane says is no proof: the kernel must attribute its lock to the process. Only the lanes that
/// name the process are asked about.
fn is_worker(segment: Segment, registry: &LaneRegistry) -> IsWorker {
    let (words, file) = (segment.words(), segment.file());
    let mut lanes: HashMap<Pid, BTreeSet<u32>> = HashMap::new();
    for (lane, pid) in registry.workers() {
        lanes.entry(pid).or_default().insert(lane);
    }
    for lane in 0..words.lanes_used() {
        let owner = words.lane(lane).owner();
        let is_owned = matches!(owner.state(), Some(LaneState::Attached | LaneState::Claimed));
        let claimed = i32::try_from(owner.pid()).ok().filter(|_| is_owned);
        if let Some(pid) = claimed.and_then(Pid::from_raw) {
            lanes.entry(pid).or_default().insert(lane);
        }
    }
    Box::new(move |pid| {
        for lane in lanes.get(&pid).into_iter().flatten() {
            let held = holder(file, lane_lock_byte(*lane)).map_err(std::io::Error::other)?;
            if held == Holder::Process(pid) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

impl ActiveTask {
    /// Takes the next step. Returns whether the task is complete.
    fn step(&mut self, excluded: &std::io::Result<Excluded>, event_log: &EventLog) -> bool {
        if self.task.is_cancelled.load(Ordering::Acquire) {
            return true;
        }
        let began = Instant::now();
        let unknown = |error: &std::io::Error| std::io::Error::new(error.kind(), error.to_string());
        let went_on =
            excluded.as_ref().map_err(unknown).and_then(|excluded| self.advance(excluded));
        self.task.is_failing.store(went_on.is_err(), Ordering::Relaxed);
        match went_on {
            Ok(Advanced::Removed(step)) => {
                let killed = self.descendants.as_ref().is_none_or(Descendants::is_worker_killed);
                // Release: pairs with the Acquire in `is_kill_pending`.
                self.task.is_worker_killed.store(killed || step == Step::Done, Ordering::Release);
                self.due = began + if step == Step::Pause { PAUSE } else { Duration::ZERO };
                self.failures = 0;
                step == Step::Done
            }
            Ok(Advanced::Listed(Step::More | Step::Pause)) => {
                (self.due, self.failures) = (began, 0);
                false
            }
            Ok(Advanced::Listed(Step::Done)) => {
                // Release: pairs with the Acquire in `is_listed`.
                self.task.is_listed.store(true, Ordering::Release);
                self.due = Instant::now() + PERIOD.max(began.elapsed() * SHARE);
                self.failures = 0;
                false
            }
            Err(error) => {
                // A process that cannot be checked is not signalled. The task tries again.
                self.failures += 1;
                if self.failures == 1 {
                    let pid = self.task.worker.pid();
                    event_log.note(Note::DescendantsUnlisted { pid, error: error.to_string() });
                }
                self.due = Instant::now() + PERIOD;
                false
            }
        }
    }

    /// Lists the descendants, or continues to kill them.
    fn advance(&mut self, excluded: &Excluded) -> std::io::Result<Advanced> {
        let process = &self.task.worker.process;
        let descendants = match &mut self.descendants {
            Some(descendants) => descendants,
            none => {
                let rights = Rights::Of(Some(self.task.worker.origin.users));
                let new = Descendants::new(process.pid, &process.pidfd, rights, self.reach)?;
                none.insert(new)
            }
        };
        if self.task.is_being_removed() {
            return descendants.remove(&process.pidfd, excluded).map(Advanced::Removed);
        }
        descendants.list(&process.pidfd, excluded).map(Advanced::Listed)
    }
}
