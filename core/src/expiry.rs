//! Expiry: the table over a real segment. Which timers there are, whose, and which have expired.
//!
//! [`Expiry`] keeps a seat for each lane (who sits there, and whether the kernel has said so) and a
//! leaf of the [`Minima`] for each timer. A leaf says when to look at the timer word, nothing more:
//! whatever is popped is decided by the word itself, so a leaf may be early but never late.
//!
//! It asks no kernel. What it wants to know goes into [`Expiry::take_requests`]; the answers come
//! back through [`Expiry::admit`] and [`Expiry::worker_gone`].

mod members;
mod seat;
mod shadow;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::atomic::{AtomicU64, Ordering, add_single_writer};
use crate::crash;
use crate::lane::{LaneState, OwnerWord};
use crate::news::News;
use crate::policy::Policy;
use crate::segment::{Counter, Segment};
use crate::stall::{Stall, Stalls};
use crate::table::{IDLE, Minima};
use crate::tick::{Expired, Table};
use crate::time::{Nanos, Units};
use crate::timer::{Timer, TimerState, TimerWord};

pub use members::Place;
pub use seat::{Admission, ExpiredTimer, Request, WorkerId};
use seat::{Phase, Seat};

/// How soon a due timer whose lane's owner is not yet proved is looked at again, ns; later the longer
/// the kernel has been asked.
const UNPROVED_RETRY_NS: u64 = 1_000_000;
/// How often the kernel is asked again about a lane nobody could be proved to own, ns.
const ASK_AGAIN_NS: u64 = 500_000_000;
/// How many lanes one tick recycles at most: the rest waits for the next.
const RECYCLED_A_TICK: usize = 64;
/// A word no timer that is looked at has: it names no state.
const NOT_PUT_OFF: TimerWord = TimerWord::from_bits(u64::MAX);

