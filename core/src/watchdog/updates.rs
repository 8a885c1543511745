//! The updates: what changed in the lanes since the last tick, drained from their rings by size.
//!
//! [`Rings`] is the watchdog's request queue: [`Rings::size`] counts what waits by the writers'
//! hints, [`Rings::get`] sleeps if there is nothing, then drains. Many records of one timer make one
//! piece of updates: what a record says is not applied, it says where to look. The timer word is the
//! truth, so the order in which lanes are drained does not matter.

use alloc::vec::Vec;
use core::num::NonZeroUsize;

use crate::atomic::Ordering;
use crate::shared::wake::Wake;
use crate::watchdog::tick::Queue;
use crate::wire::lane::{LaneState, OwnerWord};
use crate::wire::layout::limit;
use crate::wire::ring::RingReader;
use crate::wire::segment::{Counter, Segment};
use crate::wire::time::Nanos;

/// Something the table must look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Timers of a lane changed: bit `n` of `timers` is timer `first + n`.
    Timers {
        /// The lane.
        lane: u32,
        /// The timer of the lowest bit.
        first: u16,
        /// Which ones.
        timers: u64,
    },
    /// The ring lapped: any timer of the lane may have changed.
    Lapped {
        /// The lane.
        lane: u32,
    },
    /// A lane's owner word changed.
    Owner {
        /// The lane.
        lane: u32,
        /// What it is now.
        owner: OwnerWord,
    },
    /// The lane holds what no writer of ours makes.
    Garbage {
        /// The lane.
        lane: u32,
    },
}

/// How the watchdog sleeps: until `until`, or until a worker rings.
pub trait Sleep {
    /// Prepares a sleep. What rings after this ends the sleep that follows at once.
    fn prepare(&mut self);
    /// Sleeps until `until` or a ring, whichever comes first; may return early.
    fn sleep(&mut self, until: Nanos);
}

/// The rings of all lanes as one queue.
pub struct Rings<'a, S> {
    segment: Segment<'a>,
    lanes: Vec<LaneReader>,
    waiting: Vec<(u32, u32)>,
    changed: Vec<(u32, OwnerWord)>,
    wake: Wake<'a>,
    sleep: S,
}

#[derive(Clone, Copy)]
struct LaneReader {
    owner: OwnerWord,
    ring: RingReader,
    /// The writer's hint when there was nothing behind it; until it moves, nothing waits.
    empty_at: Option<u64>,
    muted: bool,
}

impl LaneReader {
    fn new(owner: OwnerWord, head: u64) -> LaneReader {
        LaneReader { owner, ring: RingReader::at(head), empty_at: None, muted: false }
    }

    #[inline]
    fn waiting(&self, head: u64, capacity: usize) -> usize {
        let is_quiet = self.muted || self.empty_at == Some(head);
        if is_quiet { 0 } else { self.ring.waiting(head, capacity) }
    }
}

impl<'a, S: Sleep> Rings<'a, S> {
    /// The queue of `segment`. Every lane that was ever claimed are updates at first.
    pub fn new(segment: Segment<'a>, sleep: S) -> Self {
        let fresh = LaneReader::new(OwnerWord(0), 0);
        let lanes = segment.geometry().lanes as usize;
        Rings {
            segment,
            lanes: alloc::vec![fresh; lanes],
            waiting: Vec::with_capacity(lanes),
            changed: Vec::with_capacity(lanes),
            wake: Wake::new(segment.next_wake(), segment.fixed().max_interval_ns),
            sleep,
        }
    }

    /// What the queue sleeps by.
    pub fn sleep_mut(&mut self) -> &mut S {
        &mut self.sleep
    }

