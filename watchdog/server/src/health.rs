//! The health of a server, and whether deadlines are kept.
//!
//! [`Health`] is a copy of the figures that the tick stores; [`Health::unhealthy_reason`] judges them.
//! [`Vitals`] reads them from any thread. The tick only makes relaxed stores and does not know its readers.

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

/// Lateness below this is ignored, ns. It is the length from which a delay counts as a stall.
const LEAST_LATE_NS: u64 = 100_000_000;

/// The health of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state of the server.
    pub state: State,
    /// When the last tick ended; 0 before the first.
    pub last_tick_at: Nanos,
    /// How late the last uninterrupted sleep ended.
    pub late: Duration,
    /// The maximum of `late` so far.
    pub latest: Duration,
    /// Whether the kill limiter has tripped, so that nothing is signalled.
    pub braked: bool,
    /// Number of processes that are admitted and alive.
    pub workers: usize,
    /// Number of ticks since the server started to serve.
    pub ticks: u64,
    /// Number of expiries whose worker was killed since the server started to serve.
    pub reaped: u64,
}

/// Why a server is unhealthy: deadlines may pass unnoticed, or nothing is signalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnhealthyReason {
    /// It waits until another watchdog ends.
    Standby,
    /// It has ended, for this reason.
    Ended(Ended),
    /// It has not ticked yet.
    NoTick,
    /// The last tick ended too long ago: the tick is stuck, or its process does not run.
    Stuck {
        /// Time since the last tick ended.
        since: Duration,
        /// Maximum time between two ticks.
        interval: Duration,
    },
    /// The last tick was too late.
    Late {
        /// How late it was.
        by: Duration,
    },
    /// The kill limiter has tripped: nothing is signalled.
    Limited,
}

impl fmt::Display for UnhealthyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: &Duration| duration.as_millis();
        match self {
            UnhealthyReason::Standby => {
                f.write_str("standing by: another watchdog serves the segment")
            }
            UnhealthyReason::Ended(Ended::Stopped) => {
                f.write_str("ended: the watchdog was stopped")
            }
            UnhealthyReason::Ended(Ended::Truncated) => {
                f.write_str("ended: the segment's file was cut short; its workers have no watchdog")
            }
            UnhealthyReason::Ended(Ended::Panicked) => f.write_str(
                "ended: a thread of the watchdog panicked; the workers have no watchdog",
            ),
            UnhealthyReason::Ended(Ended::Failed) => {
                f.write_str("ended: it could not start to serve; see its log")
            }
            UnhealthyReason::NoTick => f.write_str("no tick has ended yet"),
            UnhealthyReason::Stuck { since, interval } => write!(
                f,
                "the last tick ended {} ms ago, and one is due every {} ms: the watchdog is stuck, or its \
                 process is stopped or gets no processor time",
                ms(since),
                ms(interval)
            ),
            UnhealthyReason::Late { by } => write!(
                f,
                "the last tick was {} ms late: the machine was suspended, or the watchdog's process was \
                 stopped or got no processor time",
                ms(by)
            ),
            UnhealthyReason::Limited => f.write_str(
                "too many kills in a minute, so nothing is signalled: find out why so many workers \
                 expired, then run `hangwatch release-brake`",
            ),
        }
    }
}

impl Health {
    pub(super) fn of(control: &Control) -> Health {
        // Relaxed: independent figures.
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

    /// Returns why the server is unhealthy at `now`; `None` if it is healthy.
    ///
    /// A server with this `max_interval` is healthy if its last tick ended at most `interval` plus the allowed
    /// lateness ago. The allowed lateness is another interval, at least 100 ms.
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

/// Reads the health of a server from any thread.
#[derive(Clone)]
pub struct Vitals {
    segment: Segment,
    control: Arc<Control>,
    /// The segment's file may be truncated during a read, even after the tick has ended.
    _guard: Option<Arc<Guard>>,
}

impl Vitals {
    pub(super) fn new(segment: Segment, control: Arc<Control>) -> Vitals {
        let guard = Guard::new(segment).ok().map(Arc::new);
        Vitals { segment, control, _guard: guard }
    }

    /// Returns the segment that is served.
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// Returns the health of the server.
    pub fn health(&self) -> Health {
        Health::of(&self.control)
    }

    /// Returns why the server is unhealthy now; `None` if it is healthy.
    pub fn unhealthy_reason(&self) -> Option<UnhealthyReason> {
        let health = self.health();
        // The clock is read after the figures, so that the last tick is never in the future.
        health.unhealthy_reason(Nanos(clock::monotonic_ns()), self.segment.max_interval())
    }

    /// Returns how long ticks took, without their sleep.
    pub fn at_work(&self) -> Counts {
        self.control.at_work.counts()
    }

    /// Returns how late ticks were whose sleep was not interrupted.
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
    fn server_with_recent_ticks_is_healthy() {
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
    fn short_interval_does_not_make_a_busy_machine_unhealthy() {
        let interval = Duration::from_millis(1);
        let at = |ms: u64| health(10_000).unhealthy_reason(Nanos(ms * 1_000_000), interval);
        assert_eq!(at(10_101), None);
        assert!(matches!(at(10_102), Some(UnhealthyReason::Stuck { .. })));
    }
}
