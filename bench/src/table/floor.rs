//! The floor: a bare array of deadlines, stored into and never read. No index
//! can be cheaper, so every figure is also given as a ratio to it.

use super::{DeadlineIndex, IDLE, Resolution};

/// An array store. Answers nothing.
pub struct Floor(Vec<u64>);

impl DeadlineIndex for Floor {
    const NAME: &'static str = "array store (the floor)";
    const RESOLUTION: Resolution = Resolution::LowerBound;

    fn new(capacity: usize) -> Self {
        Self(vec![IDLE; capacity])
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        self.0[id] = deadline;
    }

    #[inline]
    fn next_deadline(&mut self) -> u64 {
        0
    }

    #[inline]
    fn pop_due(&mut self, _now: u64, _sink: impl FnMut(usize, u64)) {}
}
