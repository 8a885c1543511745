//! A `BinaryHeap` with lazy deletion: a change pushes a new entry, and an entry
//! that its timer no longer agrees with is dropped when it comes up.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{DeadlineIndex, IDLE, Resolution};

/// The standard library's heap, swept when two thirds of it are stale.
pub struct LazyHeap {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    deadlines: Vec<u64>,
}

impl LazyHeap {
    fn drop_stale_first(&mut self) {
        while let Some(&Reverse((deadline, id))) = self.heap.peek() {
            if self.deadlines[id as usize] == deadline {
                return;
            }
            self.heap.pop();
        }
    }
}

impl DeadlineIndex for LazyHeap {
    const NAME: &'static str = "`BinaryHeap`, lazy deletion";
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(capacity), deadlines: vec![IDLE; capacity] }
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        self.deadlines[id] = deadline;
        if deadline == IDLE {
            return;
        }
        if self.heap.len() >= 3 * self.deadlines.len() {
            let deadlines = &self.deadlines;
            self.heap.retain(|&Reverse((held, id))| deadlines[id as usize] == held);
        }
        self.heap.push(Reverse((deadline, id as u32)));
    }

    fn next_deadline(&mut self) -> u64 {
        self.drop_stale_first();
        self.heap.peek().map_or(IDLE, |&Reverse((deadline, _))| deadline)
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        while let Some(&Reverse((deadline, id))) = self.heap.peek().filter(|first| first.0.0 <= now)
        {
            self.heap.pop();
            // A timer re-armed for a deadline it had before has two such entries.
            if self.deadlines[id as usize] == deadline {
                self.deadlines[id as usize] = IDLE;
                sink(id as usize, deadline);
            }
        }
    }
}
