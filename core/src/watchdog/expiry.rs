//! Expiry: the table over a real segment. Which timers there are, whose, and which have expired.
//!
//! [`Expiry`] keeps a slot for each lane (who sits there, and whether the kernel has said so) and a
//! leaf of the [`Minima`] for each timer. A leaf says when to look at the timer word, nothing more:
//! whatever is popped is decided by the word itself, so a leaf may be early but never late.
//!
//! Here is what the tick asks of it: the sweep, what has expired, what is cleared. Who sits where is in
//! `lanes`, the leaves are in `leaves`. It asks no kernel. What it wants to know goes into [`Expiry::take_requests`]; the answers come
//! back through [`Expiry::admit`] and [`Expiry::worker_gone`].

mod lanes;
mod leaves;
mod members;
mod shadow;
mod slot;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::atomic::add_single_writer;
use crate::shared::stall::{Stall, Stalls};
use crate::watchdog::policy::Policy;
use crate::watchdog::table::{IDLE, Minima};
use crate::watchdog::tick::{Expired, Table};
use crate::watchdog::updates::Update;
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::OwnerWord;
use crate::wire::segment::{Counter, Segment};
use crate::wire::time::{Nanos, Units};
use crate::wire::timer::{Timer, TimerState, TimerWord};

use lanes::ASK_AGAIN_NS;
use leaves::is_any_due;
pub use members::Place;
pub use slot::{Admission, ExpiredTimer, Request};
use slot::{Phase, Slot};

/// How soon a due timer whose lane's owner is not yet proved is looked at again, ns; later the longer
/// the kernel has been asked.
const UNPROVED_RETRY_NS: u64 = 1_000_000;
/// A word no timer that is looked at has: it names no state.
const NOT_DEFERRED: TimerWord = TimerWord::from_bits(u64::MAX);

/// The table over a segment.
pub struct Expiry<'a> {
    segment: Segment<'a>,
    minima: Minima,
    slots: Vec<Slot>,
    /// Of each lane which process gave it back last, by its own word, and when that was seen.
    given_back: Vec<(u32, Nanos)>,
    /// The word for which a timer's leaf was put off, for a retry or a credit: as long as the word is
    /// that, neither the sweep nor updates of the timer move the leaf.
    deferred: Vec<TimerWord>,
    stalls: Stalls,
    warn: Option<Warnings>,
    shadow: Option<shadow::Follower>,
    now: Nanos,
    requests: Vec<Request>,
    recycle: Vec<(u32, OwnerWord)>,
}

/// Which arming of each timer has been warned of.
struct Warnings {
    policy: Policy,
    warned: Vec<u64>,
}

impl<'a> Expiry<'a> {
    /// A table that knows nothing yet: the lanes are updates.
    pub fn new(segment: Segment<'a>, policy: Policy, now: Nanos) -> Self {
        let geometry = segment.geometry();
        let timers = geometry.lanes as usize * geometry.timers as usize;
        let warn = policy.warn_at.map(|_| Warnings { policy, warned: alloc::vec![0; timers] });
        let vacant = Slot { owner: OwnerWord(0), phase: Phase::Vacant };
        Expiry {
            segment,
            minima: Minima::new(timers),
            slots: alloc::vec![vacant; geometry.lanes as usize],
            given_back: alloc::vec![(0, Nanos(0)); geometry.lanes as usize],
            deferred: alloc::vec![NOT_DEFERRED; timers],
            stalls: segment.stalls(now),
            warn,
            shadow: shadow::Follower::new(&policy, timers),
            now,
            requests: Vec::new(),
            recycle: Vec::new(),
        }
    }

    /// Changes from when on a timer is warned of, and whether a shadow follows them. No timer is warned
    /// of twice for that.
    pub fn set_policy(&mut self, policy: Policy) {
        self.follow_policy(&policy);
        let warned = self.warn.take().map(|warn| warn.warned);
        let timers = self.deferred.len();
        self.warn = policy.warn_at.map(|_| {
            let warned = warned.unwrap_or_else(|| alloc::vec![0; timers]);
            Warnings { policy, warned }
        });
        for lane in 0..self.segment.lanes_used() {
            self.refresh_lane(lane);
            if self.worker_of(lane).is_some() {
                self.resume_following(lane);
            }
        }
        // Put off for ever where nobody was to be signalled.
        self.look_anew_at(TimerState::Condemned);
    }

