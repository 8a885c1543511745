//! An indexed 4-ary heap: ordered by (deadline, id), with the place of every id
//! kept, so that any timer can be moved or removed.

use super::{DeadlineIndex, IDLE, Resolution};

const ARITY: usize = 4;
const ABSENT: u32 = u32::MAX;

/// A 4-ary heap that knows where each id is.
pub struct Heap4 {
    heap: Vec<(u64, u32)>,
    /// Index into `heap` by id, or `ABSENT`.
    place: Vec<u32>,
}

impl Heap4 {
    fn put(&mut self, at: usize, entry: (u64, u32)) {
        self.heap[at] = entry;
        self.place[entry.1 as usize] = at as u32;
    }

    fn sift_up(&mut self, mut at: usize, entry: (u64, u32)) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent] <= entry {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, entry);
    }

    fn sift_down(&mut self, mut at: usize, entry: (u64, u32)) {
        loop {
            let first = at * ARITY + 1;
            let children = first..self.heap.len().min(first + ARITY);
            let Some(least) = children.min_by_key(|&child| self.heap[child]) else { break };
            if self.heap[least] >= entry {
                break;
            }
            self.put(at, self.heap[least]);
            at = least;
        }
        self.put(at, entry);
    }

    fn remove(&mut self, at: usize) {
        let removed = self.heap.swap_remove(at);
        self.place[removed.1 as usize] = ABSENT;
        if let Some(&moved) = self.heap.get(at) {
            self.replace(at, removed, moved);
        }
    }

    fn replace(&mut self, at: usize, old: (u64, u32), new: (u64, u32)) {
        if new < old {
            self.sift_up(at, new);
        } else {
            self.sift_down(at, new);
        }
    }
}

impl DeadlineIndex for Heap4 {
    const NAME: &'static str = "4-ary heap, indexed";
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self { heap: Vec::with_capacity(capacity), place: vec![ABSENT; capacity] }
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        let (at, entry) = (self.place[id], (deadline, id as u32));
        match (at, deadline) {
            (ABSENT, IDLE) => {}
            (ABSENT, _) => {
                self.heap.push(entry);
                self.sift_up(self.heap.len() - 1, entry);
            }
            (at, IDLE) => self.remove(at as usize),
            (at, _) => self.replace(at as usize, self.heap[at as usize], entry),
        }
    }

    fn next_deadline(&mut self) -> u64 {
        self.heap.first().map_or(IDLE, |&(deadline, _)| deadline)
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        while let Some(&(deadline, id)) = self.heap.first().filter(|first| first.0 <= now) {
            self.remove(0);
            sink(id as usize, deadline);
        }
    }
}