/// The table over a segment.
pub struct Expiry<'a> {
    segment: Segment<'a>,
    minima: Minima,
    seats: Vec<Seat>,
    /// The word for which a timer's leaf was put off, for a retry or a credit: as long as the word is
    /// that, neither the sweep nor news of the timer move the leaf.
    put_off: Vec<TimerWord>,
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
    /// A table that knows nothing yet: the lanes are news.
    pub fn new(segment: Segment<'a>, policy: Policy, now: Nanos) -> Self {
        let geometry = segment.geometry();
        let timers = geometry.lanes as usize * geometry.timers as usize;
        let warn = policy.warn_at.map(|_| Warnings { policy, warned: alloc::vec![0; timers] });
        let vacant = Seat { owner: OwnerWord(0), phase: Phase::Vacant };
        Expiry {
            segment,
            minima: Minima::new(timers),
            seats: alloc::vec![vacant; geometry.lanes as usize],
            put_off: alloc::vec![NOT_PUT_OFF; timers],
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
        let timers = self.put_off.len();
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

    /// The kernel's answer about a lane.
    pub fn admit(&mut self, lane: u32, owner: OwnerWord, admission: Admission) {
        let Some(seat) = self.seats.get_mut(lane as usize) else {
            return;
        };
        if seat.owner != owner {
            return; // the answer is about an earlier owner
        }
        match admission {
            Admission::Gone => self.recycle.push((lane, owner)),
            Admission::Worker(worker) if !seat.is_quarantined() => {
                self.seat(lane, Phase::Admitted(worker));
                self.resume_following(lane);
            }
            Admission::Unattestable if matches!(seat.phase, Phase::Unattestable(_)) => {
                seat.phase = Phase::Unattestable(self.now);
            }
            Admission::Unattestable if !seat.is_quarantined() => {
                self.seat(lane, Phase::Unattestable(self.now));
            }
            Admission::Worker(_) | Admission::Unattestable | Admission::Unknown => {}
        }
    }

    /// Gives a lane's owner a new standing, and looks at all its timers in the light of it.
    fn seat(&mut self, lane: u32, phase: Phase) {
        self.seats[lane as usize].phase = phase;
        let ids = self.ids(lane);
        self.put_off[ids].fill(NOT_PUT_OFF);
        self.refresh_lane(lane);
    }

    /// A worker's process is dead, or has exec'd: its lanes are recycled.
    pub fn worker_gone(&mut self, worker: WorkerId) {
        for (lane, seat) in self.seats.iter().enumerate() {
            if seat.phase == Phase::Admitted(worker) {
                self.recycle.push((lane as u32, seat.owner));
            }
        }
    }

    /// Looks at a worker's condemned timers at once, however long they were put off for.
    pub fn look_again(&mut self, worker: WorkerId) {
        for lane in 0..self.segment.lanes_used() {
            if self.seats[lane as usize].phase != Phase::Admitted(worker) {
                continue;
            }
            for (index, word) in self.segment.lane_timers(lane).iter().enumerate() {
                let word = Timer(word).load();
                if word.state() == Some(TimerState::Condemned) {
                    self.put_off(self.id(lane, index), word, self.now);
                }
            }
        }
    }

    /// The worker that owns a lane, where the kernel has said so.
    pub fn worker_of(&self, lane: u32) -> Option<WorkerId> {
        match self.seats.get(lane as usize)?.phase {
            Phase::Admitted(worker) => Some(worker),
            _ => None,
        }
    }

    /// The brake was released: the timers that it spared are looked at again.
    pub fn judge_again(&mut self) {
        for lane in 0..self.segment.lanes_used() {
            if !self.seats[lane as usize].is_taken() {
                continue;
            }
            for (index, word) in self.segment.lane_timers(lane).iter().enumerate() {
                if Timer(word).load().state() == Some(TimerState::Braked) {
                    let id = self.id(lane, index);
                    self.put_off[id] = NOT_PUT_OFF;
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

    /// Whether a lane is quarantined.
    pub fn is_quarantined(&self, lane: u32) -> bool {
        self.seats.get(lane as usize).is_some_and(Seat::is_quarantined)
    }

    fn id(&self, lane: u32, timer: usize) -> usize {
        lane as usize * self.segment.geometry().timers as usize + timer
    }

    fn ids(&self, lane: u32) -> core::ops::Range<usize> {
        self.id(lane, 0)..self.id(lane + 1, 0)
    }

    /// Sets a timer's leaf by its word.
    fn refresh(&mut self, lane: u32, index: usize) {
        let first = index - index % 64;
        self.refresh_some(lane, first, 1 << (index - first));
    }

    /// Sets the leaves of the timers `first + n` by their words, for every bit `n` of `timers`.
    fn refresh_some(&mut self, lane: u32, first: usize, mut timers: u64) {
        if !self.seats[lane as usize].is_taken() {
            return;
        }
        let words = self.segment.lane_timers(lane);
        let ids = self.id(lane, 0);
        let may_be_early = self.warn.is_some() || self.shadow.is_some();
        while timers != 0 {
            let index = first + timers.trailing_zeros() as usize;
            timers &= timers - 1;
            let Some(word) = words.get(index).map(|word| Timer(word).load()) else {
                return;
            };
            if word.state().is_none() {
                return self.quarantine(lane);
            }
            let id = ids + index;
            if self.put_off[id] == word {
                continue; // its leaf says more than its word
            }
            let mut look_at = word.look_at();
            if may_be_early && word.state() == Some(TimerState::Armed) {
                look_at = look_at.min(self.look_early(lane, index, word));
            }
            self.minima.set(id, look_at.0);
        }
    }

    /// When an armed timer is looked at before its deadline: for its warning, or as a shadow.
    fn look_early(&mut self, lane: u32, index: usize, word: TimerWord) -> Nanos {
        let mut look_at = Nanos::NEVER;
        if self.warn.is_some() {
            look_at = self.warn_time(lane, index, word);
        }
        if self.shadow.is_some() {
            look_at = look_at.min(self.overrun_at(lane, index, word));
        }
        look_at
    }

    fn warn_time(&self, lane: u32, index: usize, word: TimerWord) -> Nanos {
        let detail = self.segment.lane(lane).read_detail(index, word);
        let (Some(warn), Some(detail)) = (&self.warn, detail) else {
            return Nanos::NEVER;
        };
        if warn.warned[self.id(lane, index)] == word.bits() {
            return Nanos::NEVER;
        }
        let deadline = word.deadline().begins();
        warn.policy.warn_time(detail.acquired_at, deadline).unwrap_or(Nanos::NEVER)
    }

    fn refresh_lane(&mut self, lane: u32) {
        for first in (0..self.segment.geometry().timers as usize).step_by(64) {
            self.refresh_some(lane, first, u64::MAX);
        }
    }

    fn quarantine(&mut self, lane: u32) {
        if self.seats[lane as usize].is_quarantined() {
            return;
        }
        self.seats[lane as usize].phase = Phase::Quarantined(self.now);
        self.segment.lane(lane).quarantine();
        self.minima.clear_block(self.ids(lane));
        add_single_writer(self.segment.counter(Counter::Quarantined), 1);
        self.requests.push(Request::Quarantined { lane });
    }

    /// A lane's owner word changed.
    fn owner_changed(&mut self, lane: u32, owner: OwnerWord) {
        let ids = self.ids(lane);
        self.minima.clear_block(ids.clone());
        self.put_off[ids].fill(NOT_PUT_OFF);
        self.seats[lane as usize] = Seat { owner, phase: Phase::Vacant };
        match owner.state() {
            Some(LaneState::Free) => {}
            // Half-way: asked about too, in case its claimant died there.
            Some(LaneState::Claimed) => self.ask(lane),
            Some(LaneState::Attached) => {
                self.ask(lane);
                self.refresh_lane(lane);
            }
            Some(LaneState::Detached | LaneState::Recycling) => self.recycle.push((lane, owner)),
            None => self.quarantine(lane),
        }
    }

    fn ask(&mut self, lane: u32) {
        let seat = &mut self.seats[lane as usize];
        seat.phase = match seat.phase {
            Phase::Quarantined(_) => Phase::Quarantined(self.now),
            Phase::Unattestable(_) => Phase::Unattestable(self.now),
            _ => Phase::Asked(self.now),
        };
        self.requests.push(Request::Admit { lane, owner: seat.owner });
    }

    /// Asks again about lanes whose owner is not proved; about a quarantined one too: it may be dead.
    fn ask_again(&mut self) {
        for lane in 0..self.segment.lanes_used() {
            let (Phase::Asked(at) | Phase::Unattestable(at) | Phase::Quarantined(at)) =
                self.seats[lane as usize].phase
            else {
                continue;
            };
            if self.now.since(at) >= ASK_AGAIN_NS {
                self.ask(lane);
            }
        }
    }

    /// Frees lanes whose owners are known to be gone, a bounded number a tick.
    fn recycle_some(&mut self) {
        for _ in 0..RECYCLED_A_TICK {
            let Some((lane, owner)) = self.recycle.pop() else {
                return;
            };
            let place = self.segment.lane(lane);
            if self.seats[lane as usize].owner != owner {
                continue;
            }
            // Where a worker claimed a detached lane first, its claim is news on the next tick.
            let Some(recycling) = place.begin_recycling(owner) else {
                continue;
            };
            crash::point("recycling");
            self.segment.fold_lane(lane);
            crash::point("folded");
            place.end_recycling(recycling);
            crash::point("recycled");
            self.minima.clear_block(self.ids(lane));
            self.seats[lane as usize].phase = Phase::Vacant;
            add_single_writer(self.segment.counter(Counter::Recycled), 1);
        }
    }

    /// One timer that the minima popped: expired, or to be looked at later.
    fn popped(&mut self, id: usize, now: Nanos, due: &mut Due) {
        let timers = self.segment.geometry().timers as usize;
        let (lane, index) = ((id / timers) as u32, id % timers);
        let place = self.segment.lane(lane);
        let Some(word) = place.timer(index).map(Timer::load) else {
            return;
        };
        let phase = self.seats[lane as usize].phase;
        match word.state() {
            None => return self.quarantine(lane),
            Some(TimerState::Armed | TimerState::Condemned | TimerState::Braked) => {}
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
                self.put_off(id, word, now.plus(retry_ns));
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
        self.put_off(id, expired.word, look_at);
    }

    /// Reported once: the word says so, for a successor too. Condemned or spared by a watchdog that
    /// could prove its owner, it stays so.
    fn unattestable(&mut self, id: usize, expired: ExpiredTimer) {
        let place = self.segment.lane(expired.lane).timer(usize::from(expired.timer));
        if expired.word.state() != Some(TimerState::Armed) {
            self.put_off(id, expired.word, Nanos::NEVER);
        } else if place.is_some_and(|timer| timer.report(expired.word)) {
            add_single_writer(self.segment.counter(Counter::Expired), 1);
            add_single_writer(self.segment.counter(Counter::Reported), 1);
        } else {
            return; // changed by its worker first
        }
        self.requests.push(Request::Unattestable(expired));
    }

    fn put_off(&mut self, id: usize, word: TimerWord, until: Nanos) {
        self.put_off[id] = word;
        self.minima.set(id, until.0);
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
    type News = News;
    type Worker = WorkerId;
    type Timer = ExpiredTimer;

    fn apply(&mut self, news: News) {
        match news {
            News::Timers { lane, first, timers } => {
                self.refresh_some(lane, first.into(), timers);
            }
            News::Lapped { lane } => self.refresh_lane(lane),
            News::Owner { lane, owner } => self.owner_changed(lane, owner),
            News::Garbage { lane } => self.quarantine(lane),
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
                self.put_off(self.id(timer.lane, index), word, again_at);
            } else {
                // Released and armed anew meanwhile: another deadline, and maybe no news of it.
                self.refresh(timer.lane, index);
            }
        }
    }

    fn clear(&mut self, workers: &[WorkerId]) {
        for lane in 0..self.segment.lanes_used() {
            let Phase::Admitted(worker) = self.seats[lane as usize].phase else {
                continue;
            };
            if workers.binary_search(&worker).is_err() {
                continue;
            }
            let place = self.segment.lane(lane);
            for index in 0..place.timers().len() {
                let word = place.timer(index).map(Timer::load);
                if word.and_then(TimerWord::state) == Some(TimerState::Condemned) {
                    self.segment.end_timer(lane, index as u16);
                    self.minima.set(self.id(lane, index), IDLE);
                }
            }
        }
    }

    fn credit(&mut self, stall: Stall) {
        self.segment.credit_stall(stall);
        self.stalls = self.segment.stalls(stall.until);
        add_single_writer(self.segment.counter(Counter::Stalls), 1);
    }
}

impl<'a> Expiry<'a> {
    /// The timers a sweep looks at: none of a lane that is nobody's, or does not exist.
    fn armed_timers(&self, lane: u32) -> &'a [AtomicU64] {
        match self.seats.get(lane as usize) {
            Some(seat) if seat.is_taken() && seat.owner.state() == Some(LaneState::Attached) => {
                let timers = self.segment.lane_timers(lane);
                &timers[..self.segment.lane_header(lane).high_water().min(timers.len())]
            }
            _ => &[],
        }
    }

    /// Sets the leaves of a lane's due timers that no news told of.
    fn sweep_lane(&mut self, lane: u32, today: Units) {
        let place = self.segment.lane(lane);
        for index in 0..place.timers().len() {
            let id = self.id(lane, index);
            let Some(word) = place.timer(index).map(Timer::load) else {
                return;
            };
            if word.is_due(today) && self.minima.get(id) > self.now.0 && self.put_off[id] != word {
                self.refresh(lane, index);
            }
        }
    }
}

/// Whether any of the timers is due.
#[inline]
fn is_any_due(timers: &[AtomicU64], today: Units) -> bool {
    // Relaxed: the pop reads the word again. Counted, not asked one by one: no branch for each.
    let due = |word: &AtomicU64| TimerWord::from_bits(word.load(Ordering::Relaxed)).is_due(today);
    timers.iter().map(|word| usize::from(due(word))).sum::<usize>() != 0
}
