//! Health: how a server is, and whether that is well.
//!
//! [`Health`] is a picture of what the tick last wrote down about itself; [`Health::unhealthy_reason`] judges
//! it. [`Vitals`] is the handle that other threads take such pictures with: the tick only stores
//! figures, relaxed, and never knows who looks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hangwatch::Segment;
use hangwatch::sys::clock;
use hangwatch_core::wire::stats::Counts;
use hangwatch_core::wire::time::{Nanos, duration_ns};

use super::control::{Control, Ended, State};
use hangwatch_process::sigbus::Guard;

/// The least lateness that counts, ns: the machine's own. It is that of a stall, from which on
/// timers get the time back.
const LEAST_LATE_NS: u64 = 100_000_000;

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where it stands.
    pub state: State,
    /// When its last tick ended; 0 before the first.
    pub last_tick_at: Nanos,
    /// How late its last full sleep ended.
    pub late: Duration,
    /// The latest that any ended.
    pub latest: Duration,
    /// Whether the brake holds.
    pub braked: bool,
    /// Processes admitted and alive.
    pub workers: usize,
    /// Ticks since it began to serve.
    pub ticks: u64,
    /// Expiries that ended with a reaped worker since it began to serve.
    pub reaped: u64,
}

/// Why a server is not well: deadlines may pass unnoticed, or nobody is signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnhealthyReason {
    /// It waits for another watchdog's end.
    Standby,
    /// It has ended.
    Ended(Ended),
    /// It has not ticked yet.
    NoTick,
    /// Its last tick is too long ago: the tick is stuck, or its process does not get to run.
    Stuck {
        /// How long ago it ended.
        since: Duration,
        /// How often there is to be one.
        interval: Duration,
    },
    /// Its last tick came, but too late.
    Late {
        /// How late.
        by: Duration,
    },
    /// The brake holds: nobody is signalled.
    Limited,
}

impl fmt::Display for UnhealthyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: &Duration| duration.as_millis();
        match self {
            UnhealthyReason::Standby => {
                f.write_str("standing by: another watchdog serves the segment, this one ticks not")
            }
            UnhealthyReason::Ended(Ended::Stopped) => f.write_str("ended: it was told to stop"),
            UnhealthyReason::Ended(Ended::Truncated) => {
                f.write_str("ended: the segment's file was cut short; nobody watches it any more")
            }
            UnhealthyReason::Ended(Ended::Panicked) => {
                f.write_str("ended: a thread of the watchdog panicked; nobody watches any more")
            }
            UnhealthyReason::Ended(Ended::Failed) => {
                f.write_str("ended: it could not begin to serve, see its log")
            }
            UnhealthyReason::NoTick => f.write_str("no tick has run yet"),
            UnhealthyReason::Stuck { since, interval } => write!(
                f,
                "the last tick ended {} ms ago, and one is due every {} ms: it is stuck, or its \
                 process is stopped or starved",
                ms(since),
                ms(interval)
            ),
            UnhealthyReason::Late { by } => write!(
                f,
                "the last tick came {} ms late: the machine was suspended, or the watchdog's \
                 process stopped or starved",
                ms(by)
            ),
            UnhealthyReason::Limited => f.write_str(
                "the brake holds, nobody is signalled: see why so many expired, then `hangwatch \
                 release-brake`",
            ),
        }
    }
}

impl Health {
    pub(super) fn of(control: &Control) -> Health {
        // Relaxed: figures, each for itself.
        let ns = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        Health {
            state: control.state().clone(),
            last_tick_at: Nanos(ns(&control.last_tick_at)),
            late: Duration::from_nanos(ns(&control.late_ns)),
            latest: Duration::from_nanos(ns(&control.latest_ns)),
            braked: control.braked.load(Ordering::Relaxed),
            workers: control.workers.load(Ordering::Relaxed),
            ticks: ns(&control.ticks),
            reaped: ns(&control.reaped),
        }
    }

