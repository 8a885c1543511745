//! A lane as its owner sees it: idle timers, ring writer, statistics, clock. One thread at a time. How
//! it comes to it is in `attach`; here is the hot path.

use std::time::Duration;

use hangwatch_core::shared::wake::Wake;
use hangwatch_core::wire::clock::ClockKind;
use hangwatch_core::wire::lane::{Lane, OwnerWord, Subject};
use hangwatch_core::wire::layout::LANE_GROUPS;
use hangwatch_core::wire::meeting::{GroupId, Meeting};
use hangwatch_core::wire::record::{Operation, Place};
use hangwatch_core::wire::ring::RingWriter;
use hangwatch_core::wire::scope::{OTHER, ScopeId, ScopeName};
use hangwatch_core::wire::stats::{ScopeStats, StatsWords};
use hangwatch_core::wire::time::{MAX_TIMEOUT, Nanos, Units, duration_ns};
use hangwatch_core::wire::timer::{Released, Timer, TimerState, TimerWord};

use crate::error::AcquireError;
use crate::labels::Labels;
use crate::mapped::lock;
use crate::ptracer::Ptracer;
use crate::sys::crash;
use crate::sys::fork::Canary;
use crate::timing::Timing;

mod attach;
mod pool;

pub(crate) use pool::LanePool;

/// What an attach asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LaneOptions {
    pub(crate) clock: ClockKind,
    pub(crate) labels: Labels,
    pub(crate) ptracer: Ptracer,
}

/// No lane's index.
const NO_LANE: u32 = u32::MAX;

/// A lane this process owns, in the hands of one thread.
pub(crate) struct LaneOwner {
    pub(crate) pool: &'static LanePool,
    /// Copies of the segment's, close at hand: they are asked on every call.
    key: u64,
    canary: Canary,
    pub(crate) index: u32,
    /// Which lane's timers the hot path may release here: this one's, or [`NO_LANE`] while `inherited`
    /// is not empty.
    released_here: u32,
    pub(crate) options: &'static LaneOptions,
    lane: Lane<'static>,
    owner: OwnerWord,
    ring: RingWriter<'static>,
    wake: Wake<'static>,
    /// Idle timers, the last released on top. Those that another thread released are looked for when
    /// this runs out.
    idle: Vec<u16>,
    /// Timers that an earlier thread left in the lane when it ended, with handles in other threads.
    inherited: Vec<u16>,
    /// How many of the first timers this owner has armed at all.
    high_water: u16,
    /// The statistics block of each scope, by its id; `None` where none is chosen yet.
    blocks: Box<[Option<&'static StatsWords>]>,
    /// The groups whose meetings this owner has entered, by their slot in the lane.
    attended: Vec<GroupId>,
    timing: Timing,
}

/// A timer that was armed: where it is and what it was. Kept small: a guard is little more, and what
/// it is made of must be in memory before the release's locked instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    pub(crate) pool: &'static LanePool,
    pub(crate) acquired_at: Nanos,
    pub(crate) subject: Subject,
    pub(crate) index: u16,
}

impl Armed {
    /// The timer in shared memory; the mapping lives as long as the process.
    pub(crate) fn timer(&self) -> Timer<'static> {
        let lane = self.pool.mapped.words.lane(self.subject.lane());
        lane.timer(self.index.into()).expect("it was armed in that lane")
    }

    /// Its lane and index.
    pub(crate) fn place(&self) -> (u32, u16) {
        (self.subject.lane(), self.index)
    }

    /// Notes that its last handle has ended and left the timer condemned.
    pub(crate) fn ended_late(&self) {
        self.pool.returned.ended_late(self.subject.lane(), self.index);
    }
}

/// Checks what a caller gives as a deadline.
#[inline]
pub(crate) fn timeout_ns(timeout: Duration) -> Result<u64, AcquireError> {
    if timeout.is_zero() {
        return Err(AcquireError::Zero);
    }
    if timeout > MAX_TIMEOUT {
        return Err(AcquireError::Absurd { asked: timeout });
    }
    Ok(duration_ns(timeout))
}

