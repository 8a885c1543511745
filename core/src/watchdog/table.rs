//! The table: the watchdog's own deadline-ordered index over every timer of
//! every lane.
//!
//! [`Minima`] is an exact tree of minima over dense timer ids (lane x timers per
//! lane + index). The leaves are deadlines, each inner node is the least of its
//! children, the root is the next deadline. There are no links, no clock and no
//! cursor inside, nothing is allocated after [`Minima::new`], and no call does
//! work that an earlier one put off, so the worst call is near the usual one.
//! The tick applies records to it ([`Minima::set`]) and takes what is due
//! ([`Minima::pop_due`]); `bench/TABLE.md` has the measurements that chose it.
//!
//! Levels are kept from the leaves up, each an array of blocks. Slot `s` of
//! block `b` is node `b * FAN_OUT + s` of its level, and the least of block
//! `b * FAN_OUT + s` of the level below.

mod block;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::{mem, ops::Range};

use self::block::{Block, FAN_OUT};

/// The deadline of a timer that is not armed. A real deadline lies below it:
/// clamp to `IDLE - 1`.
pub const IDLE: u64 = u64::MAX;

/// An exact tree of minima: which timer is due next, and which are due now.
///
/// Timers are dense ids from 0 up to a capacity that is fixed at the start.
/// Deadlines are nanoseconds of any one clock, below [`IDLE`]; equal deadlines
/// are kept apart by id, so the order reported is exact: by (deadline, id).
///
/// Memory follows the capacity, not the armed timers: 8.5 bytes a timer, and
/// 16 more that stay untouched (and so without pages behind them, on Linux)
/// until that many timers expire in one tick. An id at or beyond the capacity is
/// never an error or a panic: setting it does nothing and says so, reading it
/// gives [`IDLE`].
///
/// ```
/// use hangwatch_core::watchdog::table::{IDLE, Minima};
///
/// let mut table: Minima = Minima::new(1024 * 64);
/// table.set(70, 3_000);
/// table.set(3, 5_000);
/// table.set(9, 3_000);
/// assert_eq!(table.next_deadline(), 3_000);
///
/// let mut due = Vec::new();
/// table.pop_due(4_000, |id, deadline| due.push((deadline, id)));
/// assert_eq!(due, [(3_000, 9), (3_000, 70)]);
///
/// table.set(3, IDLE); // released
/// assert_eq!(table.next_deadline(), IDLE);
/// ```
#[derive(Clone, Debug)]
pub struct Minima {
    /// From the leaves up; the last level is one block. Slots that stand for
    /// nothing are idle for ever.
    levels: Box<[Box<[Block]>]>,
    /// The least of the last level.
    root: u64,
    /// Number of ids.
    capacity: usize,
    /// Where [`Self::pop_due`] puts what is due in order. Empty between calls;
    /// has room for every id from the start.
    due: Vec<(u64, usize)>,
}

impl Minima {
    /// A table for the ids `0..capacity`, all idle. O(capacity); the only call
    /// that allocates.
    pub fn new(capacity: usize) -> Self {
        let mut levels = Vec::new();
        let mut blocks = capacity.div_ceil(FAN_OUT).max(1);
        levels.push(vec![Block::IDLE; blocks].into_boxed_slice());
        while blocks > 1 {
            blocks = blocks.div_ceil(FAN_OUT);
            levels.push(vec![Block::IDLE; blocks].into_boxed_slice());
        }
        let due = Vec::with_capacity(capacity);
        Self { levels: levels.into_boxed_slice(), root: IDLE, capacity, due }
    }

    /// The earliest deadline of all, or [`IDLE`] if nothing is armed. O(1): one
    /// load.
    #[inline]
    pub fn next_deadline(&self) -> u64 {
        self.root
    }

    /// The timer with the least (deadline, id), if any is armed. O(log capacity).
    pub fn first(&self) -> Option<usize> {
        if self.root == IDLE {
            return None;
        }
        let mut id = 0;
        for level in self.levels.iter().rev() {
            // The node above holds the least of this block, so a slot has it.
            id = id * FAN_OUT + level[id].first_slot_of(self.root)?;
        }
        Some(id)
    }

    /// The deadline of `id`, or [`IDLE`] if it is idle or no id of this table.
    #[inline]
    pub fn get(&self, id: usize) -> u64 {
        let leaf = self.levels[0].get(id / FAN_OUT);
        leaf.map_or(IDLE, |block| block.0[id % FAN_OUT])
    }

