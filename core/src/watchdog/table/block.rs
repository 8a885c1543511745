//! One node of the table: a block of sibling deadlines that lie side by side in
//! memory, and the least of them. [`super::Minima`] links blocks by arithmetic
//! alone.

use super::IDLE;

/// The children of a node: a power of two, at most 32. `bench/TABLE.md` says why 16.
pub(super) const FAN_OUT: usize = 16;

/// The deadlines of siblings. Eight fill one cache line, sixteen a pair of lines that the hardware
/// fetches together.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Block(pub(super) [u64; FAN_OUT]);

impl Block {
    /// A block in which every slot is idle.
    pub(super) const IDLE: Self = Self([IDLE; FAN_OUT]);

    /// The least deadline of the block. A tournament without branches: the
    /// comparisons of one round do not wait for each other.
    #[inline]
    pub(super) fn least(&self) -> u64 {
        let mut deadlines = self.0;
        let mut half = FAN_OUT / 2;
        while half > 0 {
            for slot in 0..half {
                deadlines[slot] = deadlines[slot].min(deadlines[slot + half]);
            }
            half /= 2;
        }
        deadlines[0]
    }

    /// A bit for every slot whose deadline is at or before `now`.
    #[inline]
    pub(super) fn due(&self, now: u64) -> Slots {
        let from_last = self.0.iter().rev();
        Slots(from_last.fold(0, |slots, &deadline| (slots << 1) | u32::from(deadline <= now)))
    }

    /// The first slot that holds `deadline`, if any does.
    #[inline]
    pub(super) fn first_slot_of(&self, deadline: u64) -> Option<usize> {
        self.0.iter().position(|&held| held == deadline)
    }
}

/// A set of slots of one block, yielded in ascending order.
pub(super) struct Slots(u32);

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(slot as usize)
    }
}