impl LaneOwner {
    /// Collects all idle timers of the lane. An idle timer has no handle, so each may be armed.
    #[cold]
    fn find_idle(&mut self) {
        self.idle.clear();
        for index in (0..self.lane.timers().len() as u16).rev() {
            // Acquire, in `load`: pairs with the release that made it idle in another thread.
            let Some(word) = self.lane.timer(index.into()).map(Timer::load) else { continue };
            let is_idle = match word.state() {
                Some(TimerState::Idle) => true,
                Some(TimerState::Reported) => self.end_given_up(index, word),
                _ => false,
            };
            if is_idle {
                self.idle.push(index);
            }
        }
        let idle = &self.idle;
        self.inherited.retain(|index| !idle.contains(index));
        self.choose_release();
    }

    /// Takes the inherited timers that are idle by now.
    fn take_inherited(&mut self) {
        let (lane, idle) = (self.lane, &mut self.idle);
        self.inherited.retain(|&index| {
            let word = lane.timer(index.into()).map(Timer::load);
            let is_idle = word.and_then(TimerWord::state) == Some(TimerState::Idle);
            if is_idle {
                idle.push(index);
            }
            !is_idle
        });
        self.choose_release();
    }

    /// A release on the hot path says nothing to `inherited`: it is not taken while that matters.
    fn choose_release(&mut self) {
        self.released_here = if self.inherited.is_empty() { self.index } else { NO_LANE };
    }

    /// Makes a timer idle whose handle ended while it was condemned, and whose reap failed after that.
    /// Returns whether it is one.
    fn end_given_up(&mut self, index: u16, word: TimerWord) -> bool {
        if !self.pool.returned.take(self.index, index) {
            return false;
        }
        if let Some(detail) = self.lane.read_detail(index.into(), word) {
            let took_ns = self.now().since(detail.acquired_at);
            self.stats(detail.scope).reported(took_ns);
        }
        Timer(&self.lane.timers()[usize::from(index)]).release(word) == Released::Reported
    }

    /// Whether this lane is of the segment `key`, and of this very process.
    #[inline]
    pub(crate) fn is_of(&self, key: u64) -> bool {
        self.key == key && !self.canary.forked()
    }

