//! The `priority-queue` crate: a binary heap over an `IndexMap`.

use std::cmp::Reverse;

use ::priority_queue::PriorityQueue;

use super::{DeadlineIndex, IDLE, Resolution};

/// A priority queue whose priorities can be changed.
pub struct Priority(PriorityQueue<u32, Reverse<(u64, u32)>>);

impl DeadlineIndex for Priority {
    const NAME: &'static str = "`priority-queue`";
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self(PriorityQueue::with_capacity(capacity))
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        let id = id as u32;
        if deadline == IDLE {
            self.0.remove(&id);
        } else {
            self.0.push(id, Reverse((deadline, id)));
        }
    }

    fn next_deadline(&mut self) -> u64 {
        self.0.peek().map_or(IDLE, |(_, &Reverse((deadline, _)))| deadline)
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        while let Some((&id, &Reverse((deadline, _)))) = self.0.peek()
            && deadline <= now
        {
            self.0.pop();
            sink(id as usize, deadline);
        }
    }
}
