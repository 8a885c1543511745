//! Waking the watchdog without paying for it.
//!
//! The watchdog looks at least once a max interval, so an acquire with a later deadline says nothing. A
//! nearer one and the watchdog's going to sleep race; Dekker's pattern decides it:
//!
//! ```text
//! worker:   timer word, record;  fence SeqCst;  read next_wake;  earlier? ring
//! watchdog: write next_wake;     fence SeqCst;  look at the rings;  none? sleep until next_wake
//! ```
//!
//! Of two fences one comes first: either the worker sees the announced wake and rings, or the
//! watchdog sees the record. Modelled under loom (`tests/loom_wake.rs`).

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::wire::time::Nanos;

/// Both sides' view of the announced wake.
#[derive(Clone, Copy)]
pub struct Wake<'a> {
    next_wake: &'a AtomicU64,
    max_interval_ns: u64,
}

impl<'a> Wake<'a> {
    /// The protocol over the segment's `next_wake` word.
    pub fn new(next_wake: &'a AtomicU64, max_interval_ns: u64) -> Self {
        Wake { next_wake, max_interval_ns }
    }

    /// The worker's side, after its record: whether it must ring the doorbell for `deadline`, which is
    /// `ahead_ns` away or a little more.
    #[inline]
    pub fn must_ring(&self, deadline: Nanos, ahead_ns: u64) -> bool {
        ahead_ns < self.max_interval_ns && self.is_before_announced(deadline)
    }

    #[cold]
    fn is_before_announced(&self, deadline: Nanos) -> bool {
        // SeqCst fence: pairs with the one in `announce`.
        fence(Ordering::SeqCst);
        deadline.0 < self.next_wake.load(Ordering::Relaxed)
    }

    /// The watchdog's side: says when it will wake. It must look at the rings once more before it
    /// sleeps.
    pub fn announce(&self, at: Nanos) {
        self.next_wake.store(at.0, Ordering::Relaxed);
        // SeqCst fence: pairs with the one in `is_before_announced`.
        fence(Ordering::SeqCst);
    }

    /// The watchdog's side: it is awake and will look before it sleeps, so nobody need ring.
    pub fn awake(&self) {
        // Relaxed: a worker that still reads the old time rings once for nothing.
        self.next_wake.store(0, Ordering::Relaxed);
    }
}