    /// Whether `armed` is a timer of this lane, armed by this very process.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn armed(&self, armed: &Armed) -> bool {
        // A forked child has another pool of the same segment, whatever lanes it takes.
        std::ptr::eq(self.pool, armed.pool)
            && self.released_here == armed.subject.lane()
            && !self.canary.forked()
    }

    /// Whether this is a forked child, and the lane its parent's.
    pub(crate) fn is_parents(&self) -> bool {
        self.canary.forked()
    }

    /// Whether a timer can be had, looking for those that were given back.
    #[inline]
    pub(crate) fn has_idle(&mut self) -> bool {
        if self.idle.is_empty() {
            self.find_idle();
        }
        !self.idle.is_empty()
    }

    /// The time by this lane's clock.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn now(&mut self) -> Nanos {
        self.timing.now(&self.pool.mapped.words)
    }

    /// When a deadline `timeout_ns` from the present is due.
    #[inline]
    pub(crate) fn deadline_after(&mut self, timeout_ns: u64) -> Units {
        let now = self.now();
        self.timing.deadline(now, timeout_ns)
    }

    /// The timers that this thread has armed, and the words that were found in them.
    pub(crate) fn armed_timers(&self) -> impl Iterator<Item = (Armed, TimerWord)> + '_ {
        let own = |index: &usize| !self.inherited.contains(&(*index as u16));
        (0..self.lane.timers().len()).filter(own).filter_map(|index| {
            let word = self.lane.timer(index)?.load();
            if word.state() != Some(TimerState::Armed) {
                return None;
            }
            let detail = self.lane.read_detail(index, word)?;
            let subject = Subject::new(detail.scope, detail.signal, detail.kind);
            let subject = subject.in_lane(self.index);
            let acquired_at = detail.acquired_at;
            Some((Armed { pool: self.pool, acquired_at, subject, index: index as u16 }, word))
        })
    }

    /// Takes an idle timer, to be armed. `None` where this thread knows of none.
    #[inline]
    pub(crate) fn take_idle(&mut self) -> Option<u16> {
        self.idle.pop()
    }

    /// Arms a timer that was taken, and says what word it left in it. `at` is the time where the
    /// caller knows it already.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn arm(
        &mut self,
        index: u16,
        subject: Subject,
        timeout_ns: u64,
        at: Option<Nanos>,
    ) -> (Armed, TimerWord) {
        let place = usize::from(index);
        let subject = subject.in_lane(self.index);
        let now = at.unwrap_or_else(|| self.now());
        let deadline = self.timing.deadline(now, timeout_ns);
        if index >= self.high_water {
            self.high_water = index + 1;
            self.lane.raise_high_water(place + 1);
        }
        let stats = self.stats_of(subject.scope(), index);
        self.lane.write_subject(place, now, subject);
        crash::point("worker-detail");
        let word = Timer(&self.lane.timers()[place]).arm(deadline);
        crash::point("worker-armed");
        let begins = deadline.begins();
        self.ring.write(Operation::Acquire, Place::Own, index, [now.0, begins.0, subject.bits()]);
        crash::point("worker-recorded");
        stats.acquired();
        self.ring_if_near(deadline, timeout_ns);
        (Armed { pool: self.pool, acquired_at: now, subject, index }, word)
    }

    /// Writes down the meeting that a timer is about to be armed in, and that it is the last of its group.
    pub(crate) fn attend(&mut self, index: u16, meeting: Meeting) {
        self.lane.write_meeting(index.into(), meeting);
        let known = self.attended.iter().position(|group| *group == meeting.group);
        let slot = known.or_else(|| {
            // A group beyond the slots is one of which this lane says nothing.
            (self.attended.len() < LANE_GROUPS).then(|| {
                self.attended.push(meeting.group);
                self.attended.len() - 1
            })
        });
        if let Some(slot) = slot {
            self.lane.note_attended(slot, meeting);
        }
    }

    /// Rings if the watchdog would wake too late for `deadline`, `ahead_ns` from now.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn ring_if_near(&self, deadline: Units, ahead_ns: u64) {
        if self.wake.must_ring(deadline.begins(), ahead_ns) {
            self.pool.mapped.ring();
        }
    }

    /// Records a change of a timer of this lane, or of another of this segment.
    pub(crate) fn record(&mut self, operation: Operation, of: &Armed, at: Nanos, deadline: Units) {
        let place = if of.subject.lane() == self.index { Place::Own } else { Place::Foreign };
        let payload = [at.0, deadline.begins().0, of.subject.bits()];
        self.ring.write(operation, place, of.index, payload);
    }

    /// Ends an acquire of this lane's timers, and records how it ended: its record, its
    /// statistics, and the timer as idle. `at` is the time where the caller knows it already.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn release(
        &mut self,
        armed: &Armed,
        expected: TimerWord,
        at: Option<Nanos>,
    ) -> Released {
        // The clock and the statistics' place before the release: a locked instruction holds up
        // every load after it.
        let now = at.unwrap_or_else(|| self.now());
        let stats = self.stats(armed.subject.scope());
        let took_ns = now.since(armed.acquired_at);
        let timer = Timer(&self.lane.timers()[usize::from(armed.index)]);
        let released = timer.release(expected);
        crash::point("worker-released");
        if released != Released::InTime {
            return self.ended_otherwise(released, armed, now);
        }
        stats.released(took_ns);
        crash::point("worker-counted");
        self.idle.push(armed.index);
        let payload = [now.0, 0, armed.subject.bits()];
        self.ring.write(Operation::Release, Place::Own, armed.index, payload);
        Released::InTime
    }

    /// Ends an acquire of any lane of the segment, and records in this one how it ended.
    pub(crate) fn release_any(
        &mut self,
        armed: &Armed,
        expected: TimerWord,
        at: Option<Nanos>,
    ) -> Released {
        let now = at.unwrap_or_else(|| self.now());
        let released = armed.timer().release(expected);
        if released != Released::InTime {
            return self.ended_otherwise(released, armed, now);
        }
        self.stats(armed.subject.scope()).released(now.since(armed.acquired_at));
        self.is_idle_again(armed, now);
        Released::InTime
    }

    /// Records the rarer endings.
    #[cold]
    #[inline(never)]
    fn ended_otherwise(&mut self, released: Released, armed: &Armed, now: Nanos) -> Released {
        match released {
            Released::Reported => {
                self.stats(armed.subject.scope()).reported(now.since(armed.acquired_at));
                self.is_idle_again(armed, now);
            }
            Released::TooLate => {
                armed.ended_late();
                self.record(Operation::TooLate, armed, now, Units::default());
            }
            Released::InTime | Released::NotArmed => {}
        }
        released
    }

    fn is_idle_again(&mut self, armed: &Armed, now: Nanos) {
        if armed.subject.lane() == self.index {
            if self.inherited.contains(&armed.index) {
                self.take_inherited();
            } else {
                self.idle.push(armed.index);
            }
        }
        self.record(Operation::Release, armed, now, Units::default());
    }

    /// The statistics of `scope` in this lane.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn stats(&mut self, scope: ScopeId) -> ScopeStats<'static> {
        match self.blocks.get(usize::from(scope.0)) {
            Some(Some(block)) => ScopeStats(block),
            _ => self.choose_block(scope),
        }
    }

    /// As [`LaneOwner::stats`], for a timer about to be armed. A spilled scope is one that this lane has no
    /// block of its own for: so its name costs the others nothing.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    fn stats_of(&mut self, scope: ScopeId, index: u16) -> ScopeStats<'static> {
        match self.blocks.get(usize::from(scope.0)) {
            Some(Some(block)) => ScopeStats(block),
            _ => self.choose_block_for(scope, index),
        }
    }

    #[cold]
    fn choose_block_for(&mut self, scope: ScopeId, index: u16) -> ScopeStats<'static> {
        if scope.is_spilled() {
            // The lock is given back before anything is done with the name.
            let name = lock(&self.pool.spilled).name(scope);
            name.inspect(|name| self.write_name(index, name));
        }
        self.choose_block(scope)
    }

    /// Writes the name of a spilled scope beside one of this lane's timers.
    pub(crate) fn write_name(&self, index: u16, name: &ScopeName) {
        if let Some(slot) = self.lane.spilled_name(index.into()) {
            slot.write(name);
        }
    }

    /// A block for a scope this lane had none for: a free one, or the last, which counts the rest as
    /// `(other)`.
    #[cold]
    fn choose_block(&mut self, scope: ScopeId) -> ScopeStats<'static> {
        if scope.is_spilled() {
            return self.stats(OTHER); // the table of names has no place for statistics of its own
        }
        let (last, own) = self.lane.stats().split_last().expect("a lane has at least two");
        let free = own.iter().find(|block| ScopeStats(block).scope().is_none());
        let (block, counts) = free.map_or((last, OTHER), |free| (free, scope));
        ScopeStats(block).take_for(counts.0);
        self.pool.mapped.words.timeout(counts).note_clock(self.timing.kind());
        if let Some(known) = self.blocks.get_mut(usize::from(scope.0)) {
            *known = Some(block);
        }
        ScopeStats(block)
    }
}
