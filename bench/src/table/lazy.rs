//! Minima whose inner nodes are lower bounds: a deadline that is raised leaves
//! them as they are, and `pop_due` mends what it finds stale.

use std::mem;

use super::{DeadlineIndex, IDLE, Resolution};

const FAN_OUT: usize = 16;

/// The lazy variant of hangwatch's table.
pub struct LazyMinima {
    /// From the leaves up, each a whole number of blocks; the last is one block.
    levels: Vec<Vec<u64>>,
    root: u64,
    due: Vec<(u64, usize)>,
}

impl DeadlineIndex for LazyMinima {
    const NAME: &'static str = "minima, lazy";
    const RESOLUTION: Resolution = Resolution::LowerBound;

    fn new(capacity: usize) -> Self {
        let mut blocks = capacity.div_ceil(FAN_OUT).max(1);
        let mut levels = vec![vec![IDLE; blocks * FAN_OUT]];
        while blocks > 1 {
            blocks = blocks.div_ceil(FAN_OUT);
            levels.push(vec![IDLE; blocks * FAN_OUT]);
        }
        Self { levels, root: IDLE, due: Vec::with_capacity(capacity) }
    }

    #[inline]
    fn set(&mut self, mut id: usize, deadline: u64) {
        self.levels[0][id] = deadline;
        for above in &mut self.levels[1..] {
            id /= FAN_OUT;
            if deadline >= above[id] {
                return;
            }
            above[id] = deadline;
        }
        self.root = self.root.min(deadline);
    }

    fn next_deadline(&mut self) -> u64 {
        self.root
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        if self.root > now {
            return;
        }
        self.root = take_due(&mut self.levels, 0, now, &mut self.due);
        self.due.sort_unstable();
        for (deadline, id) in self.due.drain(..) {
            sink(id, deadline);
        }
    }
}

/// Moves what is due in a block into `due` and returns the block's true least.
fn take_due(levels: &mut [Vec<u64>], block: usize, now: u64, due: &mut Vec<(u64, usize)>) -> u64 {
    let Some((level, below)) = levels.split_last_mut() else { return IDLE };
    let siblings = block * FAN_OUT..(block + 1) * FAN_OUT;
    for (slot, bound) in level[siblings.clone()].iter_mut().enumerate() {
        let node = siblings.start + slot;
        if *bound > now {
            continue;
        }
        if below.is_empty() {
            due.push((mem::replace(bound, IDLE), node));
        } else {
            *bound = take_due(below, node, now, due);
        }
    }
    level[siblings].iter().copied().min().unwrap_or(IDLE)
}
