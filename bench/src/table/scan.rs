//! What upstream does: a flat map of all timers, every one of which is looked
//! at on every pass.

use std::collections::HashMap;

use super::{DeadlineIndex, IDLE, Resolution};

/// A map that is scanned.
pub struct Scan {
    armed: HashMap<u32, u64>,
    due: Vec<(u64, u32)>,
}

impl DeadlineIndex for Scan {
    const NAME: &'static str = "upstream's scan";
    const RESOLUTION: Resolution = Resolution::Exact;

    fn new(capacity: usize) -> Self {
        Self { armed: HashMap::with_capacity(capacity), due: Vec::new() }
    }

    #[inline]
    fn set(&mut self, id: usize, deadline: u64) {
        if deadline == IDLE {
            self.armed.remove(&(id as u32));
        } else {
            self.armed.insert(id as u32, deadline);
        }
    }

    fn next_deadline(&mut self) -> u64 {
        self.armed.values().copied().min().unwrap_or(IDLE)
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        let due = self.armed.iter().filter(|&(_, &deadline)| deadline <= now);
        self.due.extend(due.map(|(&id, &deadline)| (deadline, id)));
        self.due.sort_unstable();
        for (deadline, id) in self.due.drain(..) {
            self.armed.remove(&id);
            sink(id as usize, deadline);
        }
    }
}
