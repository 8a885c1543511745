//! What the threads of one server share, and what its handle can ask of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

use crossbeam_utils::CachePadded;
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::wire::stats::{Counts, ScopeStats, StatsWords};

use super::options::{Holds, Treatment};

/// Where a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It waits for another watchdog's end.
    Standby,
    /// It serves.
    Serving,
    /// It has ended.
    Ended(Ended),
}

/// Why a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The segment's file was cut short.
    Truncated,
    /// A thread of it panicked.
    Panicked,
    /// It could not begin to serve, as said by an event.
    Failed,
}

/// What the handle asks of the tick: of each the newest, however long the tick does not look. (One that
/// waits for its predecessor's end does not for days.)
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PendingConfig {
    /// The policy from now on.
    pub(super) policy: Option<Policy>,
    /// The holds from now on.
    pub(super) holds: Option<Holds>,
    /// The brake's release.
    pub(super) limiter: Option<ReleaseLimiter>,
}

/// The brake is to be let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReleaseLimiter;

/// What the threads share.
#[derive(Debug)]
pub(super) struct Control {
    /// Held for an assignment only.
    pending: Mutex<PendingConfig>,
    state: Mutex<State>,
    changed: Condvar,
    /// The tick is to end.
    pub(super) stop: AtomicBool,
    /// The tick has noticed that it is to end, and does.
    pub(super) is_ending: AtomicBool,
    /// The clerk found the file cut short.
    pub(super) truncated: AtomicBool,
    /// A thread other than the tick's panicked.
    pub(super) panicked: AtomicBool,
    /// Whether the kernel keeps time by the counter.
    pub(super) counter_is_clock: AtomicBool,
    /// Whether a lock query takes so long that the tick asks none.
    pub(super) locks_are_slow: AtomicBool,
    pub(super) workers: AtomicUsize,
    // The tick writes these each time, and the listener reads them: not on the lines of what others write.
    pub(super) ticks: CachePadded<AtomicU64>,
    pub(super) last_tick_at: CachePadded<AtomicU64>,
    pub(super) late_ns: CachePadded<AtomicU64>,
    pub(super) latest_ns: CachePadded<AtomicU64>,
    pub(super) braked: AtomicBool,
    pub(super) reaped: CachePadded<AtomicU64>,
    /// What the clerk is to look out for.
    pub(super) holds: HoldsCell,
    /// How long the ticks were at work, their sleep not counted.
    pub(super) at_work: Durations,
    /// How late the sleeps that ran their full time ended.
    pub(super) lateness: Durations,
}

/// Holds that may change at any time.
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
            // Relaxed: whoever is looked at meanwhile is looked at either way.
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

/// A histogram of durations, in the shape of a scope's statistics. One thread notes, any may look.
#[derive(Debug)]
pub(super) struct Durations(Box<StatsWords>);

impl Default for Durations {
    fn default() -> Self {
        Durations(Box::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Durations {
    /// Notes a duration: three relaxed loads and stores.
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

    /// Asks something of the tick, which is to be called then.
    pub(super) fn configure(&self, configure: impl FnOnce(&mut PendingConfig)) {
        configure(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What has been asked since the last time. It never waits: whoever holds the wishes in this moment
    /// calls the tick afterwards, and it looks again.
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

    /// Ends, unless it has ended already; which end it was.
    pub(super) fn end(&self, ended: Ended) -> Ended {
        let mut state = self.state();
        if let State::Ended(first) = &*state {
            return first.clone();
        }
        *state = State::Ended(ended.clone());
        self.changed.notify_all();
        ended
    }

    /// Ends if it is still waiting to serve; whether it was.
    pub(super) fn end_standby(&self) -> bool {
        let mut state = self.state();
        if *state != State::Standby {
            return false;
        }
        *state = State::Ended(Ended::Stopped);
        self.changed.notify_all();
        true
    }

    /// Begins to serve; false where it was ended before it began.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.state();
        if matches!(*state, State::Ended(_)) {
            return false;
        }
        *state = State::Serving;
        self.changed.notify_all();
        true
    }

    /// Waits until it has ended.
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
