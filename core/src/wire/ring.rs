//! The ring: a lane's log of records, of which the newest overwrite the oldest.
//!
//! One thread writes ([`RingWriter`]), any number read ([`RingReader`]), nobody waits. The protocol
//! is Agrona's broadcast buffer reduced to fixed slots:
//!
//! * The writer clears the stamp, fences, writes the payload, then publishes the stamp.
//! * The reader takes the stamp, the payload, the stamp again: equal and of the position it asked
//!   for, the payload belongs to it.
//! * The reader keeps its own position. The writer publishes its own as a hint only ([`Lane::head`]):
//!   it says how much there may be, never what is read.
//!
//! A reader that falls behind by a lap loses the updates between, is told how many, and must look at
//! the timer words themselves. What the table needs stands in the stamp alone, so the drain
//! ([`RingReader::drain`]) reads one word a record; flight records read all four
//! ([`RingReader::next`]).
//!
//! [`Lane::head`]: crate::wire::lane::Lane::head

use crate::atomic::{AtomicU64, Ordering};
use crate::wire::record::{Operation, POSITION_BITS, Place, Record, Stamp};
use crate::wire::stamped::Stamped;

/// A ring's slots, four words each; a power of two of them.
pub type Slots<'a> = &'a [[AtomicU64; 4]];

/// The one writer of a ring.
#[derive(Debug)]
pub struct RingWriter<'a> {
    slots: Slots<'a>,
    head: &'a AtomicU64,
    position: u64,
}

impl<'a> RingWriter<'a> {
    /// A writer that goes on where the lane's last one stopped, by the hint it left.
    pub fn resume(slots: Slots<'a>, head: &'a AtomicU64) -> Self {
        // Relaxed: the claim of the lane's owner word ordered this thread after the last writer.
        RingWriter { slots, head, position: head.load(Ordering::Relaxed) }
    }

    /// Writes `record` over the oldest one. Never waits, never fails.
    #[inline]
    pub fn push(&mut self, record: &Record) {
        self.write(record.operation, record.place, record.timer, record.payload());
    }

    /// As [`RingWriter::push`], with the payload packed already: time, deadline and subject.
    #[inline]
    pub fn write(&mut self, operation: Operation, place: Place, timer: u16, payload: [u64; 3]) {
        let position = self.position;
        let index = (position as usize) & (self.slots.len() - 1);
        let new = Stamp::new(position, operation, timer).with_place(place);
        stamped(&self.slots[index]).write(Stamp::NONE.0, payload, new.0);
        self.position = position.wrapping_add(1);
        // Release: pairs with the Acquire in `Rings`: whoever sees the hint finds the record.
        self.head.store(self.position, Ordering::Release);
    }
}

/// What one read of a ring found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next record.
    Record(Record),
    /// Nothing new, or a record that is being written.
    Nothing,
    /// This many records were overwritten before they were read; read again.
    Lapped(u64),
    /// A stamp no writer of ours makes: the lane is inconsistent.
    Garbage,
}

/// What a drain found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records read.
    pub records: u64,
    /// Records overwritten before they were read: look at the timer words.
    pub lapped: u64,
    /// Whether a stamp was found that no writer of ours makes.
    pub garbage: bool,
}

/// A reader's place in a ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingReader {
    position: u64,
}

impl RingReader {
    /// A reader that begins at the record `position`.
    pub fn at(position: u64) -> Self {
        RingReader { position }
    }

    /// A reader of the last `back` records before `head`.
    pub fn behind(head: u64, back: usize) -> Self {
        RingReader { position: head.wrapping_sub(back as u64) }
    }

    /// How many records wait by the writer's hint: at most the ring's capacity.
    #[inline]
    pub fn waiting(&self, head: u64, capacity: usize) -> usize {
        (head.wrapping_sub(self.position) & ((1 << POSITION_BITS) - 1)).min(capacity as u64)
            as usize
    }

    /// Where a stamp ahead of the reader's position puts it: past all that may be gone.
    #[inline]
    fn skip_to(&mut self, ahead: u64, capacity: usize) -> Option<u64> {
        // A slot holds positions that differ by whole laps only; anything else is no stamp of ours.
        let laps = ahead / capacity as u64;
        if ahead >= 1 << (POSITION_BITS - 1) {
            return None; // an older lap: not written yet
        }
        // The oldest record that may be whole is the one after the slot just seen, a lap earlier.
        let lost = (laps - 1) * capacity as u64 + 1;
        self.position = self.position.wrapping_add(lost);
        Some(lost)
    }

