//! A hierarchical timing wheel with intrusive, doubly linked lists in arrays
//! (Varghese and Lauck's scheme 7, laid out as tokio lays out its own).
//!
//! Six levels of 64 slots; a slot of the lowest level is 2^20 ns. The exact
//! deadlines are kept, so what is due is exact; the next deadline is the start
//! of the next occupied slot.

use super::{DeadlineIndex, IDLE, Resolution};

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LOWEST_SLOT_NS_BITS: u32 = 20;

/// A wheel over dense ids.
pub struct Wheel {
    deadlines: Vec<u64>,
    /// Circular lists; the heads follow the ids, one a slot.
    next: Vec<u32>,
    previous: Vec<u32>,
    /// A bit for every slot of a level that holds a timer.
    occupied: [u64; LEVELS],
    /// Lowest-level slots that have passed.
    turned: u64,
    due: Vec<(u64, u32)>,
}

impl Wheel {
    fn head(&self, level: usize, slot: usize) -> u32 {
        (self.deadlines.len() + level * SLOTS + slot) as u32
    }

    fn link(&mut self, id: u32) {
        let ticks = (self.deadlines[id as usize] >> LOWEST_SLOT_NS_BITS).max(self.turned);
        let apart = ((ticks ^ self.turned) | (SLOTS as u64 - 1)).ilog2();
        let level = ((apart / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (ticks >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = self.head(level, slot);
        let first = self.next[head as usize];
        self.next[id as usize] = first;
        self.previous[id as usize] = head;
        self.previous[first as usize] = id;
        self.next[head as usize] = id;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, id: u32) {
        let (next, previous) = (self.next[id as usize], self.previous[id as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
        if next == previous {
            // Only a head is its own neighbour on both sides.
            let slot = next as usize - self.deadlines.len();
            self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
        }
    }

    /// The next occupied slot: its level, its place there, its first tick.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let shift = SLOT_BITS * level as u32;
            let at = (self.turned >> shift) as u32 % SLOTS as u32;
            let ahead = self.occupied[level].rotate_right(at);
            if ahead == 0 {
                return None;
            }
            let slots = (self.turned >> shift) + u64::from(ahead.trailing_zeros());
            Some((level, slots as usize % SLOTS, slots << shift))
        })
    }

    /// Empties a slot and returns its first timer; the rest hang on `next`.
    fn detach(&mut self, level: usize, slot: usize) -> (u32, u32) {
        let head = self.head(level, slot);
        let first = self.next[head as usize];
        self.next[head as usize] = head;
        self.previous[head as usize] = head;
        self.occupied[level] &= !(1 << slot);
        (first, head)
    }

    /// Moves what is due into `due`, and what is not into lower slots.
    fn empty_slot(&mut self, level: usize, slot: usize, now: u64) {
        let (mut id, head) = self.detach(level, slot);
        while id != head {
            let next = self.next[id as usize];
            let deadline = self.deadlines[id as usize];
            if deadline <= now {
                self.deadlines[id as usize] = IDLE;
                self.due.push((deadline, id));
            } else {
                self.link(id);
            }
            id = next;
        }
    }
}

impl DeadlineIndex for Wheel {
    const NAME: &'static str = "hierarchical wheel, intrusive";
    const RESOLUTION: Resolution = Resolution::LowerBound;

    fn new(capacity: usize) -> Self {
        let nodes = (capacity + LEVELS * SLOTS) as u32;
        Self {
            deadlines: vec![IDLE; capacity],
            next: (0..nodes).collect(),
            previous: (0..nodes).collect(),
            occupied: [0; LEVELS],
            turned: 0,
            due: Vec::with_capacity(capacity),
        }
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        if self.deadlines[id] != IDLE {
            self.unlink(id as u32);
        }
        self.deadlines[id] = deadline;
        if deadline != IDLE {
            self.link(id as u32);
        }
    }

    fn next_deadline(&mut self) -> u64 {
        self.next_slot().map_or(IDLE, |(_, _, ticks)| ticks << LOWEST_SLOT_NS_BITS)
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        let now_ticks = now >> LOWEST_SLOT_NS_BITS;
        while let Some((level, slot, ticks)) = self.next_slot().filter(|slot| slot.2 <= now_ticks) {
            self.turned = self.turned.max(ticks);
            self.empty_slot(level, slot, now);
            if level == 0 && ticks == now_ticks {
                break; // What is left of it is due later in this very slot.
            }
        }
        self.turned = now_ticks;
        self.due.sort_unstable();
        for (deadline, id) in self.due.drain(..) {
            sink(id as usize, deadline);
        }
    }
}
