//! What the watchdog writes into the header about itself: its own words and its counters.

use crate::atomic::AtomicU64;

/// What the serving watchdog says about itself; observers read it. A dead watchdog's words stay.
#[derive(Clone, Copy)]
pub struct WatchdogWords<'a>(pub(super) &'a [AtomicU64; 8]);

impl<'a> WatchdogWords<'a> {
    /// Its pid, in its own PID namespace.
    pub fn pid(self) -> &'a AtomicU64 {
        &self.0[0]
    }

    /// When it began to serve, ns.
    pub fn started_at(self) -> &'a AtomicU64 {
        &self.0[1]
    }

    /// When its last tick ended, ns.
    pub fn last_tick_at(self) -> &'a AtomicU64 {
        &self.0[2]
    }

    /// [`LIMITED`] while the kill limiter holds, [`LIMITER_RELEASE_ASKED`] once an operator has asked for its
    /// release, else 0.
    pub fn limited(self) -> &'a AtomicU64 {
        &self.0[3]
    }
}

/// The kill limiter holds.
pub const LIMITED: u64 = 1;
/// The kill limiter holds, and an operator wants it released.
pub const LIMITER_RELEASE_ASKED: u64 = 2;

/// The watchdog's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Ticks.
    Ticks,
    /// Records drained.
    Drained,
    /// Records overwritten before they were drained.
    Lapped,
    /// Timers found expired.
    Expired,
    /// Timers reported; those that the kill limiter excluded may have been condemned after its release.
    Reported,
    /// Timers condemned.
    Condemned,
    /// Workers reaped: dead after a signal.
    Reaped,
    /// Workers that survived SIGKILL.
    Unkillable,
    /// Reaps that failed in a way they should not.
    Failed,
    /// Lanes quarantined.
    Quarantined,
    /// Lanes recycled.
    Recycled,
    /// Stalls credited.
    Stalls,
    /// Watchdogs that adopted the segment.
    Adopted,
}

impl Counter {
    /// Every counter with its name, in the order of the wire.
    pub const ALL: [(Counter, &'static str); 13] = [
        (Counter::Ticks, "ticks"),
        (Counter::Drained, "drained"),
        (Counter::Lapped, "lapped"),
        (Counter::Expired, "expired"),
        (Counter::Reported, "reported"),
        (Counter::Condemned, "condemned"),
        (Counter::Reaped, "reaped"),
        (Counter::Unkillable, "unkillable"),
        (Counter::Failed, "failed"),
        (Counter::Quarantined, "quarantined"),
        (Counter::Recycled, "recycled"),
        (Counter::Stalls, "stalls"),
        (Counter::Adopted, "adopted"),
    ];
}