    /// Reads up to `most` records and hands `updates` the timer that each tells of, and that timer's lane
    /// where it is another.
    ///
    /// A stamp is a single word, so it needs no second look; whoever gets it decides by the timer
    /// word itself.
    #[inline]
    pub fn drain(
        &mut self,
        slots: Slots<'_>,
        most: usize,
        mut update: impl FnMut(u16, Option<u32>),
    ) -> Drained {
        let mut drained = Drained::default();
        let mask = slots.len() - 1;
        let mut position = self.position;
        let mut left = most;
        while left > 0 {
            // Straight on to the end of the slots: nearly always, all are the lane's own.
            let ahead = &slots[position as usize & mask..];
            let ahead = &ahead[..left.min(ahead.len())];
            let mut own = 0;
            let other = ahead.iter().find_map(|slot| {
                // Acquire: pairs with the Release of the stamp in `write`; what the writer did to
                // the timer word before is visible.
                let stamp = Stamp(slot[0].load(Ordering::Acquire));
                let Some(timer) = stamp.own_timer_at(position) else { return Some((slot, stamp)) };
                update(timer, None);
                position = position.wrapping_add(1);
                own += 1;
                None
            });
            left -= own;
            let Some((slot, stamp)) = other else { continue };
            left -= 1;
            match other_record(slot, stamp, position, mask) {
                Other::Foreign(lane) => {
                    update(stamp.timer(), Some(lane));
                    position = position.wrapping_add(1);
                }
                Other::Overwritten => {} // the next look finds the later lap
                Other::Nothing => break,
                Other::Garbage => {
                    drained.garbage = true;
                    break;
                }
                Other::Lapped(ahead) => {
                    position = position.wrapping_add(ahead);
                    drained.lapped += ahead;
                }
            }
        }
        drained.records = position.wrapping_sub(self.position) - drained.lapped;
        self.position = position;
        drained
    }

    /// Reads one whole record.
    pub fn next(&mut self, slots: Slots<'_>) -> Read {
        let mask = slots.len() - 1;
        let slot = stamped(&slots[self.position as usize & mask]);
        let before = Stamp(slot.stamp());
        if before == Stamp::NONE {
            return Read::Nothing;
        }
        let ahead = before.ahead_of(self.position);
        if ahead & mask as u64 != 0 {
            return Read::Garbage;
        }
        if ahead != 0 {
            return self.skip_to(ahead, slots.len()).map_or(Read::Nothing, Read::Lapped);
        }
        let Some(payload) = slot.read(before.0) else {
            return Read::Nothing; // being overwritten: the next look finds the later lap
        };
        match Record::from_parts(before, payload) {
            Some(record) => {
                self.position = self.position.wrapping_add(1);
                Read::Record(record)
            }
            None => Read::Garbage,
        }
    }
}

/// What a slot holds that is not the next record of the lane's own timers.
enum Other {
    /// The next record; it tells of this other lane's timer.
    Foreign(u32),
    /// The next record, overwritten while it was read.
    Overwritten,
    /// Nothing yet: a record that is being written, or one of an older lap.
    Nothing,
    /// A stamp no writer of ours makes.
    Garbage,
    /// A record so many positions ahead, the newest known. On with that one: whoever hears of a lap
    /// looks at the timers themselves, and to read the oldest that still stand would be to race the
    /// writer, who overwrites just those.
    Lapped(u64),
}

#[cold]
fn other_record(slot: &[AtomicU64; 4], stamp: Stamp, position: u64, mask: usize) -> Other {
    let ahead = stamp.ahead_of(position);
    if stamp == Stamp::NONE {
        Other::Nothing
    } else if ahead & mask as u64 != 0 || stamp.operation().is_none() {
        Other::Garbage
    } else if ahead == 0 {
        foreign_lane(slot, stamp).map_or(Other::Overwritten, Other::Foreign)
    } else if ahead >= 1 << (POSITION_BITS - 1) {
        Other::Nothing
    } else {
        Other::Lapped(ahead)
    }
}

/// The lane a foreign record tells of, `None` where the record was overwritten meanwhile.
fn foreign_lane(slot: &[AtomicU64; 4], seen: Stamp) -> Option<u32> {
    let [_, _, what] = stamped(slot).read(seen.0)?;
    Some((what >> 32) as u32)
}

