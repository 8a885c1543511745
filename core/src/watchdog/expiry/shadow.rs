//! Shadow: what a watchdog that only reports would have reaped, and how late it was in the end.
//!
//! A timer counts from when its deadline passes, or its scope's timeout does: also one that brought a
//! longer time of its own, because the question is what would happen once the times in the code are
//! left out. Extensions and pauses of such a timer move both. It is followed until it is released (or
//! armed anew), and counted then in its scope's [`Overruns`](crate::wire::timeout::Overruns).
//!
//! Who is late is found at a tick, and so is its end: to within the watchdog's interval, never too
//! little. What overruns a timeout by less than an interval, with a longer time of its own, may be
//! missed; the scope's histogram has it.

use alloc::vec::Vec;

use super::{ExpiredTimer, Expiry, Request};
use crate::watchdog::policy::{Policy, Shadow};
use crate::wire::lane::{AllowedBy, LaneState};
use crate::wire::time::Nanos;
use crate::wire::timer::{Timer, TimerState, TimerWord};

/// What a shadow remembers of the timers.
pub(super) struct Follower {
    /// The arming of each timer that was found late.
    noted: Vec<u64>,
    /// When each timer was acquired, and its deadline then: what it has more by now was added since.
    first: Vec<(Nanos, Nanos)>,
    late: Vec<ExpiredTimer>,
}

impl Follower {
    pub(super) fn new(policy: &Policy, timers: usize) -> Option<Follower> {
        (policy.shadow == Shadow::On).then(|| Follower {
            noted: alloc::vec![0; timers],
            first: alloc::vec![(Nanos(0), Nanos(0)); timers],
            late: Vec::new(),
        })
    }
}

impl Expiry<'_> {
    /// Begins to follow, goes on, or stops, as a policy has it.
    pub(super) fn follow_policy(&mut self, policy: &Policy) {
        let before = self.shadow.take();
        let timers = self.deferred.len();
        self.shadow = match policy.shadow {
            Shadow::On => before.or_else(|| Follower::new(policy, timers)),
            Shadow::Off => None,
        };
    }

    /// Follows the timers of a lane that were reported before: by a watchdog that has died, or by this
    /// one before it was a shadow. They count when they end, as they would have with it. What ended
    /// while nobody watched is not known to have been late.
    pub(super) fn resume_following(&mut self, lane: u32) {
        if self.shadow.is_none() {
            return;
        }
        for (index, word) in self.segment.lane_timers(lane).iter().enumerate() {
            let word = Timer(word).load();
            if word.state() != Some(TimerState::Reported) || self.is_followed(lane, index, word) {
                continue;
            }
            let Some(detail) = self.segment.lane(lane).read_detail(index, word) else { continue };
            let deadline = self.stalls.credited(detail.acquired_at, word.deadline().begins());
            self.follow(ExpiredTimer { lane, timer: index as u16, word, detail, deadline });
        }
    }

    fn is_followed(&self, lane: u32, index: usize, word: TimerWord) -> bool {
        let is_it = |late: &ExpiredTimer| {
            (late.lane, usize::from(late.timer)) == (lane, index) && is_still(word, late.word)
        };
        self.shadow.as_ref().is_some_and(|shadow| shadow.late.iter().any(is_it))
    }

    /// When an armed timer with a time of its own will have run beyond its scope's timeout; never
    /// where it has none, was found late already, or is due before that.
    pub(super) fn overrun_at(&mut self, lane: u32, index: usize, word: TimerWord) -> Nanos {
        let id = self.id(lane, index);
        let detail = self.segment.lane(lane).read_detail(index, word);
        let (Some(shadow), Some(detail)) = (&mut self.shadow, detail) else {
            return Nanos::NEVER;
        };
        if detail.allowed_by == AllowedBy::Scope || shadow.noted[id] == word.bits() {
            return Nanos::NEVER;
        }
        let timeout = self.segment.timeout(detail.scope).get_ns();
        let Some(timeout_ns) = timeout.or_else(|| self.segment.others_timeout_ns()) else {
            return Nanos::NEVER;
        };
        let (acquired_at, deadline) = (detail.acquired_at, word.deadline().begins());
        let first = &mut shadow.first[id];
        if first.0 != acquired_at {
            *first = (acquired_at, deadline);
        }
        let at = acquired_at.plus(timeout_ns).plus(deadline.since(first.1));
        if at < deadline { self.stalls.credited(acquired_at, at) } else { Nanos::NEVER }
    }

    /// Looks whether a timer whose own deadline is still to come has run beyond its scope's timeout;
    /// when to look again.
    pub(super) fn look_for_overrun(&mut self, expired: ExpiredTimer, now: Nanos) -> Nanos {
        let at = self.overrun_at(expired.lane, usize::from(expired.timer), expired.word);
        if at > now {
            return at;
        }
        let overrun = ExpiredTimer { deadline: at, ..expired };
        self.follow(overrun);
        self.requests.push(Request::Overrun(overrun));
        Nanos::NEVER
    }

    /// Follows a late timer to its end.
    pub(super) fn follow(&mut self, expired: ExpiredTimer) {
        let id = self.id(expired.lane, usize::from(expired.timer));
        let Some(shadow) = &mut self.shadow else { return };
        if shadow.noted[id] != expired.word.bits() {
            shadow.noted[id] = expired.word.bits();
            shadow.late.push(expired);
        }
    }

    /// Counts the late timers that have come to their end.
    pub(super) fn count_ended(&mut self, now: Nanos) {
        let Some(shadow) = &mut self.shadow else { return };
        let mut late = core::mem::take(&mut shadow.late);
        late.retain(|timer| {
            let place = self.segment.lane(timer.lane);
            let timeout = self.segment.timeout(timer.detail.scope);
            let is_leaving = self.recycle.iter().any(|(lane, _)| *lane == timer.lane);
            if is_leaving || place.owner().state() != Some(LaneState::Attached) {
                timeout.died_late();
                return false;
            }
            let word = place.timer(usize::from(timer.timer)).map(Timer::load);
            if word.is_some_and(|word| is_still(word, timer.word)) {
                return true;
            }
            let late_ns = now.since(timer.deadline);
            timeout.ended_late(late_ns);
            self.requests.push(Request::EndedLate { timer: *timer, late_ns });
            false
        });
        if let Some(shadow) = &mut self.shadow {
            shadow.late = late;
        }
    }
}

/// Whether `word` is the arming `armed`, whatever was said of it since.
fn is_still(word: TimerWord, armed: TimerWord) -> bool {
    let same = word.generation() == armed.generation() && word.deadline() == armed.deadline();
    same && !matches!(word.state(), None | Some(TimerState::Idle | TimerState::Paused))
}
