//! The `hierarchical_hash_wheel_timer` crate: four wheels of 256 slots of one
//! millisecond, weak entries and a map to cancel by.
//!
//! A deadline is rounded up to its resolution, and a pass steps through every
//! millisecond that the crate does not let it skip.

use std::{rc::Rc, time::Duration};

use hierarchical_hash_wheel_timer::wheels::{
    Skip,
    cancellable::{CancellableTimerEntry, QuadWheelWithOverflow},
};

use super::{DeadlineIndex, IDLE, Resolution};

const MS: u64 = 1_000_000;

/// What the wheel holds for a timer.
#[derive(Debug)]
struct Entry {
    id: u32,
    deadline: u64,
}

impl CancellableTimerEntry for Entry {
    type Id = u32;

    fn id(&self) -> &u32 {
        &self.id
    }
}

/// The crate's cancellable wheel.
pub struct HashWheel {
    wheel: QuadWheelWithOverflow<Entry>,
    /// The time the wheel has been turned to.
    turned_ms: u64,
    due: Vec<(u64, u32)>,
}

impl DeadlineIndex for HashWheel {
    const NAME: &'static str = "`hierarchical_hash_wheel_timer`";
    const RESOLUTION: Resolution = Resolution::Millisecond;

    fn new(_capacity: usize) -> Self {
        Self { wheel: QuadWheelWithOverflow::new(), turned_ms: 0, due: Vec::new() }
    }

    fn set(&mut self, id: usize, deadline: u64) {
        let id = id as u32;
        if deadline == IDLE {
            // It is an error to cancel what is not there, and no matter here.
            let _ = self.wheel.cancel(&id);
            return;
        }
        let delay_ms = deadline.div_ceil(MS).saturating_sub(self.turned_ms).max(1);
        // This also drops the entry it had: the map then holds the new one.
        self.wheel
            .insert_ref_with_delay(Rc::new(Entry { id, deadline }), Duration::from_millis(delay_ms))
            .expect("a delay of at least a millisecond has not expired");
    }

    fn next_deadline(&mut self) -> u64 {
        match self.wheel.can_skip() {
            Skip::Empty => IDLE,
            Skip::None => (self.turned_ms + 1) * MS,
            Skip::Millis(ms) => (self.turned_ms + 1 + u64::from(ms)) * MS,
        }
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        let now_ms = now / MS;
        while self.turned_ms < now_ms {
            let left = now_ms - self.turned_ms;
            let skip = match self.wheel.can_skip() {
                Skip::Empty => left,
                Skip::None => 0,
                Skip::Millis(ms) => left.min(u64::from(ms)),
            };
            self.wheel.skip(skip as u32);
            self.turned_ms += skip;
            if skip < left {
                self.turned_ms += 1;
                let due = self.wheel.tick();
                self.due.extend(due.iter().map(|entry| (entry.deadline, entry.id)));
            }
        }
        self.due.sort_unstable();
        for (deadline, id) in self.due.drain(..) {
            sink(id as usize, deadline);
        }
    }
}
