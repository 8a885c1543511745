//! Timers whose handle ended too late: their reap had begun, so the release changed nothing.
//!
//! If that reap then fails, the timer becomes reported and no release will come for it. A bit for
//! each timer tells the lane's owner that it may make such a timer idle itself. A handle is a matter
//! of one process, so the bits stand in its own memory.

use std::sync::atomic::{AtomicU64, Ordering};

use hangwatch_core::wire::layout::Geometry;

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

    /// Notes that the timer's handle has ended and left the timer condemned.
    #[cold]
    pub(crate) fn ended_late(&self, lane: u32, timer: u16) {
        // Release: pairs with the Acquire in `take`: what the handle's thread did comes before.
        self.of(lane)[usize::from(timer) / 64].fetch_or(1 << (timer % 64), Ordering::Release);
    }

    /// Takes the timer's note, if there is one. Only the lane's owner may call this.
    #[cold]
    pub(crate) fn take(&self, lane: u32, timer: u16) -> bool {
        let bit = 1 << (timer % 64);
        // Acquire: pairs with the Release in `ended_late`.
        self.of(lane)[usize::from(timer) / 64].fetch_and(!bit, Ordering::Acquire) & bit != 0
    }

    /// Forgets a lane's notes: it has a new owner, and no handle of an earlier one is left.
    pub(crate) fn forget(&self, lane: u32) {
        self.of(lane).iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_taken_once_and_forgotten_with_its_lane() {
        let returned = Returned::new(Geometry { lanes: 3, timers: 100, ..Geometry::default() });
        for timer in [99, 0, 64, 63] {
            returned.ended_late(1, timer);
        }
        assert!(!returned.take(0, 99) && !returned.take(2, 0), "another lane's");
        for timer in [63, 99, 64] {
            assert!(returned.take(1, timer));
            assert!(!returned.take(1, timer));
        }
        returned.forget(1);
        assert!(!returned.take(1, 0));
    }
}