    /// Looks at every lane's first cache line: who owns it, how much waits.
    fn look(&mut self) -> usize {
        self.waiting.clear();
        self.changed.clear();
        let capacity = self.segment.geometry().records as usize;
        let mut size = 0;
        let used = self.segment.lanes_used();
        for (index, known) in (0..used).zip(&mut self.lanes) {
            let header = self.segment.lane_header(index);
            let owner = header.owner();
            // Acquire: pairs with the Release in `RingWriter::push`.
            let head = header.head().load(Ordering::Acquire);
            if owner != known.owner {
                *known = LaneReader::new(owner, head);
                self.changed.push((index, owner));
                size += 1;
            } else if owner.state() == Some(LaneState::Attached) {
                let waiting = known.waiting(head, capacity);
                if waiting > 0 {
                    self.waiting.push((index, waiting as u32));
                    size += waiting;
                }
            }
        }
        size
    }

    fn deliver(&mut self, most: usize, update: &mut impl FnMut(Update)) {
        // A new owner's timers are read from their words, so its ring is read from now on.
        for &(lane, owner) in &self.changed {
            update(Update::Owner { lane, owner });
        }
        let mut left = most.saturating_sub(self.changed.len()).max(1);
        for index in 0..self.waiting.len() {
            let (lane, waiting) = self.waiting[index];
            let take = (waiting as usize).min(left);
            if take == 0 {
                break;
            }
            left -= take;
            self.drain_lane(lane, take, update);
        }
    }

    fn drain_lane(&mut self, index: u32, most: usize, update: &mut impl FnMut(Update)) {
        const WORDS: usize = limit::TIMERS as usize / 64;
        let lane = self.segment.lane(index);
        let geometry = self.segment.geometry();
        let mut touched = [0u64; WORDS];
        // The first word, all there are by default, stays in a register.
        let (mut touched_first, firsts) = (0, geometry.timers.min(64));
        let mut garbage = false;
        let head = lane.head().load(Ordering::Acquire);
        let drained = self.lanes[index as usize].ring.drain(lane.ring(), most, |timer, foreign| {
            let (word, bit) = (usize::from(timer / 64), 1 << (timer % 64));
            match foreign {
                None if u32::from(timer) < firsts => touched_first |= bit,
                None if u32::from(timer) < geometry.timers => touched[word] |= bit,
                Some(other) if u32::from(timer) < geometry.timers && other < geometry.lanes => {
                    update(Update::Timers { lane: other, first: timer & !63, timers: bit });
                }
                _ => garbage = true,
            }
        });
        touched[0] = touched_first;
        for (word, timers) in touched.into_iter().enumerate() {
            if timers != 0 {
                update(Update::Timers { lane: index, first: word as u16 * 64, timers });
            }
        }
        crate::atomic::add_single_writer(self.segment.counter(Counter::Drained), drained.records);
        if drained.lapped > 0 {
            crate::atomic::add_single_writer(self.segment.counter(Counter::Lapped), drained.lapped);
            update(Update::Lapped { lane: index });
        } else if drained.records == 0 {
            // The hint promises what the slots do not hold: the writer laps this very slot, or was
            // stopped at it, or is inconsistent. Looking again before the hint moves would only spin.
            self.lanes[index as usize].empty_at = Some(head);
            update(Update::Lapped { lane: index });
        }
        if garbage || drained.garbage {
            // Until it has another owner, the lane is left alone.
            self.lanes[index as usize].muted = true;
            update(Update::Garbage { lane: index });
        }
    }
}

impl<S: Sleep> Queue for Rings<'_, S> {
    type Update = Update;

    fn size(&mut self) -> usize {
        self.look()
    }

    fn get(&mut self, most: NonZeroUsize, until: Nanos, mut update: impl FnMut(Update)) {
        if self.waiting.is_empty() && self.changed.is_empty() {
            self.sleep.prepare();
            self.wake.announce(until);
            if self.look() == 0 {
                self.sleep.sleep(until);
                self.wake.awake();
                self.look();
            } else {
                self.wake.awake();
            }
        }
        self.deliver(most.get(), &mut update);
    }
}
