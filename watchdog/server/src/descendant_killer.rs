//! The descendant killer: the thread that finds the processes to be killed with a worker, and kills them
//! and the worker. See [`descendant_killer`](hangwatch_process::descendants) for which they are and how that is done.
//!
//! A case is opened when a worker is condemned. Its descendants are listed before the first signal, which
//! waits for that, and again and again until the worker is to be killed or is dead of a gentler signal. To
//! kill the worker, the tick sends it SIGSTOP and leaves SIGKILL to this thread, which sends it last. A
//! worker that ends before it was signalled takes no other process along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use hangwatch::sys::lock::{Holder, holder};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::wire::lane::LaneState;
use rustix::process::Pid;

use super::event_log::{EventLog, Note};
use super::worker::Admitted;
use hangwatch_process::descendants::{Descendants, Excluded, Reach, Rights, Step};
use hangwatch_process::lineage;

/// How often the descendants of a worker that lives are listed anew, at most.
const PERIOD: Duration = Duration::from_millis(20);
/// A list that takes long is renewed the less often: so many times that long apart.
const SHARE: u32 = 8;
/// How soon a removal goes on after a pause.
const PAUSE: Duration = Duration::from_millis(2);
/// How long one step may take until the killer counts as stuck.
const STANDSTILL: Duration = Duration::from_secs(30);
/// Failures in a row after which a removal is given up, where nobody serves the segment any more.
const FAILURES: u32 = 100;

/// One worker's descendants, as the tick refers to them.
#[derive(Debug)]
pub(super) struct KillTask {
    worker: Arc<Admitted>,
    is_listed: AtomicBool,
    /// The last look failed.
    is_failing: AtomicBool,
    is_signalled: AtomicBool,
    is_over: AtomicBool,
    is_cancelled: AtomicBool,
    /// The worker has been sent SIGKILL, or its removal has ended without.
    is_worker_killed: AtomicBool,
    /// How many cases are being killed.
    at_work: Arc<AtomicUsize>,
}

impl KillTask {
    /// Whether its descendants have been listed once.
    pub(super) fn is_listed(&self) -> bool {
        // Acquire: pairs with the Release in `ActiveTask::step`.
        self.is_listed.load(Ordering::Acquire)
    }

    /// Whether its descendants are being listed for the first time, and `/proc` answers.
    pub(super) fn is_being_listed(&self) -> bool {
        !self.is_listed() && !self.is_failing.load(Ordering::Relaxed)
    }

    /// Whether its worker is to be killed and SIGKILL has not been sent yet.
    pub(super) fn is_kill_pending(&self) -> bool {
        // Acquire: pairs with the Release in `ActiveTask::step`.
        self.is_over.load(Ordering::Acquire) && !self.is_worker_killed.load(Ordering::Acquire)
    }

    /// Whether its worker is to be killed, or has been.
    pub(super) fn is_being_removed(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// The worker was sent a signal that it may survive.
    pub(super) fn signalled(&self) {
        self.is_signalled.store(true, Ordering::Relaxed);
    }

    /// Its descendants are not to be removed, unless that has begun.
    pub(super) fn leave(&self) {
        if !self.is_over.load(Ordering::Acquire) {
            self.is_cancelled.store(true, Ordering::Release);
        }
    }
}

/// How the tick talks to the descendant killer: without waiting.
pub(super) struct DescendantsHandle {
    /// Each worker is in it twice at most.
    calls: Sender<Option<Arc<KillTask>>>,
    at_work: Arc<AtomicUsize>,
    progress: Progress,
}

/// How far the descendant killer has come: whoever waits for it goes on waiting as long as that changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

/// A look at the progress, now and then.
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
    /// Whether it has come farther within [`STANDSTILL`]; else it is stuck, in a `/proc` that hangs.
    pub(super) fn makes_progress(&mut self) -> bool {
        let seen = self.progress.0.load(Ordering::Relaxed);
        if seen != self.seen {
            (self.seen, self.changed_at) = (seen, Instant::now());
        }
        self.changed_at.elapsed() < STANDSTILL
    }
}

/// The other end.
pub(super) struct DescendantKiller {
    calls: Receiver<Option<Arc<KillTask>>>,
    segment: Segment,
    reach: Reach,
    event_log: EventLog,
    progress: Progress,
    tasks: Vec<ActiveTask>,
}

/// A case at work.
struct ActiveTask {
    task: Arc<KillTask>,
    reach: Reach,
    /// Where the worker could be looked at once.
    descendants: Option<Descendants>,
    /// When it goes on.
    due: Instant,
    /// Looks that failed in a row.
    failures: u32,
}

/// What a step of a case was about, and how it goes on.
enum Advanced {
    Listed(Step),
    Removed(Step),
}

/// The two ends.
pub(super) fn descendant_killer(
    segment: Segment,
    reach: Reach,
    event_log: EventLog,
) -> (DescendantsHandle, DescendantKiller) {
    let (sender, calls) = channel();
    let progress = Progress::default();
    let handle =
        DescendantsHandle { calls: sender, at_work: Arc::default(), progress: progress.clone() };
    (handle, DescendantKiller { calls, segment, reach, event_log, progress, tasks: Vec::new() })
}

impl DescendantsHandle {
    /// Opens a case.
    pub(super) fn open(&self, worker: &Arc<Admitted>) -> Arc<KillTask> {
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
        // Without its other end the server is about to end, and a successor goes on.
        let _ = self.calls.send(Some(Arc::clone(&task)));
        task
    }

    /// The worker was sent SIGSTOP, or is dead of a signal: it is killed after its descendants.
    pub(super) fn kill(&self, task: &KillTask) {
        if !task.is_over.swap(true, Ordering::AcqRel) {
            self.at_work.fetch_add(1, Ordering::AcqRel);
            let _ = self.calls.send(None);
        }
    }

    /// The worker is dead: of a signal, its descendants are killed; else they are left.
    pub(super) fn worker_died(&self, task: &KillTask) {
        if task.is_signalled.load(Ordering::Relaxed) {
            self.kill(task);
        } else {
            task.leave();
        }
    }

    /// How far the killer has come.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether any worker's descendants are being killed.
    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::Acquire) > 0
    }
}

impl DescendantKiller {
    /// Works until nobody calls any more and no removal is under way.
    pub(super) fn run(mut self) {
        let mut is_open = true;
        while is_open || !self.tasks.is_empty() {
            // Relaxed: only that it changes counts.
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

    /// Every worker of the segment, by the kernel's word and by its own; the watchdog and those above.
    ///
    /// # Errors
    /// Where one of them cannot be asked about: nobody is signalled then.
    fn excluded(&self) -> std::io::Result<Excluded> {
        let words = self.segment.words();
        let mut excluded = Excluded::default();
        for lane in 0..words.lanes_used() {
            let owner = words.lane(lane).owner();
            if !matches!(owner.state(), Some(LaneState::Attached | LaneState::Claimed)) {
                continue;
            }
            let claimed = i32::try_from(owner.pid()).ok().and_then(Pid::from_raw);
            excluded.workers.extend(claimed);
            let held = holder(self.segment.file(), lane_lock_byte(lane));
            if let Holder::Process(pid) = held.map_err(std::io::Error::other)? {
                excluded.workers.insert(pid);
            }
        }
        excluded.own_line.extend(lineage::own_line()?);
        excluded.own_line.insert(rustix::process::getpid());
        Ok(excluded)
    }
}

impl ActiveTask {
    /// Goes on; whether that was all.
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
                // Nobody is signalled for what cannot be looked at. It is tried again.
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

    /// Lists them, or goes on with their removal.
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
