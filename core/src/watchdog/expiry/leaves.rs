//! Leaves: when each timer is to be looked at, by its word; and the sweep over the words themselves.

use super::Expiry;
use crate::atomic::{AtomicU64, Ordering};
use crate::wire::lane::LaneState;
use crate::wire::time::{Nanos, Units};
use crate::wire::timer::{Timer, TimerState, TimerWord};

impl<'a> Expiry<'a> {
    pub(super) fn id(&self, lane: u32, timer: usize) -> usize {
        lane as usize * self.segment.geometry().timers as usize + timer
    }

    pub(super) fn ids(&self, lane: u32) -> core::ops::Range<usize> {
        self.id(lane, 0)..self.id(lane + 1, 0)
    }

    /// Sets a timer's leaf by its word.
    pub(super) fn refresh(&mut self, lane: u32, index: usize) {
        let first = index - index % 64;
        self.refresh_some(lane, first, 1 << (index - first));
    }

    /// Sets the leaves of the timers `first + n` by their words, for every bit `n` of `timers`.
    pub(super) fn refresh_some(&mut self, lane: u32, first: usize, mut timers: u64) {
        if !self.slots[lane as usize].is_taken() {
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
            if self.deferred[id] == word {
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

    pub(super) fn refresh_lane(&mut self, lane: u32) {
        for first in (0..self.segment.geometry().timers as usize).step_by(64) {
            self.refresh_some(lane, first, u64::MAX);
        }
    }

    pub(super) fn deferred(&mut self, id: usize, word: TimerWord, until: Nanos) {
        self.deferred[id] = word;
        self.minima.set(id, until.0);
    }

    /// The timers a sweep looks at: none of a lane that is nobody's, or does not exist.
    pub(super) fn armed_timers(&self, lane: u32) -> &'a [AtomicU64] {
        match self.slots.get(lane as usize) {
            Some(slot) if slot.is_taken() && slot.owner.state() == Some(LaneState::Attached) => {
                let timers = self.segment.lane_timers(lane);
                &timers[..self.segment.lane_header(lane).high_water().min(timers.len())]
            }
            _ => &[],
        }
    }

    /// Sets the leaves of a lane's due timers that no update told of.
    pub(super) fn sweep_lane(&mut self, lane: u32, today: Units) {
        let place = self.segment.lane(lane);
        for index in 0..place.timers().len() {
            let id = self.id(lane, index);
            let Some(word) = place.timer(index).map(Timer::load) else {
                return;
            };
            if word.is_due(today) && self.minima.get(id) > self.now.0 && self.deferred[id] != word {
                self.refresh(lane, index);
            }
        }
    }
}

/// Whether any of the timers is due.
#[inline]
pub(super) fn is_any_due(timers: &[AtomicU64], today: Units) -> bool {
    // Relaxed: the pop reads the word again. Counted, not asked one by one: no branch for each.
    let due = |word: &AtomicU64| TimerWord::from_bits(word.load(Ordering::Relaxed)).is_due(today);
    timers.iter().map(|word| usize::from(due(word))).sum::<usize>() != 0
}
