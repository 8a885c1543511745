//! hangwatch's own table, as the core has it.

use std::ops::Range;

use hangwatch_core::watchdog::table::Minima;

use super::{DeadlineIndex, Resolution};

/// [`Minima`] as a contender.
pub struct Exact(Minima);

impl DeadlineIndex for Exact {
    const NAME: &'static str = "**hangwatch: minima, exact**";
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self(Minima::new(capacity))
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        self.0.set(id, deadline);
    }

    #[inline]
    fn next_deadline(&mut self) -> u64 {
        self.0.next_deadline()
    }

    #[inline]
    fn pop_due(&mut self, now: u64, sink: impl FnMut(usize, u64)) {
        self.0.pop_due(now, sink);
    }

    fn clear_block(&mut self, ids: Range<usize>) {
        self.0.clear_block(ids);
    }
}
