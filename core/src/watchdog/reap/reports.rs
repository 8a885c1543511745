//! Reports: what is told of an expired timer in place of a signal.

use alloc::vec::Vec;

use super::Reaping;
use super::process_control::{Event, Outcome, ProcessControl};
use crate::watchdog::expiry::ExpiredTimer;
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::TimerSignal;
use crate::wire::segment::Counter;
use crate::wire::time::Nanos;
use crate::wire::timer::{Timer, TimerState};

impl<'a, H: ProcessControl> Reaping<'a, H> {
    /// Reports a timer instead of condemning it. Nothing where its worker released it first.
    fn report(&mut self, now: Nanos, worker: WorkerId, timer: &ExpiredTimer) {
        if self.place(timer).is_some_and(|place| place.report(timer.word)) {
            self.count(Counter::Expired);
            self.count(Counter::Reported);
            self.tell_reported(now, worker, timer, Outcome::Reported);
        }
    }

    /// Reports a timer because the kill limiter holds. Nothing where its worker released it first, or it was
    /// reported so already.
    pub(super) fn spare(&mut self, now: Nanos, worker: WorkerId, timer: &ExpiredTimer) {
        if self.place(timer).is_some_and(|place| place.spare(timer.word)) {
            self.count(Counter::Expired);
            self.count(Counter::Reported);
            self.tell_reported(now, worker, timer, Outcome::Limited);
        }
    }

    /// Reports a timer of a worker that may never be signalled, which a watchdog before this one
    /// condemned: its handle may still release it.
    fn give_up(&mut self, now: Nanos, worker: WorkerId, timer: &ExpiredTimer) {
        if self.place(timer).is_some_and(|place| place.give_up(timer.word)) {
            self.tell_reported(now, worker, timer, Outcome::Reported);
        }
    }

    pub(super) fn place(&self, timer: &ExpiredTimer) -> Option<Timer<'a>> {
        self.segment.lane(timer.lane).timer(usize::from(timer.timer))
    }

    fn tell_reported(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timer: &ExpiredTimer,
        outcome: Outcome,
    ) {
        let late_ns = now.since(timer.deadline);
        self.control.note(Event::Expiry { worker, timer, signal: 0, late_ns, outcome });
    }

    /// Reports the timers that ask for no signal, or all where the worker may never be signalled
    /// ([`ProcessControl::is_excluded`]), and returns the rest. A watchdog that signals nobody only tells of what
    /// one before it condemned; condemned it stays.
    pub(super) fn split_off_reports(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Vec<ExpiredTimer> {
        let mut left = Vec::with_capacity(timers.len());
        let is_excluded = self.control.is_excluded(worker);
        for timer in timers {
            let condemned = timer.word.state() == Some(TimerState::Condemned);
            let signals_nobody = self.policy.signal == TimerSignal::NotifyOnly;
            let wants_signal = self.policy.signal_for(timer.detail.signal).is_some();
            if is_excluded && condemned {
                self.give_up(now, worker, timer);
            } else if !is_excluded && (wants_signal || (condemned && !signals_nobody)) {
                left.push(*timer);
            } else if condemned {
                self.tell_reported(now, worker, timer, Outcome::Reported);
            } else {
                self.report(now, worker, timer);
            }
        }
        left
    }
}
