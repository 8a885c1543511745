//! Folding: a lane's statistics into the totals, so that a crash neither loses nor doubles them.
//!
//! Each step is first written whole into a redo log in the header, then done; both halves can be done
//! any number of times, so a successor that finds a log does them again ([`Segment::finish_fold`]).
//! Two kinds of step exist: a statistics block is added to its scope's total and emptied, and a timer
//! that its worker will not end any more is counted and made idle.

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::crash;
use crate::wire::lane::Lane;
use crate::wire::layout::limit;
use crate::wire::scope::ScopeId;
use crate::wire::segment::{FOLD_LOG, FOLD_STATE, Segment};
use crate::wire::stats::{ABANDONED, ACQUIRED, CONDEMNED, MAX_NS, SCOPE, STATS_WORDS, StatsWords};
use crate::wire::timer::{TimerState, TimerWord};

// The state: what kind of step is under way (8 bits, 0: none), how many were done (24), lane and index.
const BLOCK: u64 = 1;
const TIMER: u64 = 2;
const KIND_SHIFT: u32 = 56;
const COUNT_ONE: u64 = 1 << 32;
const COUNT_MASK: u64 = ((1 << KIND_SHIFT) - 1) & !(COUNT_ONE - 1);
const _: () = assert!(limit::LANES <= 1 << 16, "a lane's index is kept in 16 bits");
/// Words of the log of a timer step, beside the scope in word 0.
const TOTAL_WORD: usize = 1;
const NEW_TOTAL: usize = 2;
const ENDED: usize = 3;

/// How an acquire ended that its worker did not end itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The watchdog condemned it.
    Condemned,
    /// Its worker died or went away with it armed.
    Abandoned,
}

