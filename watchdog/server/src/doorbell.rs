//! How the tick sleeps, and how other threads of this process wake it.
//!
//! [`Doorbell`] implements the tick's [`Sleep`] with the segment's futex. [`TickWaker`] wakes the tick after
//! another thread has queued something for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hangwatch::sys::{clock, crash, futex};
use hangwatch_core::watchdog::updates::Sleep;
use hangwatch_core::wire::time::Nanos;

/// How long before a deadline the tick wakes to prepare for it (see `Doorbell::wake_at`), ns.
pub(super) const LEAD_NS: u64 = 2_000_000;

/// Wakes the tick from any thread of this process.
#[derive(Clone)]
pub(super) struct TickWaker {
    word: &'static AtomicU32,
    wanted: Arc<AtomicBool>,
}

impl TickWaker {
    pub(super) fn new(word: &'static AtomicU32) -> TickWaker {
        TickWaker { word, wanted: Arc::default() }
    }

    /// Wakes the tick. Call it after the tick's input is in place.
    pub(super) fn wake(&self) {
        // Release: pairs with the Acquire in `take` and `is_wanted`, which then see the tick's input.
        self.wanted.store(true, Ordering::Release);
        // Release: pairs with the Acquire in `prepare`. A sleeper that missed the flag sees the word changed;
        // one that saw the old word sees the flag.
        self.word.fetch_add(1, Ordering::Release);
        futex::wake(self.word);
    }

    /// Whether the tick was woken since the last call.
    pub(super) fn take(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

/// The tick's sleep.
pub(super) struct Doorbell {
    tick_waker: TickWaker,
    expected: u32,
    prepared_at: Nanos,
    interval_ns: u64,
    /// The latest time to wake, whatever the deadline table says.
    pub(super) wake_by: Nanos,
    /// How late the last uninterrupted sleep ended, ns.
    pub(super) late_ns: u64,
    /// How late the sleep ended since the last `take_sleep_ns`; `None` if it was interrupted.
    overslept_ns: Option<u64>,
    asleep_ns: u64,
}

impl Doorbell {
    /// Creates the doorbell of a watchdog that ticks at least every `interval_ns`.
    pub(super) fn new(tick_waker: TickWaker, interval_ns: u64) -> Doorbell {
        Doorbell {
            tick_waker,
            expected: 0,
            prepared_at: Nanos(0),
            interval_ns,
            wake_by: Nanos::NEVER,
            late_ns: 0,
            overslept_ns: None,
            asleep_ns: 0,
        }
    }

    /// Returns how long the tick slept since the last call, and how late an uninterrupted sleep ended.
    pub(super) fn take_sleep_ns(&mut self) -> (u64, Option<u64>) {
        (std::mem::take(&mut self.asleep_ns), self.overslept_ns.take())
    }

    /// Returns when to wake for `until`.
    ///
    /// For a deadline this is a little earlier: by then most workers have released, and the rest can be checked
    /// before the deadline.
    fn wake_at(&self, until: Nanos) -> Nanos {
        let is_deadline =
            until.since(self.prepared_at) < self.interval_ns - LEAD_NS.min(self.interval_ns / 2);
        let early = Nanos(until.0.saturating_sub(LEAD_NS));
        let at =
            if is_deadline && early.since(self.prepared_at) > LEAD_NS / 5 { early } else { until };
        at.min(self.wake_by)
    }
}

impl Sleep for Doorbell {
    fn prepare(&mut self) {
        // Acquire: pairs with the Release of the thread that rings.
        self.expected = self.tick_waker.word.load(Ordering::Acquire);
        self.prepared_at = Nanos(clock::monotonic_ns());
    }

    fn sleep(&mut self, until: Nanos) {
        crash::point("sleep");
        // Checked after `prepare`: any later wake-up changes the word.
        if self.tick_waker.is_wanted() {
            return;
        }
        let at = self.wake_at(until);
        let woken = futex::wait_until(self.tick_waker.word, self.expected, Some(at.0));
        if woken.is_err() {
            // The word's page is gone. A retry would spin.
            sleep_until(at);
        }
        let now = Nanos(clock::monotonic_ns());
        self.asleep_ns += now.since(self.prepared_at);
        if matches!(woken, Ok(futex::Woken::TimedOut)) {
            self.late_ns = now.since(at);
            self.overslept_ns = Some(self.late_ns);
        }
    }
}

/// Sleeps without the doorbell.
fn sleep_until(at: Nanos) {
    let left_ns = at.since(Nanos(clock::monotonic_ns()));
    std::thread::sleep(std::time::Duration::from_nanos(left_ns));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn doorbell() -> Doorbell {
        static WORDS: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];
        static USED: AtomicUsize = AtomicUsize::new(0);
        let word = &WORDS[USED.fetch_add(1, Ordering::Relaxed)];
        Doorbell::new(TickWaker::new(word), 100_000_000)
    }

    #[test]
    fn wake_between_drain_and_sleep_is_not_lost() {
        let mut doorbell = doorbell();
        doorbell.tick_waker.wake();
        doorbell.prepare();
        doorbell.sleep(Nanos::NEVER);
        assert!(doorbell.tick_waker.take());
        doorbell.prepare();
        doorbell.tick_waker.wake();
        doorbell.sleep(Nanos::NEVER);
        assert!(doorbell.tick_waker.take() && !doorbell.tick_waker.take());
    }

    #[test]
    fn sleep_ends_early_for_a_deadline_but_not_for_the_interval() {
        let mut doorbell = doorbell();
        doorbell.prepared_at = Nanos(1_000_000_000);
        let at = |ns: u64| Nanos(1_000_000_000 + ns);
        assert_eq!(doorbell.wake_at(at(50_000_000)), at(50_000_000 - LEAD_NS));
        assert_eq!(doorbell.wake_at(at(LEAD_NS)), at(LEAD_NS), "already awake early");
        assert_eq!(doorbell.wake_at(at(100_000_000)), at(100_000_000), "the interval");
        doorbell.wake_by = at(7);
        assert_eq!(doorbell.wake_at(at(100_000_000)), at(7));
    }

    #[test]
    fn sleep_ends_at_its_time() {
        let mut doorbell = doorbell();
        doorbell.prepare();
        let until = Nanos(clock::monotonic_ns()).plus(2_000_000);
        doorbell.sleep(until.plus(LEAD_NS));
        assert!(clock::monotonic_ns() >= until.0);
        sleep_until(Nanos(0));
    }
}
