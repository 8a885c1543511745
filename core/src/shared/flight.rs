//! The flight record: the newest records of a lane's ring, as evidence of what its thread did last.
//!
//! It is read without disturbing the writer, who may be at work, stopped or dead. Neighbours: [`ring`]
//! has the protocol of one record, the drain in [`updates`] reads for the table and keeps its place.
//!
//! [`ring`]: crate::wire::ring
//! [`updates`]: crate::watchdog::updates

use alloc::vec::Vec;

use crate::atomic::Ordering;
use crate::shared::calibration::COARSE_TOLERANCE_NS;
use crate::wire::lane::Lane;
use crate::wire::record::Record;
use crate::wire::ring::{Read, RingReader};

/// The newest records of the lane's owner that stand whole, up to `most` of them, the oldest first
/// and without a gap.
///
/// Those that an earlier owner of the lane wrote are left out, as far as their time tells. What is
/// said in them is the owner's claim, as all that stands in a lane.
pub fn latest(lane: Lane<'_>, most: usize) -> Vec<Record> {
    let slots = lane.ring();
    // Acquire: pairs with the Release in `RingWriter::write`: what lies before the head is written.
    let head = lane.head().load(Ordering::Acquire);
    let attached_at = lane.identity().attached_at;
    let mut records = Vec::new();
    // Backwards: the writer, if it is at work, overwrites the oldest first, and one that died while it
    // wrote leaves a hole where the oldest was.
    for back in 1..=most.min(slots.len()) {
        let Read::Record(record) = RingReader::behind(head, back).next(slots) else { break };
        if record.at.plus(COARSE_TOLERANCE_NS).0 < attached_at {
            break;
        }
        records.push(record);
    }
    records.reverse();
    records
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::wire::lane::{Identity, LaneNames};
    use crate::wire::record::{Operation, Place};
    use crate::wire::ring::RingWriter;
    use crate::wire::segment::Segment;
    use crate::wire::segment::tests::tiny_segment;
    use crate::wire::time::Nanos;

    const ATTACHED_AT: u64 = 1_000_000_000;

    /// Attaches to lane 0 of a small segment (its ring holds 16), lets `write` write and gives the
    /// timers of its latest records, of which each has its own.
    fn flown(most: usize, write: impl FnOnce(Lane<'_>, &mut RingWriter<'_>)) -> Vec<u16> {
        let words = tiny_segment();
        let lane = Segment::open(&words).unwrap().lane(0);
        let identity = Identity { attached_at: ATTACHED_AT, ..Identity::default() };
        let claimed = lane.claim(7).unwrap();
        lane.attach(claimed, identity, LaneNames::default());
        write(lane, &mut RingWriter::resume(lane.ring(), lane.head()));
        latest(lane, most).iter().map(|record| record.timer).collect()
    }

    fn record(timer: u16, at: u64) -> Record {
        Record {
            operation: Operation::Acquire,
            place: Place::Own,
            lane: 0,
            timer,
            scope: 2,
            signal: 9,
            at: Nanos(at),
            deadline: Nanos(at + 9),
        }
    }

    fn push_all(writer: &mut RingWriter<'_>, timers: core::ops::Range<u16>) {
        for timer in timers {
            writer.push(&record(timer, ATTACHED_AT + u64::from(timer)));
        }
    }

    #[test]
    fn the_newest_come_oldest_first() {
        assert_eq!(flown(3, |_, writer| push_all(writer, 0..9)), [6, 7, 8]);
        assert_eq!(flown(100, |_, writer| push_all(writer, 0..3)), [0, 1, 2]);
        assert_eq!(flown(100, |_, _| ()), []);
        let all = flown(100, |_, writer| push_all(writer, 0..40));
        assert_eq!(all, (24..40).collect::<Vec<_>>(), "no more than the ring holds");
    }

    #[test]
    fn who_died_while_it_wrote_leaves_the_rest_to_be_read() {
        let seen = flown(100, |lane, writer| {
            push_all(writer, 0..40);
            // The next record would take the place of the oldest.
            lane.ring()[40 % 16][0].store(0, Ordering::Relaxed);
        });
        assert_eq!(seen, (25..40).collect::<Vec<_>>());
    }

    #[test]
    fn an_earlier_owners_records_are_left_out() {
        let seen = flown(100, |_, writer| {
            writer.push(&record(1, ATTACHED_AT - COARSE_TOLERANCE_NS - 1));
            writer.push(&record(2, ATTACHED_AT - COARSE_TOLERANCE_NS));
            writer.push(&record(3, ATTACHED_AT));
        });
        assert_eq!(seen, [2, 3], "but a coarse clock may lie behind");
    }

    #[test]
    fn an_inconsistent_lane_yields_no_more_than_it_holds() {
        let seen = flown(100, |lane, writer| {
            push_all(writer, 0..16);
            lane.head().store(u64::MAX, Ordering::Relaxed);
        });
        assert_eq!(seen, []);
        let seen = flown(100, |lane, writer| {
            push_all(writer, 0..16);
            lane.ring()[13][0].fetch_or(7 << 16, Ordering::Relaxed);
        });
        assert!(seen.len() <= 16, "{seen:?}");
        let seen = flown(100, |lane, writer| {
            push_all(writer, 0..16);
            lane.ring()[13][0].store(u64::MAX, Ordering::Relaxed);
        });
        assert_eq!(seen, [14, 15], "up to the inconsistent record");
    }
}