    /// What is wrong at `now` with a server that is to tick every `interval`; `None` where it is
    /// well, which takes a tick that ran no longer ago than the interval and the lateness allowed:
    /// another interval, and 100 ms where that is more.
    pub fn unhealthy_reason(&self, now: Nanos, interval: Duration) -> Option<UnhealthyReason> {
        let interval_ns = duration_ns(interval);
        let late_ns = interval_ns.max(LEAST_LATE_NS);
        match &self.state {
            State::Standby => return Some(UnhealthyReason::Standby),
            State::Ended(ended) => return Some(UnhealthyReason::Ended(ended.clone())),
            State::Serving => {}
        }
        if self.last_tick_at == Nanos(0) {
            return Some(UnhealthyReason::NoTick);
        }
        let since_ns = now.since(self.last_tick_at);
        if since_ns > interval_ns.saturating_add(late_ns) {
            return Some(UnhealthyReason::Stuck {
                since: Duration::from_nanos(since_ns),
                interval,
            });
        }
        if duration_ns(self.late) > late_ns {
            return Some(UnhealthyReason::Late { by: self.late });
        }
        self.braked.then_some(UnhealthyReason::Limited)
    }
}

/// How a server is, for any thread to ask.
#[derive(Clone)]
pub struct Vitals {
    segment: Segment,
    control: Arc<Control>,
    /// The segment's file may be cut short while somebody looks, even after the tick has ended.
    _guard: Option<Arc<Guard>>,
}

impl Vitals {
    pub(super) fn new(segment: Segment, control: Arc<Control>) -> Vitals {
        let guard = Guard::new(segment).ok().map(Arc::new);
        Vitals { segment, control, _guard: guard }
    }

    /// The segment that is served.
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// How the server is.
    pub fn health(&self) -> Health {
        Health::of(&self.control)
    }

    /// What is wrong with it now.
    pub fn unhealthy_reason(&self) -> Option<UnhealthyReason> {
        let health = self.health();
        // Read after the figures: a tick that ends in between is not taken for one in the future.
        health.unhealthy_reason(Nanos(clock::monotonic_ns()), self.segment.max_interval())
    }

    /// How long its ticks were at work, their sleep not counted.
    pub fn at_work(&self) -> Counts {
        self.control.at_work.counts()
    }

    /// How late its ticks came, of those that nothing woke before their time.
    pub fn lateness(&self) -> Counts {
        self.control.lateness.counts()
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("segment", &self.segment).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(500);

    fn health(last_tick_at_ms: u64) -> Health {
        Health {
            state: State::Serving,
            last_tick_at: Nanos(last_tick_at_ms * 1_000_000),
            late: Duration::ZERO,
            latest: Duration::ZERO,
            braked: false,
            workers: 0,
            ticks: 1,
            reaped: 0,
        }
    }

    #[test]
    fn well_is_who_ticked_of_late() {
        let check = |health: &Health, now_ms: u64, unhealthy_reason: Option<UnhealthyReason>| {
            let now = Nanos(now_ms * 1_000_000);
            assert_eq!(
                health.unhealthy_reason(now, INTERVAL),
                unhealthy_reason,
                "{health:?} at {now_ms} ms"
            );
        };
        let well = health(10_000);
        check(&well, 10_000, None);
        check(&well, 11_000, None);
        let since = Duration::from_millis(1001);
        check(&well, 11_001, Some(UnhealthyReason::Stuck { since, interval: INTERVAL }));
        check(&health(0), 1, Some(UnhealthyReason::NoTick));
        let late = |ms| Health { late: Duration::from_millis(ms), ..well.clone() };
        check(&late(500), 10_000, None);
        let by = Duration::from_millis(501);
        check(&late(501), 10_000, Some(UnhealthyReason::Late { by }));
        check(&Health { braked: true, ..well.clone() }, 10_000, Some(UnhealthyReason::Limited));
        let at = |state| Health { state, ..well.clone() };
        check(&at(State::Standby), 10_000, Some(UnhealthyReason::Standby));
        let ended = Ended::Truncated;
        check(&at(State::Ended(ended.clone())), 10_000, Some(UnhealthyReason::Ended(ended)));
    }

    #[test]
    fn a_short_interval_does_not_make_a_busy_machine_sick() {
        let interval = Duration::from_millis(1);
        let at = |ms: u64| health(10_000).unhealthy_reason(Nanos(ms * 1_000_000), interval);
        assert_eq!(at(10_101), None);
        assert!(matches!(at(10_102), Some(UnhealthyReason::Stuck { .. })));
    }
}