/// A slot's payload under its stamp.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it is only a way of looking at the words")]
fn stamped([stamp, payload @ ..]: &[AtomicU64; 4]) -> Stamped<'_, 3> {
    Stamped { stamp, words: payload.each_ref() }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::record::{Operation, Place};
    use crate::wire::time::Nanos;

    fn slots(count: usize) -> Vec<[AtomicU64; 4]> {
        (0..count).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect()
    }

    fn record(timer: u16) -> Record {
        Record {
            operation: Operation::Acquire,
            place: Place::Own,
            lane: 1,
            timer,
            scope: 2,
            signal: 9,
            at: Nanos(u64::from(timer)),
            deadline: Nanos(7),
        }
    }

    #[test]
    fn records_come_out_in_order_and_once() {
        let (slots, head) = (slots(16), AtomicU64::new(0));
        let mut writer = RingWriter::resume(&slots, &head);
        let mut reader = RingReader::default();
        for round in 0..10u16 {
            for timer in 0..5 {
                writer.push(&record(round * 5 + timer));
            }
            assert_eq!(reader.waiting(head.load(Ordering::Relaxed), 16), 5);
            let mut seen = Vec::new();
            let drained = reader.drain(&slots, 16, |timer, _| seen.push(timer));
            assert_eq!(drained, Drained { records: 5, lapped: 0, garbage: false });
            assert_eq!(seen, (round * 5..round * 5 + 5).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_lapped_reader_is_told_how_many_it_lost_and_reads_the_rest() {
        let (slots, head) = (slots(16), AtomicU64::new(0));
        let mut writer = RingWriter::resume(&slots, &head);
        let mut reader = RingReader::default();
        for timer in 0..100 {
            writer.push(&record(timer));
        }
        let (mut lost, mut seen) = (0, Vec::new());
        loop {
            match reader.next(&slots) {
                Read::Record(record) => seen.push(record.timer),
                Read::Lapped(count) => lost += count,
                Read::Nothing => break,
                Read::Garbage => panic!("an honest ring is no garbage"),
            }
        }
        assert_eq!(lost + seen.len() as u64, 100);
        assert_eq!(seen, (84..100).collect::<Vec<_>>(), "all that still stand");
    }

    #[test]
    fn a_drain_takes_no_more_than_asked() {
        let (slots, head) = (slots(16), AtomicU64::new(0));
        let mut writer = RingWriter::resume(&slots, &head);
        (0..9).for_each(|timer| writer.push(&record(timer)));
        let mut reader = RingReader::default();
        assert_eq!(reader.drain(&slots, 4, |_, _| ()).records, 4);
        assert_eq!(reader.drain(&slots, 16, |_, _| ()).records, 5);
        assert_eq!(reader.drain(&slots, 16, |_, _| ()).records, 0);
    }

    #[test]
    fn a_lapped_drain_goes_on_with_what_is_newest() {
        let (slots, head) = (slots(16), AtomicU64::new(0));
        let mut writer = RingWriter::resume(&slots, &head);
        (0..100).for_each(|timer| writer.push(&record(timer)));
        let (mut reader, mut seen) = (RingReader::default(), Vec::new());
        let drained = reader.drain(&slots, 16, |timer, _| seen.push(timer));
        assert_eq!(seen, [96, 97, 98, 99], "from the one that stands where the first stood");
        assert_eq!(drained, Drained { records: 4, lapped: 96, garbage: false });
    }

    #[test]
    fn positions_wrap() {
        let start = (1 << POSITION_BITS) - 3;
        let (slots, head) = (slots(16), AtomicU64::new(start));
        let mut writer = RingWriter::resume(&slots, &head);
        let mut reader = RingReader::at(start);
        (0..8).for_each(|timer| writer.push(&record(timer)));
        assert_eq!(reader.drain(&slots, 16, |_, _| ()).records, 8);
    }

    #[test]
    fn a_stamp_of_no_lap_is_garbage() {
        let slots = slots(16);
        slots[0][0].store(Stamp::new(5, Operation::Acquire, 0).0, Ordering::Relaxed);
        let mut reader = RingReader::default();
        assert!(reader.drain(&slots, 16, |_, _| ()).garbage);
        assert_eq!(reader.next(&slots), Read::Garbage);
    }

    #[test]
    fn a_foreign_record_brings_its_lane() {
        let (slots, head) = (slots(16), AtomicU64::new(0));
        let mut writer = RingWriter::resume(&slots, &head);
        writer.push(&Record { place: Place::Foreign, lane: 7, ..record(3) });
        let mut seen = None;
        RingReader::default().drain(&slots, 16, |timer, lane| seen = Some((timer, lane)));
        assert_eq!(seen, Some((3, Some(7))));
    }
}
