//! The undertaker of a worker's kin: the thread that finds the processes to be removed with a worker,
//! and removes them. See [`kin`](crate::kin) for who they are.
//!
//! A case is opened when a worker is condemned. Its kin is listed before the first signal, which waits
//! for that for [`BUDGET_NS`] at most, and again and again until the worker is sent SIGKILL or is dead
//! of an earlier signal; then they are killed. A worker that ends before it was signalled takes nobody
//! along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use hangwatch::sys::lock::{Holder, holder};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::lane::LaneState;
use rustix::process::Pid;

use super::facts::Admitted;
use super::journal::{Journal, Note};
use crate::exec::lineage;
use crate::kin::{Apart, Kin, Reach};

/// How long a first signal waits for the list, ns.
pub(super) const BUDGET_NS: u64 = 50_000_000;
/// How often the kin of a worker that lives is listed anew.
const PERIOD: Duration = Duration::from_millis(20);
/// How often it is looked whether those killed are dead.
const LOOK: Duration = Duration::from_millis(2);
/// How long they may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Calls that wait at most; a case that finds no room is reaped without its kin.
const CALLS: usize = 4096;

/// One worker's kin, as the tick refers to it.
#[derive(Debug)]
pub(super) struct KinCase {
    worker: Arc<Admitted>,
    is_listed: AtomicBool,
    is_signalled: AtomicBool,
    is_over: AtomicBool,
    is_cancelled: AtomicBool,
    /// How many cases are being killed.
    at_work: Arc<AtomicUsize>,
}

impl KinCase {
    /// Whether its kin has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed.load(Ordering::Acquire)
    }

    /// The worker was sent a signal that it may survive.
    pub(super) fn signalled(&self) {
        self.is_signalled.store(true, Ordering::Relaxed);
    }

    /// Its kin is not to be removed, unless that has begun.
    pub(super) fn leave(&self) {
        if !self.is_over.load(Ordering::Acquire) {
            self.is_cancelled.store(true, Ordering::Release);
        }
    }
}

/// How the tick talks to the undertaker: without waiting.
pub(super) struct KinDesk {
    calls: SyncSender<Option<Arc<KinCase>>>,
    at_work: Arc<AtomicUsize>,
}

/// The other end.
pub(super) struct Undertaker {
    calls: Receiver<Option<Arc<KinCase>>>,
    segment: Segment,
    reach: Reach,
    journal: Journal,
    cases: Vec<Open>,
}

/// A case at work.
struct Open {
    case: Arc<KinCase>,
    kin: Kin,
    killed_at: Option<Instant>,
}

/// The two ends.
pub(super) fn kin(segment: Segment, reach: Reach, journal: Journal) -> (KinDesk, Undertaker) {
    let (sender, calls) = sync_channel(CALLS);
    let desk = KinDesk { calls: sender, at_work: Arc::default() };
    (desk, Undertaker { calls, segment, reach, journal, cases: Vec::new() })
}

impl KinDesk {
    /// Opens a case. `None` where there is no room.
    pub(super) fn open(&self, worker: &Arc<Admitted>) -> Option<Arc<KinCase>> {
        let case = Arc::new(KinCase {
            worker: Arc::clone(worker),
            is_listed: AtomicBool::new(false),
            is_signalled: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            at_work: Arc::clone(&self.at_work),
        });
        self.calls.try_send(Some(Arc::clone(&case))).ok().map(|()| case)
    }

    /// The worker was sent SIGKILL: its kin follows.
    pub(super) fn kill(&self, case: &KinCase) {
        if !case.is_over.swap(true, Ordering::AcqRel) {
            self.at_work.fetch_add(1, Ordering::AcqRel);
            // Full, it is looked at within a period.
            let _ = self.calls.try_send(None);
        }
    }

    /// The worker is dead: of a signal, its kin follows; else it is left.
    pub(super) fn worker_died(&self, case: &KinCase) {
        if case.is_signalled.load(Ordering::Relaxed) {
            self.kill(case);
        } else {
            case.leave();
        }
    }

    /// Whether any kin is being killed.
    pub(super) fn is_at_work(&self) -> bool {
        self.at_work.load(Ordering::Acquire) > 0
    }
}

impl Undertaker {
    /// Works until nobody calls any more and those being killed are dead.
    pub(super) fn run(mut self) {
        let mut is_open = true;
        while is_open || !self.cases.is_empty() {
            let is_killing = self.cases.iter().any(|open| open.killed_at.is_some());
            let wait = match (self.cases.is_empty(), is_killing) {
                (true, _) => Duration::MAX,
                (false, true) => LOOK,
                (false, false) => PERIOD,
            };
            match self.calls.recv_timeout(wait) {
                Ok(call) => self.take(call),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    is_open = false;
                    self.cases.retain(|open| open.case.is_over.load(Ordering::Acquire));
                    std::thread::sleep(LOOK);
                }
            }
            while let Ok(call) = self.calls.try_recv() {
                self.take(call);
            }
            if !self.cases.is_empty() {
                self.step();
            }
        }
    }

    fn take(&mut self, call: Option<Arc<KinCase>>) {
        if let Some(case) = call {
            let kin = Kin::new(case.worker.process.pid, self.reach);
            self.cases.push(Open { case, kin, killed_at: None });
        }
    }

    fn step(&mut self) {
        let apart = self.apart();
        let journal = &self.journal;
        self.cases.retain_mut(|open| {
            let is_done = open.step(&apart);
            if is_done && open.case.is_over.load(Ordering::Acquire) {
                let (worker, removed) = (Arc::clone(&open.case.worker), open.kin.removed());
                journal.note(Note::Kin { worker, removed });
                open.case.at_work.fetch_sub(1, Ordering::AcqRel);
            }
            !is_done
        });
    }

    /// Every worker of the segment, by the kernel's word and by its own; the watchdog and those above.
    fn apart(&self) -> Apart {
        let words = self.segment.words();
        let mut apart = Apart::default();
        for lane in 0..words.lanes_used() {
            let owner = words.lane(lane).owner();
            if !matches!(owner.state(), Some(LaneState::Attached | LaneState::Claimed)) {
                continue;
            }
            let claimed = i32::try_from(owner.pid()).ok().and_then(Pid::from_raw);
            apart.workers.extend(claimed);
            if let Ok(Holder::Process(pid)) = holder(self.segment.file(), lane_lock_byte(lane)) {
                apart.workers.insert(pid);
            }
        }
        apart.own_line.extend(lineage::own_line().unwrap_or_default());
        apart.own_line.insert(rustix::process::getpid());
        apart
    }
}

impl Open {
    /// Goes on; whether that was all.
    fn step(&mut self, apart: &Apart) -> bool {
        let worker = &self.case.worker.process.pidfd;
        if self.case.is_cancelled.load(Ordering::Acquire) {
            return true;
        }
        if !self.case.is_over.load(Ordering::Acquire) {
            // What cannot be listed now may be the next time; what was found is kept.
            let _ = self.kin.list(worker, apart);
            // Release: pairs with the Acquire in `is_listed`.
            self.case.is_listed.store(true, Ordering::Release);
            return false;
        }
        let killed_at = *self.killed_at.get_or_insert_with(Instant::now);
        let is_any_sent = self.kin.kill(worker, apart);
        (!is_any_sent && self.kin.are_dead()) || killed_at.elapsed() > PATIENCE
    }
}