    /// Arms `id` with `deadline`, re-arms it earlier or later, or (with
    /// [`IDLE`]) makes it idle.
    ///
    /// Returns false, and does nothing, if `id` is not below the capacity.
    ///
    /// A leaf that neither was nor becomes the least of its block costs one
    /// store and one comparison. Otherwise the change is carried up for as long
    /// as it changes the node above: O(log capacity) at worst, 5 levels at a
    /// million timers.
    #[inline]
    pub fn set(&mut self, id: usize, deadline: u64) -> bool {
        if id >= self.capacity {
            return false;
        }
        let block = id / FAN_OUT;
        let old = mem::replace(&mut self.levels[0][block].0[id % FAN_OUT], deadline);
        if old != deadline && old.min(deadline) <= self.least_of_leaves(block) {
            self.carry(block, old, deadline);
        }
        true
    }

    /// Takes every timer whose deadline is at or before `now`, gives each to
    /// `sink` as (id, deadline) in exact (deadline, id) order and leaves it
    /// idle. Returns how many there were.
    ///
    /// O(1), one comparison, when nothing is due. Otherwise it descends only
    /// into children that are due and sorts what it found.
    #[inline]
    pub fn pop_due(&mut self, now: u64, sink: impl FnMut(usize, u64)) -> usize {
        if self.root > now { 0 } else { self.pop_all(now, sink) }
    }

    fn pop_all(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) -> usize {
        self.root = take_due(&mut self.levels, 0, now.min(IDLE - 1), &mut self.due);
        self.due.sort_unstable();
        let count = self.due.len();
        for (deadline, id) in self.due.drain(..) {
            sink(id, deadline);
        }
        count
    }

    /// Makes every id of `ids` idle, in one pass up. Ids beyond the capacity
    /// are passed over.
    ///
    /// Costs one comparison for each block that is idle already. A lane's timers
    /// are such a range; clear it before a recycled lane's records apply.
    pub fn clear_block(&mut self, ids: Range<usize>) {
        let ids = ids.start..ids.end.min(self.capacity);
        if ids.is_empty() || self.root == IDLE {
            return;
        }
        let mut cleared = false;
        for block in ids.start / FAN_OUT..ids.end.div_ceil(FAN_OUT) {
            if self.least_of_leaves(block) == IDLE {
                continue;
            }
            let first = block * FAN_OUT;
            let within = ids.start.saturating_sub(first)..FAN_OUT.min(ids.end - first);
            self.levels[0][block].0[within].fill(IDLE);
            cleared = true;
        }
        if cleared {
            self.recompute_above(ids);
        }
    }

    /// A slot of leaf block `child` went from `old` to `new`: mends the nodes
    /// above for as long as that changes them. Out of line: most changes end in their own block.
    #[inline(never)]
    fn carry(&mut self, mut child: usize, mut old: u64, mut new: u64) {
        for above in 1..self.levels.len() {
            let (block, slot) = (child / FAN_OUT, child % FAN_OUT);
            let node = self.levels[above][block].0[slot];
            if old.min(new) > node {
                return; // It neither was nor becomes the least.
            }
            let least = if new < node { new } else { self.levels[above - 1][child].least() };
            if least == node {
                return;
            }
            self.levels[above][block].0[slot] = least;
            (child, old, new) = (block, node, least);
        }
        if old.min(new) <= self.root {
            self.root = self.least_of_last_level();
        }
    }

    /// What the node above leaf block `block` holds.
    fn least_of_leaves(&self, block: usize) -> u64 {
        self.levels.get(1).map_or(self.root, |above| above[block / FAN_OUT].0[block % FAN_OUT])
    }

    /// Makes every node above the leaves `ids` the least of its children.
    fn recompute_above(&mut self, ids: Range<usize>) {
        let mut nodes = ids;
        for above in 1..self.levels.len() {
            nodes = nodes.start / FAN_OUT..nodes.end.div_ceil(FAN_OUT);
            for node in nodes.clone() {
                let least = self.levels[above - 1][node].least();
                self.levels[above][node / FAN_OUT].0[node % FAN_OUT] = least;
            }
        }
        self.root = self.least_of_last_level();
    }

    fn least_of_last_level(&self) -> u64 {
        self.levels[self.levels.len() - 1][0].least()
    }
}

/// Moves every due timer below block `block` of the last of `levels` into `due`,
/// in order of ids, and returns what is then the least of that block. Recurses
/// once a level.
fn take_due(
    levels: &mut [Box<[Block]>],
    block: usize,
    now: u64,
    due: &mut Vec<(u64, usize)>,
) -> u64 {
    let Some((level, below)) = levels.split_last_mut() else { return IDLE };
    let siblings = &mut level[block];
    for slot in siblings.due(now) {
        let node = block * FAN_OUT + slot;
        let deadline = &mut siblings.0[slot];
        if below.is_empty() {
            due.push((mem::replace(deadline, IDLE), node));
        } else {
            *deadline = take_due(below, node, now, due);
        }
    }
    siblings.least()
}
