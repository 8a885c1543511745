//! The live mutator: writes words of every kind at random places of a segment, while it is used.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use hangwatch::sys::clock::monotonic_ns;
use hangwatch_core::wire::lane::{LaneState, OwnerWord};
use hangwatch_core::wire::record::{Operation, Place, Stamp};
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::{TimerState, TimerWord};

use crate::Stage;
use crate::random::Random;

/// Words of the header that never change after a segment is made: openers check them once.
const FIXED_WORDS: u64 = 16;

/// Writes into one segment.
pub struct Mutator {
    file: File,
    /// Word ranges it writes to.
    ranges: Vec<Range<u64>>,
    /// Pids that it claims.
    pids: Vec<u32>,
    random: Random,
    /// Words written.
    pub written: u64,
}

impl Mutator {
    /// One for all of the segment that its users may write to.
    ///
    /// # Panics
    /// Where the file cannot be opened.
    pub fn of_all(stage: &Stage, pids: Vec<u32>, random: Random) -> Mutator {
        let layout = *stage.segment.words().layout();
        let (fronts, backs) = (layout.front_at(0) as u64, layout.back_at(0) as u64);
        let (names, end) = (layout.names_at() as u64, layout.words() as u64);
        // Header and fronts are small beside the rest, and meant as often.
        let ranges =
            vec![FIXED_WORDS..names, names..fronts, fronts..backs, fronts..backs, backs..end];
        Mutator::of(stage, ranges, pids, random)
    }

    /// One for these lanes.
    ///
    /// # Panics
    /// Where the file cannot be opened.
    pub fn of_lanes(stage: &Stage, lanes: &[u32], pids: Vec<u32>, random: Random) -> Mutator {
        let layout = *stage.segment.words().layout();
        let parts = |lane: &u32| {
            let (front, back) = (layout.front_at(*lane) as u64, layout.back_at(*lane) as u64);
            let (front_words, back_words) =
                (layout.front_stride() as u64, layout.back_stride() as u64);
            [front..front + front_words, back..back + back_words]
        };
        Mutator::of(stage, lanes.iter().flat_map(parts).collect(), pids, random)
    }

    fn of(stage: &Stage, ranges: Vec<Range<u64>>, pids: Vec<u32>, random: Random) -> Mutator {
        let file = OpenOptions::new().write(true).open(stage.path()).unwrap();
        Mutator { file, ranges, pids, random, written: 0 }
    }

    /// Writes so many words.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn write(&mut self, words: u64) {
        for _ in 0..words {
            let range = self.random.pick(&self.ranges).clone();
            let at = self.random.within(range);
            let word = self.word();
            self.file.write_all_at(&word.to_ne_bytes(), at * 8).unwrap();
        }
        self.written += words;
    }

    /// A word of any kind: garbage, or one that means something.
    fn word(&mut self) -> u64 {
        let random = &mut self.random;
        let any = random.next_u64();
        match random.within(0..8) {
            0 => any,
            1 => 0,
            2 => u64::MAX,
            3 => any % 64,
            4 => {
                let state = [
                    TimerState::Armed,
                    TimerState::Condemned,
                    TimerState::Paused,
                    TimerState::Limited,
                ];
                let at = Units::at_or_after(Nanos(monotonic_ns() + any % 50_000_000));
                TimerWord::new(*random.pick(&state), at, any).bits()
            }
            5 => {
                let states = [LaneState::Claimed, LaneState::Attached, LaneState::Attached];
                let states = [&states[..], &[LaneState::Detached, LaneState::Recycling]].concat();
                let pid = *random.pick(&self.pids);
                OwnerWord::new(*random.pick(&states), any as u32, pid).0
            }
            6 => {
                let place = if any.is_multiple_of(2) { Place::Own } else { Place::Foreign };
                let timer = (any >> 32) as u16 % 16;
                Stamp::new(any % 512, Operation::Acquire, timer).with_place(place).0
            }
            _ => monotonic_ns().wrapping_add(any % 1_000_000_000),
        }
    }
}
