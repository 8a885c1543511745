//! A `BTreeSet` of (deadline, id) beside a dense array of deadlines. (A
//! `BTreeMap` is the same tree.)

use std::{collections::BTreeSet, mem};

use super::{DeadlineIndex, IDLE, Resolution};

/// A B-tree and an array.
pub struct BTree {
    armed: BTreeSet<(u64, u32)>,
    deadlines: Vec<u64>,
}

impl DeadlineIndex for BTree {
    const NAME: &'static str = "`BTreeSet` + array";
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self { armed: BTreeSet::new(), deadlines: vec![IDLE; capacity] }
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        let old = mem::replace(&mut self.deadlines[id], deadline);
        if old != IDLE {
            self.armed.remove(&(old, id as u32));
        }
        if deadline != IDLE {
            self.armed.insert((deadline, id as u32));
        }
    }

    fn next_deadline(&mut self) -> u64 {
        self.armed.first().map_or(IDLE, |&(deadline, _)| deadline)
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        while let Some(&(deadline, id)) = self.armed.first().filter(|first| first.0 <= now) {
            self.armed.pop_first();
            self.deadlines[id as usize] = IDLE;
            sink(id as usize, deadline);
        }
    }
}
