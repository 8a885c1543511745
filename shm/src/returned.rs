//! Timers given back: which timers of this process's lanes have no handle any more, told by any thread
//! to the one that owns the lane.
//!
//! A bit a timer, set by whoever ends its handle, taken by the lane's owner when it runs out of timers
//! that it released itself.

use std::sync::atomic::{AtomicU64, Ordering};

use hangwatch_core::layout::Geometry;

/// The bits of every lane of a segment, in this process's own memory.
pub(crate) struct Returned {
    bits: Box<[AtomicU64]>,
    words_a_lane: usize,
}

impl Returned {
    pub(crate) fn new(geometry: Geometry) -> Returned {
        let words_a_lane = (geometry.timers as usize).div_ceil(64);
        let words = geometry.lanes as usize * words_a_lane;
        Returned { bits: (0..words).map(|_| AtomicU64::new(0)).collect(), words_a_lane }
    }

    fn of(&self, lane: u32) -> &[AtomicU64] {
        &self.bits[lane as usize * self.words_a_lane..][..self.words_a_lane]
    }

    /// The timer has no handle any more, or will have none in a moment.
    #[cold]
    pub(crate) fn give_back(&self, lane: u32, timer: u16) {
        // Release: pairs with the Acquire in `take`: what the handle's thread did comes before.
        self.of(lane)[usize::from(timer) / 64].fetch_or(1 << (timer % 64), Ordering::Release);
    }

    /// Hands out what was given back of a lane; what `take` refuses is kept. The lane's owner's alone.
    #[cold]
    pub(crate) fn take(&self, lane: u32, mut take: impl FnMut(u16) -> bool) {
        for (place, word) in self.of(lane).iter().enumerate().rev() {
            // Acquire: pairs with the Release in `give_back`.
            let mut left = word.load(Ordering::Acquire);
            while left != 0 {
                let bit = left.ilog2();
                left &= !(1 << bit);
                if take((place * 64) as u16 + bit as u16) {
                    // Relaxed: only this thread clears bits.
                    word.fetch_and(!(1 << bit), Ordering::Relaxed);
                }
            }
        }
    }

    /// A lane has a new owner: what was given back of it before is the new one's from the start.
    pub(crate) fn forget(&self, lane: u32) {
        self.of(lane).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_once_and_what_is_refused_is_kept() {
        let geometry = Geometry { lanes: 3, timers: 100, ..Geometry::default() };
        let returned = Returned::new(geometry);
        for timer in [99, 0, 64, 63] {
            returned.give_back(1, timer);
        }
        let take = |refused: u16| {
            let mut taken = Vec::new();
            returned.take(1, |timer| {
                let wanted = timer != refused;
                taken.extend(wanted.then_some(timer));
                wanted
            });
            taken
        };
        assert_eq!(take(63), [99, 64, 0], "the first ends on top");
        assert_eq!(take(64), [63]);
        assert_eq!(take(0), []);
        returned.give_back(1, 5);
        returned.forget(1);
        assert_eq!(take(0), []);
    }
}