    /// What is to be asked or told since the last call; who owns a lane is asked last, and first of
    /// the lane whose next deadline is the nearest.
    pub fn take_requests(&mut self) -> Vec<Request> {
        let mut requests = core::mem::take(&mut self.requests);
        requests.sort_by_cached_key(|request| match request {
            Request::Admit { lane, .. } => {
                Some(self.ids(*lane).map(|id| self.minima.get(id)).min().unwrap_or(IDLE))
            }
            _ => None,
        });
        requests
    }

    /// Looks at a worker's condemned timers at once, however long they were put off for.
    pub fn look_again(&mut self, worker: WorkerId) {
        for lane in 0..self.segment.lanes_used() {
            if self.slots[lane as usize].phase != Phase::Admitted(worker) {
                continue;
            }
            for (index, word) in self.segment.lane_timers(lane).iter().enumerate() {
                let word = Timer(word).load();
                if word.state() == Some(TimerState::Condemned) {
                    self.deferred(self.id(lane, index), word, self.now);
                }
            }
        }
    }

    /// The kill limiter was released: the timers that it excluded are looked at again.
    pub fn judge_again(&mut self) {
        self.look_anew_at(TimerState::Limited);
    }

    /// Looks at all timers in this state by their words, however long they were put off for.
    fn look_anew_at(&mut self, state: TimerState) {
        for lane in 0..self.segment.lanes_used() {
            if !self.slots[lane as usize].is_taken() {
                continue;
            }
            for (index, word) in self.segment.lane_timers(lane).iter().enumerate() {
                if Timer(word).load().state() == Some(state) {
                    let id = self.id(lane, index);
                    self.deferred[id] = NOT_DEFERRED;
                    self.refresh(lane, index);
                }
            }
        }
    }

    /// The lane whose timer is due next, and when it is to be looked at: what a reaper may prepare
    /// for.
    pub fn next_lane(&self) -> Option<(u32, Nanos)> {
        let id = self.minima.first()?;
        let lane = id / self.segment.geometry().timers as usize;
        Some((lane as u32, Nanos(self.minima.get(id))))
    }

    /// The condemned timers of these workers, which are sorted: lane, index and word of each.
    fn condemned_of(&self, workers: &[WorkerId]) -> Vec<(u32, usize, TimerWord)> {
        let is_theirs = |lane: &u32| match self.slots[*lane as usize].phase {
            Phase::Admitted(worker) => workers.binary_search(&worker).is_ok(),
            _ => false,
        };
        let timers_of = |lane: u32| {
            let timers = self.segment.lane_timers(lane).iter().enumerate();
            timers.map(move |(index, word)| (lane, index, Timer(word).load()))
        };
        let lanes = (0..self.segment.lanes_used()).filter(is_theirs);
        let timers = lanes.flat_map(timers_of);
        timers.filter(|(_, _, word)| word.state() == Some(TimerState::Condemned)).collect()
    }

    /// One timer that the minima popped: expired, or to be looked at later.
    fn popped(&mut self, id: usize, now: Nanos, due: &mut Due) {
        let timers = self.segment.geometry().timers as usize;
        let (lane, index) = ((id / timers) as u32, id % timers);
        let place = self.segment.lane(lane);
        let Some(word) = place.timer(index).map(Timer::load) else {
            return;
        };
        let phase = self.slots[lane as usize].phase;
        match word.state() {
            None => return self.quarantine(lane),
            Some(TimerState::Armed | TimerState::Condemned | TimerState::Limited) => {}
            Some(_) => return,
        }
        let Some(detail) = place.read_detail(index, word) else {
            return self.refresh(lane, index);
        };
        let deadline = self.stalls.credited(detail.acquired_at, word.deadline().begins());
        let expired = ExpiredTimer { lane, timer: index as u16, word, detail, deadline };
        if word.state() == Some(TimerState::Armed) && deadline > now {
            return self.not_yet(id, expired, now);
        }
        match phase {
            Phase::Admitted(worker) => {
                if word.state() == Some(TimerState::Armed) {
                    self.follow(expired);
                }
                due.add(worker, expired);
            }
            Phase::Asked(at) => {
                let retry_ns = now.since(at).clamp(UNPROVED_RETRY_NS, ASK_AGAIN_NS);
                self.deferred(id, word, now.plus(retry_ns));
            }
            Phase::Unattestable(_) => self.unattestable(id, expired),
            Phase::Vacant | Phase::Quarantined(_) => {}
        }
    }

