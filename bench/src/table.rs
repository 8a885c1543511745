//! The contenders for the table: one trait, every data structure that could
//! serve, the work they are timed on ([`work`]) and the proof that they agree
//! before they are ([`check`]).
//!
//! Each contender lives in a file of its own and takes the same dense timer ids
//! as hangwatch's table (lane x 64 + index).

use std::ops::Range;

pub mod binary_heap;
pub mod btree;
pub mod check;
pub mod delay_queue;
pub mod exact;
pub mod floor;
pub mod hash_wheel;
pub mod heap4;
pub mod lazy;
pub mod priority_queue;
pub mod random;
pub mod scan;
pub mod wheel;
pub mod work;

/// The deadline of an idle timer, as in [`hangwatch_core::watchdog::table::IDLE`].
pub const IDLE: u64 = hangwatch_core::watchdog::table::IDLE;

/// Timers a lane has: `clear_block` is asked for such blocks.
pub const TIMERS_PER_LANE: usize = 64;

/// An index of timers by deadline, over dense ids. Times are nanoseconds from a
/// zero of the caller's; `now` never goes back and no timer is armed for a time
/// before the last `now`.
pub trait DeadlineIndex {
    /// The name in the printed tables.
    const NAME: &'static str;
    /// How exactly `next_deadline` and `pop_due` keep to the deadline.
    const RESOLUTION: Resolution;

    /// An index over the ids `0..capacity`, all idle.
    fn new(capacity: usize) -> Self;

    /// Arms, re-arms, or with [`IDLE`] releases a timer.
    fn set(&mut self, id: usize, deadline: u64);

    /// Does `set` for each (id, deadline) of a drained batch, in order.
    #[inline]
    fn set_batch(&mut self, changes: &[(usize, u64)]) {
        for &(id, deadline) in changes {
            self.set(id, deadline);
        }
    }

    /// The next deadline, or a lower bound of it where the resolution says so;
    /// [`IDLE`] if nothing is armed.
    fn next_deadline(&mut self) -> u64;

    /// Takes what is due at `now`, in exact (deadline, id) order.
    fn pop_due(&mut self, now: u64, sink: impl FnMut(usize, u64));

    /// Makes a range of ids idle.
    fn clear_block(&mut self, ids: Range<usize>) {
        for id in ids {
            self.set(id, IDLE);
        }
    }
}

/// How exactly a contender keeps to the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The next deadline is exact, and so is what is due.
    Exact,
    /// What is due is exact; the next deadline is a lower bound.
    LowerBound,
    /// Timers are due at the next whole millisecond; the next deadline is a
    /// lower bound.
    Millisecond,
}

/// Something to do with every contender in turn.
pub trait Visitor {
    /// Called once a contender.
    fn visit<I: DeadlineIndex>(&mut self);
}

/// Shows every contender to `visitor`, hangwatch's own first. The floor is not
/// among them: it answers nothing.
pub fn visit_all(visitor: &mut impl Visitor) {
    visitor.visit::<exact::Exact>();
    visitor.visit::<lazy::LazyMinima>();
    visitor.visit::<wheel::Wheel>();
    visitor.visit::<heap4::Heap4>();
    visitor.visit::<btree::BTree>();
    visitor.visit::<binary_heap::LazyHeap>();
    visitor.visit::<priority_queue::Priority>();
    visitor.visit::<delay_queue::Delay>();
    visitor.visit::<hash_wheel::HashWheel>();
    visitor.visit::<scan::Scan>();
}
