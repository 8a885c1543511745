//! Policy: what is done about an expired timer, and when not.

use alloc::collections::VecDeque;

use crate::wire::lane::TimerSignal;
use crate::wire::time::Nanos;

/// SIGKILL, the signal nobody survives who runs at all.
pub const SIGKILL: u8 = 9;

const MINUTE_NS: u64 = 60_000_000_000;

/// Whether a watchdog that only reports follows what it would have reaped: [`crate::watchdog::expiry`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shadow {
    /// It does not.
    #[default]
    Off,
    /// It does, and holds all timers to their scopes' timeouts.
    On,
}

/// What the watchdog does about expired timers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The signal for timers that name none; `NotifyOnly` signals nobody. `Default` means SIGKILL.
    pub signal: TimerSignal,
    /// How long a worker may take to end after a signal it can catch, ns; then comes SIGKILL.
    pub grace_ns: u64,
    /// The shortest grace, ns: a handler that gets no time at all need not be called.
    pub least_grace_ns: u64,
    /// The kill limiter: more workers reaped than this in a minute, and the watchdog goes notify-only.
    pub max_reaps: Option<u32>,
    /// How long after SIGKILL a worker counts as unkillable, ns.
    pub unkillable_after_ns: u64,
    /// How often an unkillable worker is tried again, ns.
    pub unkillable_retry_ns: u64,
    /// The fraction of a timer's timeout at which it is warned of, once; none where absent.
    pub warn_at: Option<f64>,
    /// Whether what would have been reaped is followed to its end.
    pub shadow: Shadow,
    /// Whether a suspect is reaped before those that wait for it.
    pub cascade: Cascade,
}

/// What is done where several workers of a job run out of time in one scope and one is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cascade {
    /// Nothing: each is reaped at its deadline.
    #[default]
    Off,
    /// Each is reaped at its deadline; who is suspected is told.
    Report,
    /// The suspect is reaped first. The others are held back meanwhile.
    Hold {
        /// How long after its deadline a worker is held back at most, ns.
        hold_ns: u64,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            signal: TimerSignal::Signal(SIGKILL),
            grace_ns: 0,
            least_grace_ns: 100_000_000,
            max_reaps: None,
            unkillable_after_ns: 2_000_000_000,
            unkillable_retry_ns: 10_000_000_000,
            warn_at: None,
            shadow: Shadow::Off,
            cascade: Cascade::Off,
        }
    }
}

impl Policy {
    /// The signal for a timer that asks for `wanted`; `None`: report only.
    pub fn signal_for(&self, wanted: TimerSignal) -> Option<u8> {
        let asked = if wanted == TimerSignal::Default { self.signal } else { wanted };
        match (asked, self.signal) {
            // A watchdog told to signal nobody signals nobody, whatever a timer asks for.
            (_, TimerSignal::NotifyOnly) | (TimerSignal::NotifyOnly, _) => None,
            (TimerSignal::Signal(number), _) => Some(number),
            (TimerSignal::Default, _) => Some(SIGKILL),
        }
    }

    /// How long a worker has after `signal`, ns.
    pub fn grace_after_ns(&self, signal: u8) -> u64 {
        if signal == SIGKILL { 0 } else { self.grace_ns.max(self.least_grace_ns) }
    }

    /// When a timer acquired at `acquired_at` with `deadline` is to be warned of.
    pub fn warn_time(&self, acquired_at: Nanos, deadline: Nanos) -> Option<Nanos> {
        let fraction = self.warn_at?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a fraction of a timeout needs no last digit"
        )]
        let into = (deadline.since(acquired_at) as f64 * fraction) as u64;
        Some(acquired_at.plus(into))
    }
}

/// The kill limiter on reaping: a storm of expiries is more likely a mistake than that many hangs.
#[derive(Clone, Debug, Default)]
pub struct KillLimiter {
    recent: VecDeque<Nanos>,
    engaged: bool,
}

impl KillLimiter {
    /// Whether one more worker may be reaped at `now`. The first that may not engages the kill limiter,
    /// and it holds until [`KillLimiter::release`].
    pub fn allows(&mut self, now: Nanos, max_reaps: Option<u32>) -> bool {
        let Some(max_reaps) = max_reaps else {
            return !self.engaged; // by a watchdog before this one, which had a limit
        };
        while self.recent.front().is_some_and(|at| now.since(*at) >= MINUTE_NS) {
            self.recent.pop_front();
        }
        if self.engaged || self.recent.len() >= max_reaps as usize {
            self.engaged = true;
            return false;
        }
        self.recent.push_back(now);
        true
    }

    /// Engages it, until [`KillLimiter::release`].
    pub fn engage(&mut self) {
        self.engaged = true;
    }

    /// Whether the kill limiter holds.
    pub fn is_engaged(&self) -> bool {
        self.engaged
    }

    /// Lets go, and forgets what led to it.
    pub fn release(&mut self) {
        *self = KillLimiter::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_may_ask_for_less_than_the_watchdog_but_not_for_more_than_nothing() {
        let kill = Policy::default();
        assert_eq!(kill.signal_for(TimerSignal::Default), Some(SIGKILL));
        assert_eq!(kill.signal_for(TimerSignal::Signal(15)), Some(15));
        assert_eq!(kill.signal_for(TimerSignal::NotifyOnly), None);
        let notify = Policy { signal: TimerSignal::NotifyOnly, ..kill };
        assert_eq!(notify.signal_for(TimerSignal::Signal(9)), None);
    }

    #[test]
    fn the_limiter_holds_once_engaged_until_it_is_released() {
        let mut limiter = KillLimiter::default();
        let second = |s: u64| Nanos(s * 1_000_000_000);
        assert!(limiter.allows(second(0), Some(2)));
        assert!(limiter.allows(second(61), Some(2)), "a minute later the first is forgotten");
        assert!(limiter.allows(second(62), Some(2)));
        assert!(!limiter.allows(second(63), Some(2)));
        assert!(!limiter.allows(second(1000), Some(2)), "until told otherwise");
        assert!(!limiter.allows(second(1000), None), "nor for a successor without a limit");
        limiter.release();
        assert!(limiter.allows(second(1001), Some(2)));
        assert!(limiter.allows(second(1001), None));
    }

    #[test]
    fn a_warning_comes_at_its_fraction_of_the_timeout() {
        let policy = Policy { warn_at: Some(0.5), ..Policy::default() };
        assert_eq!(policy.warn_time(Nanos(100), Nanos(300)), Some(Nanos(200)));
        assert_eq!(Policy::default().warn_time(Nanos(100), Nanos(300)), None);
    }
}
