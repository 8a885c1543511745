//! hangwatch's own table, as the core has it.

use std::ops::Range;

use hangwatch_core::watchdog::table::Minima;

use super::{DeadlineIndex, Resolution};

/// [`Minima`] with the fan-out that is being measured.
pub struct Exact<const FAN_OUT: usize>(Minima<FAN_OUT>);

impl<const FAN_OUT: usize> DeadlineIndex for Exact<FAN_OUT> {
    const NAME: &'static str = match FAN_OUT {
        16 => "**hangwatch: minima, exact**",
        _ => "minima, exact, fan-out 8",
    };
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self(Minima::new(capacity))
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        self.0.set(id, deadline);
    }

    #[inline]
    fn set_batch(&mut self, changes: &[(usize, u64)]) {
        self.0.set_batch(changes);
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
