//! State that the threads of one server share, and the requests of its handle.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam_utils::CachePadded;
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::wire::stats::{Counts, ScopeStats, StatsWords};

use super::options::{Holds, Treatment};

/// The state of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits until another watchdog ends.
    Standby,
    /// It serves the segment.
    Serving,
    /// It has ended, for this reason.
    Ended(Ended),
}

/// Why a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// The segment's file was cut short.
    Truncated,
    /// One of its threads panicked.
    Panicked,
    /// It could not start to serve; an event says why.
    Failed,
}

/// Settings that are not in force yet: the newest value of each, until the tick takes them. A standby does
/// not tick, so this can take days.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PendingConfig {
    /// The new policy.
    pub(super) policy: Option<Policy>,
    /// The new treatment of workers that cannot run.
    pub(super) holds: Option<Holds>,
    /// A request to release the kill limiter.
    pub(super) limiter: Option<ReleaseLimiter>,
}

/// A request to release the kill limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReleaseLimiter;

/// What the threads of a server share.
#[derive(Debug)]
pub(super) struct Control {
    /// Locked only for an assignment.
    pending: Mutex<PendingConfig>,
    state: Mutex<State>,
    changed: Condvar,
    /// Asks the tick to end.
    pub(super) stop: AtomicBool,
    /// The tick has seen `stop` and is ending.
    pub(super) is_ending: AtomicBool,
    /// The attestor found the segment's file truncated.
    pub(super) truncated: AtomicBool,
    /// A thread other than the tick's panicked.
    pub(super) panicked: AtomicBool,
    /// Whether the kernel's clock source is the counter.
    pub(super) counter_is_clock: AtomicBool,
    /// Whether lock queries are so slow that the tick makes none.
    pub(super) locks_are_slow: AtomicBool,
    pub(super) workers: AtomicUsize,
    // The tick writes these and the listener reads them, so each has a cache line of its own.
    pub(super) ticks: CachePadded<AtomicU64>,
    pub(super) last_tick_at: CachePadded<AtomicU64>,
    pub(super) late_ns: CachePadded<AtomicU64>,
    pub(super) latest_ns: CachePadded<AtomicU64>,
    pub(super) braked: AtomicBool,
    pub(super) reaped: CachePadded<AtomicU64>,
    /// Which workers that cannot run are reported instead of killed.
    pub(super) holds: HoldsCell,
    /// How long ticks took, without their sleep.
    pub(super) at_work: Durations,
    /// How late sleeps ended that were not interrupted.
    pub(super) lateness: Durations,
}

/// [`Holds`] that may change at any time.
#[derive(Debug)]
pub(super) struct HoldsCell([AtomicBool; 3]);

impl HoldsCell {
    fn new(holds: Holds) -> HoldsCell {
        let cell = HoldsCell(Default::default());
        cell.set(holds);
        cell
    }

    pub(super) fn set(&self, holds: Holds) {
        let Holds { stopped, traced, frozen } = holds;
        for (flag, treatment) in self.0.iter().zip([stopped, traced, frozen]) {
            // Relaxed: a worker checked at this moment may be treated by the old or the new setting.
            flag.store(treatment == Treatment::Report, Ordering::Relaxed);
        }
    }

    pub(super) fn get(&self) -> Holds {
        let treatment = |flag: &AtomicBool| {
            if flag.load(Ordering::Relaxed) { Treatment::Report } else { Treatment::Reap }
        };
        let [stopped, traced, frozen] = &self.0;
        Holds { stopped: treatment(stopped), traced: treatment(traced), frozen: treatment(frozen) }
    }
}

/// A histogram of durations. One thread adds, any thread reads.
#[derive(Debug)]
pub(super) struct Durations(Box<StatsWords>);

impl Default for Durations {
    fn default() -> Self {
        Durations(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Durations {
    /// Adds a duration: three relaxed loads and stores.
    pub(super) fn note(&self, duration_ns: u64) {
        ScopeStats(&self.0).released(duration_ns);
    }

    pub(super) fn counts(&self) -> Counts {
        ScopeStats(&self.0).snapshot()
    }
}

impl Control {
    pub(super) fn new(state: State, holds: Holds) -> Control {
        Control {
            pending: Mutex::default(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            truncated: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            counter_is_clock: AtomicBool::new(hangwatch::sys::clock::counter_is_system_clock_now()),
            locks_are_slow: AtomicBool::new(false),
            workers: AtomicUsize::new(0),
            ticks: CachePadded::default(),
            last_tick_at: CachePadded::default(),
            late_ns: CachePadded::default(),
            latest_ns: CachePadded::default(),
            braked: AtomicBool::new(false),
            reaped: CachePadded::default(),
            holds: HoldsCell::new(holds),
            at_work: Durations::default(),
            lateness: Durations::default(),
        }
    }

    /// Changes the pending settings. The caller must wake the tick afterwards.
    pub(super) fn configure(&self, configure: impl FnOnce(&mut PendingConfig)) {
        configure(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes the pending settings. Never waits: a thread that holds the lock wakes the tick afterwards.
    pub(super) fn take_pending_config(&self) -> PendingConfig {
        match self.pending.try_lock() {
            Ok(mut pending) => std::mem::take(&mut *pending),
            Err(TryLockError::Poisoned(pending)) => std::mem::take(&mut *pending.into_inner()),
            Err(TryLockError::WouldBlock) => PendingConfig::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the server as ended, and returns the reason that was set first.
    pub(super) fn end(&self, ended: Ended) -> Ended {
        let mut state = self.state();
        if let State::Ended(first) = &*state {
            return first.clone();
        }
        *state = State::Ended(ended.clone());
        self.changed.notify_all();
        ended
    }

    /// Ends a server that is still a standby. Returns whether it was one.
    pub(super) fn end_standby(&self) -> bool {
        let mut state = self.state();
        if *state != State::Standby {
            return false;
        }
        *state = State::Ended(Ended::Stopped);
        self.changed.notify_all();
        true
    }

    /// Starts to serve. Returns false if it was ended before.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        if matches!(*state, State::Ended(_)) {
            return false;
        }
        *state = State::Serving;
        self.changed.notify_all();
        true
    }

    /// Waits until the server has ended.
    pub(super) fn wait(&self) -> Ended {
        let mut state = self.state();
        loop {
            if let State::Ended(ended) = &*state {
                return ended.clone();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