impl Segment<'_> {
    fn fold_state(&self) -> &AtomicU64 {
        self.word(FOLD_STATE)
    }

    fn fold_log(&self) -> &StatsWords {
        self.block(FOLD_LOG)
    }

    /// Empties a lane whose owner is known to be gone: ends its timers, folds its statistics. The
    /// watchdog's alone, on a lane it is recycling.
    pub fn fold_lane(&self, index: u32) {
        let lane = self.lane(index);
        for timer in 0..lane.timers().len() {
            self.end_timer(index, timer as u16);
        }
        for block in 0..lane.stats().len() {
            self.fold_block(index, block as u16);
        }
    }

    /// Counts and idles a timer whose worker will not: an armed one as abandoned, a condemned one as
    /// condemned. Idle ones are left alone, garbage is cleared uncounted.
    pub fn end_timer(&self, index: u32, timer: u16) {
        let lane = self.lane(index);
        let Some(word) = lane.timer(usize::from(timer)).map(crate::wire::timer::Timer::load) else {
            return;
        };
        let ending = match word.state() {
            Some(TimerState::Idle) => return,
            Some(TimerState::Condemned) => Some(Ending::Condemned),
            Some(_) => Some(Ending::Abandoned),
            None => None,
        };
        let (Some(ending), Some(detail)) = (ending, lane.read_detail(usize::from(timer), word))
        else {
            lane.reset_timer(usize::from(timer));
            return;
        };
        let total_word = match ending {
            Ending::Condemned => CONDEMNED,
            Ending::Abandoned => ABANDONED,
        };
        let old = self.total(detail.scope)[total_word].load(Ordering::Relaxed);
        let log = self.fold_log();
        log[SCOPE].store(u64::from(detail.scope.0), Ordering::Relaxed);
        log[TOTAL_WORD].store(total_word as u64, Ordering::Relaxed);
        log[NEW_TOTAL].store(old.wrapping_add(1), Ordering::Relaxed);
        log[ENDED].store(word.bits(), Ordering::Relaxed);
        self.commit(TIMER, index, timer);
        self.redo_timer(lane, timer);
    }

    fn fold_block(&self, index: u32, block: u16) {
        let lane = self.lane(index);
        let words = &lane.stats()[usize::from(block)];
        let Some(scope) = words[SCOPE].load(Ordering::Acquire).checked_sub(1) else {
            return; // never used
        };
        let total = self.total(ScopeId(scope as u16));
        let log = self.fold_log();
        log[SCOPE].store(scope, Ordering::Relaxed);
        for word in ACQUIRED..STATS_WORDS {
            let (old, more) =
                (total[word].load(Ordering::Relaxed), words[word].load(Ordering::Relaxed));
            let new = if word == MAX_NS { old.max(more) } else { old.wrapping_add(more) };
            log[word].store(new, Ordering::Relaxed);
        }
        self.commit(BLOCK, index, block);
        self.redo_block(lane, block);
    }

    fn commit(&self, kind: u64, lane: u32, index: u16) {
        // Release: the log is whole before it says so. Only a successor reads it back, after the
        // kernel has let go of this process's lock.
        let count = self.fold_state().load(Ordering::Relaxed) & COUNT_MASK;
        let state = (kind << KIND_SHIFT) | count | (u64::from(lane) << 16) | u64::from(index);
        crash::point("fold-logged");
        self.fold_state().store(state, Ordering::Release);
        // Release fence: pairs with the Acquire fence of whoever asks `folds` again after its sum: who
        // has seen a store of this step sees that it was begun.
        fence(Ordering::Release);
        crash::point("fold-committed");
    }

    fn redo_timer(&self, lane: Lane<'_>, timer: u16) {
        let log = self.fold_log();
        let scope = ScopeId(log[SCOPE].load(Ordering::Relaxed) as u16);
        let word = log[TOTAL_WORD].load(Ordering::Relaxed) as usize;
        if word == CONDEMNED || word == ABANDONED {
            self.total(scope)[word]
                .store(log[NEW_TOTAL].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        crash::point("fold-added");
        // The lane may have been recycled, and the timer armed by another worker, before a successor
        // came.
        let ended = TimerWord::from_bits(log[ENDED].load(Ordering::Relaxed));
        if lane.timer(usize::from(timer)).is_some_and(|timer| timer.load() == ended) {
            lane.reset_timer(usize::from(timer));
        }
        crash::point("fold-emptied");
        self.step_done();
    }

    fn redo_block(&self, lane: Lane<'_>, block: u16) {
        let log = self.fold_log();
        let total = self.total(ScopeId(log[SCOPE].load(Ordering::Relaxed) as u16));
        for word in ACQUIRED..STATS_WORDS {
            total[word].store(log[word].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        crash::point("fold-added");
        for word in &lane.stats()[usize::from(block)] {
            word.store(0, Ordering::Relaxed);
        }
        crash::point("fold-emptied");
        self.step_done();
    }

    /// One step more is done.
    fn step_done(&self) {
        let count = self.fold_state().load(Ordering::Relaxed).wrapping_add(COUNT_ONE) & COUNT_MASK;
        // Release: pairs with the Acquire in `folds`: what the step moved is seen moved.
        self.fold_state().store(count, Ordering::Release);
    }

    /// How many steps were done, modulo 2^24; `None` while one is under way. An observer's sums miss or
    /// double nothing if this is the same number before them and, past an Acquire fence, after them.
    pub fn folds(&self) -> Option<u64> {
        // Acquire: pairs with the Release in `step_done`.
        let state = self.fold_state().load(Ordering::Acquire);
        (state >> KIND_SHIFT == 0).then_some(state & COUNT_MASK)
    }

    /// Whether a step is under way, or was when the watchdog died.
    pub fn is_folding(&self) -> bool {
        self.folds().is_none()
    }

    /// Does the step a dead watchdog left half-done again. The watchdog's, when it adopts a segment.
    /// A log that names nothing that exists is dropped.
    pub fn finish_fold(&self) {
        let state = self.fold_state().load(Ordering::Acquire);
        let (kind, lane, index) =
            (state >> KIND_SHIFT, u32::from((state >> 16) as u16), state as u16);
        let geometry = self.geometry();
        match kind {
            BLOCK if lane < geometry.lanes && u32::from(index) < geometry.lane_scopes => {
                self.redo_block(self.lane(lane), index);
            }
            TIMER if lane < geometry.lanes && u32::from(index) < geometry.timers => {
                self.redo_timer(self.lane(lane), index);
            }
            _ => self.step_done(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::lane::{AllowedBy, TimerDetail, TimerKind, TimerSignal};
    use crate::wire::layout::Geometry;
    use crate::wire::segment::tests::{tiny_fixed, tiny_segment, zeroed};
    use crate::wire::stats::{Counts, ScopeStats};
    use crate::wire::time::{Nanos, Units};

    const SCOPE_OF_ALL: ScopeId = ScopeId(1);

    /// A lane with ten releases, one armed timer and one condemned one, all in one scope.
    fn used_lane(segment: &Segment<'_>) {
        let lane = segment.lane(0);
        let stats = ScopeStats(&lane.stats()[0]);
        stats.take_for(SCOPE_OF_ALL.0);
        (0..10).for_each(|_| stats.released(1000));
        (0..12).for_each(|_| stats.acquired());
        for timer in 0..2 {
            lane.write_detail(
                timer,
                TimerDetail {
                    acquired_at: Nanos(0),
                    scope: SCOPE_OF_ALL,
                    signal: TimerSignal::Default,
                    kind: TimerKind::Guard,
                    allowed_by: AllowedBy::Acquire,
                    meeting: None,
                },
            );
            let armed = lane.timer(timer).unwrap().arm(Units::from_bits(5));
            if timer == 1 {
                assert!(lane.timer(timer).unwrap().condemn(armed));
            }
        }
    }

    fn check_total(segment: &Segment<'_>) {
        let counts: Counts = ScopeStats(segment.total(SCOPE_OF_ALL)).snapshot();
        assert_eq!(counts.acquired, 12);
        assert_eq!(counts.released(), 10);
        assert_eq!((counts.abandoned, counts.condemned), (1, 1));
        assert!(segment.lane(0).timers().iter().all(|word| {
            TimerWord::from_bits(word.load(Ordering::Relaxed)).state() == Some(TimerState::Idle)
        }));
        assert!(!segment.is_folding());
    }

    #[test]
    fn a_sum_while_lanes_are_folded_neither_misses_nor_doubles() {
        // The two run side by side, and come apart somewhere else each time.
        (0..20).for_each(|_| check_sums_while_folding());
    }

    fn check_sums_while_folding() {
        const LANES: u32 = 256;
        let fixed = crate::wire::segment::Fixed {
            geometry: Geometry { lanes: LANES, timers: 1, records: 16, scopes: 2, lane_scopes: 2 },
            ..tiny_fixed()
        };
        let words = zeroed(fixed.geometry.check().unwrap().words());
        Segment::format(&words, fixed).unwrap();
        let segment = Segment::open(&words).unwrap();
        for lane in 0..LANES {
            let stats = ScopeStats(&segment.lane(lane).stats()[0]);
            stats.take_for(SCOPE_OF_ALL.0);
            stats.acquired();
        }
        let sum = || {
            let lanes = (0..LANES).map(|lane| &segment.lane(lane).stats()[0]);
            let blocks = lanes.chain([segment.total(SCOPE_OF_ALL)]);
            blocks.fold(0, |sum, block| sum + ScopeStats(block).snapshot().acquired)
        };
        std::thread::scope(|scope| {
            let folding = scope.spawn(|| (0..LANES).for_each(|lane| segment.fold_lane(lane)));
            while !folding.is_finished() {
                let (before, acquired) = (segment.folds(), sum());
                fence(Ordering::Acquire);
                if before.is_some() && segment.folds() == before {
                    assert_eq!(acquired, u64::from(LANES));
                }
            }
        });
        assert_eq!(sum(), u64::from(LANES));
        assert!(segment.folds() > Some(0));
    }

    #[test]
    fn a_folded_lane_adds_up() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        used_lane(&segment);
        segment.fold_lane(0);
        segment.fold_lane(0);
        check_total(&segment);
    }

    /// A crash between any two stores: the first `stores` of the fold reach the segment, then a
    /// successor finishes and folds what is left.
    #[test]
    fn a_fold_cut_short_anywhere_neither_loses_nor_doubles() {
        let mut previous = Vec::new();
        // Every prefix of the fold's stores is a state some crash leaves; replaying the fold on a
        // copy and stopping at each change of the state word, with the total and lane words of an
        // earlier or later moment, covers the orders the steps allow.
        for moment in 0..4 {
            let words = tiny_segment();
            let segment = Segment::open(&words).unwrap();
            used_lane(&segment);
            match moment {
                0 => {}
                1 => segment.end_timer(0, 0),
                2 => {
                    segment.end_timer(0, 0);
                    segment.end_timer(0, 1);
                }
                _ => segment.fold_lane(0),
            }
            previous
                .push(words.iter().map(|word| word.load(Ordering::Relaxed)).collect::<Vec<_>>());
        }
        for step in previous.windows(2) {
            let (before, after) = (&step[0], &step[1]);
            let changed: Vec<usize> =
                (0..before.len()).filter(|&word| before[word] != after[word]).collect();
            let (log, rest): (Vec<usize>, Vec<usize>) = changed
                .into_iter()
                .partition(|&word| (FOLD_LOG..FOLD_LOG + STATS_WORDS).contains(&word));
            // With the log committed, any prefix of the other words may have been written.
            for written in 0..=rest.len() {
                let words = tiny_segment();
                for (word, bits) in words.iter().zip(before) {
                    word.store(*bits, Ordering::Relaxed);
                }
                for &word in log.iter().chain(&rest[..written]) {
                    words[word].store(after[word], Ordering::Relaxed);
                }
                let kind_and_index =
                    committed_step(previous.iter().position(|s| s == before).unwrap());
                words[FOLD_STATE].store(kind_and_index, Ordering::Relaxed);
                let segment = Segment::open(&words).unwrap();
                segment.finish_fold();
                segment.fold_lane(0);
                check_total(&segment);
            }
        }
    }

    /// A watchdog dies after it cleared a timer and before it dropped its log; the timer is armed
    /// again before a successor comes.
    #[test]
    fn a_timer_armed_anew_before_a_successor_finishes_its_clearing_stays_armed() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        used_lane(&segment);
        segment.end_timer(0, 1);
        words[FOLD_STATE].store(committed_step(1), Ordering::Relaxed);
        let armed = segment.lane(0).timer(1).unwrap().arm(Units::from_bits(9));
        segment.finish_fold();
        assert_eq!(segment.lane(0).timer(1).unwrap().load(), armed);
        segment.fold_lane(0);
        assert_eq!(ScopeStats(segment.total(SCOPE_OF_ALL)).snapshot().condemned, 1);
    }

    fn committed_step(moment: usize) -> u64 {
        match moment {
            0 => TIMER << 56,
            1 => (TIMER << 56) | 1,
            _ => BLOCK << 56,
        }
    }

    #[test]
    fn a_log_that_names_nothing_is_dropped() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        for state in [u64::MAX, (BLOCK << 56) | (0x99 << 16), (TIMER << 56) | 0x99, 77] {
            words[FOLD_STATE].store(state, Ordering::Relaxed);
            segment.finish_fold();
            assert!(!segment.is_folding());
        }
    }
}