    /// Popped before its deadline: for its warning, or because a stall was credited to it.
    fn not_yet(&mut self, id: usize, expired: ExpiredTimer, now: Nanos) {
        let mut look_at = expired.deadline;
        if let Some(warn) = &mut self.warn
            && warn.warned[id] != expired.word.bits()
        {
            let at = warn.policy.warn_time(expired.detail.acquired_at, expired.deadline);
            match at {
                Some(at) if at > now => look_at = look_at.min(at),
                Some(_) => {
                    warn.warned[id] = expired.word.bits();
                    self.requests.push(Request::Warning(expired));
                }
                None => {}
            }
        }
        if self.shadow.is_some() {
            look_at = look_at.min(self.look_for_overrun(expired, now));
        }
        self.deferred(id, expired.word, look_at);
    }

    /// Reported once: the word says so, for a successor too. Condemned or excluded by a watchdog that
    /// could prove its owner, it stays so.
    fn unattestable(&mut self, id: usize, expired: ExpiredTimer) {
        let place = self.segment.lane(expired.lane).timer(usize::from(expired.timer));
        if expired.word.state() != Some(TimerState::Armed) {
            self.deferred(id, expired.word, Nanos::NEVER);
        } else if place.is_some_and(|timer| timer.report(expired.word)) {
            add_single_writer(self.segment.counter(Counter::Expired), 1);
            add_single_writer(self.segment.counter(Counter::Reported), 1);
        } else {
            return; // changed by its worker first
        }
        self.requests.push(Request::Unattestable(expired));
    }
}

/// Expired timers, gathered by worker in the order of their deadlines.
#[derive(Default)]
struct Due {
    by_worker: BTreeMap<WorkerId, usize>,
    expired: Vec<Expired<WorkerId, ExpiredTimer>>,
}

impl Due {
    fn add(&mut self, worker: WorkerId, timer: ExpiredTimer) {
        let place = *self.by_worker.entry(worker).or_insert_with(|| {
            self.expired.push(Expired { worker, timers: Vec::new() });
            self.expired.len() - 1
        });
        self.expired[place].timers.push(timer);
    }
}

impl Table for Expiry<'_> {
    type Update = Update;
    type Worker = WorkerId;
    type Timer = ExpiredTimer;

    fn apply(&mut self, update: Update) {
        match update {
            Update::Timers { lane, first, timers } => {
                self.refresh_some(lane, first.into(), timers);
            }
            Update::Lapped { lane } => self.refresh_lane(lane),
            Update::Owner { lane, owner } => self.owner_changed(lane, owner),
            Update::Garbage { lane } => self.quarantine(lane),
        }
    }

    fn next_deadline(&self) -> Nanos {
        if self.recycle.is_empty() { Nanos(self.minima.next_deadline()) } else { self.now }
    }

    fn sweep(&mut self, now: Nanos) {
        self.now = now;
        let today = Units::begun_by(now);
        for lane in 0..self.segment.lanes_used() {
            if is_any_due(self.armed_timers(lane), today) {
                self.sweep_lane(lane, today);
            }
        }
        self.ask_again();
        self.count_ended(now);
        self.recycle_some();
    }

    fn expired(&mut self, now: Nanos) -> Vec<Expired<WorkerId, ExpiredTimer>> {
        self.now = now;
        if self.minima.next_deadline() > now.0 {
            return Vec::new();
        }
        let mut popped = Vec::new();
        self.minima.pop_due(now.0, |id, _| popped.push(id));
        let mut due = Due::default();
        for id in popped {
            self.popped(id, now, &mut due);
        }
        due.expired
    }

    fn keep(&mut self, expired: Expired<WorkerId, ExpiredTimer>, again_at: Nanos) {
        for timer in expired.timers {
            let index = usize::from(timer.timer);
            let place = self.segment.lane(timer.lane).timer(index);
            let word = place.map_or(timer.word, Timer::load);
            if word.is_of_arming(timer.word) {
                self.deferred(self.id(timer.lane, index), word, again_at);
            } else {
                // Released and armed anew meanwhile: another deadline, and maybe no update of it.
                self.refresh(timer.lane, index);
            }
        }
    }

    fn clear(&mut self, workers: &[WorkerId]) {
        for (lane, index, _) in self.condemned_of(workers) {
            self.segment.end_timer(lane, index as u16);
            self.minima.set(self.id(lane, index), IDLE);
        }
    }

    fn give_up(&mut self, workers: &[WorkerId]) {
        for (lane, index, word) in self.condemned_of(workers) {
            if self.segment.lane(lane).timer(index).is_some_and(|timer| timer.give_up(word)) {
                self.refresh(lane, index);
            }
        }
    }

    fn credit(&mut self, stall: Stall) {
        self.segment.credit_stall(stall);
        self.stalls = self.segment.stalls(stall.until);
        add_single_writer(self.segment.counter(Counter::Stalls), 1);
    }
}
