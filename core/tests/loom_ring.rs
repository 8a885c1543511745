//! The ring under loom: a writer laps a reader, and nothing the reader is handed is torn.
#![cfg(loom)]

use hangwatch_core::atomic::AtomicU64;
use hangwatch_core::wire::record::{Operation, Place, Record};
use hangwatch_core::wire::ring::{Read, RingReader, RingWriter};
use hangwatch_core::wire::time::Nanos;
use loom::sync::Arc;
use loom::thread;

/// Two slots: the third record laps the first.
const SLOTS: usize = 2;
const RECORDS: u16 = 3;

struct Ring {
    slots: Vec<[AtomicU64; 4]>,
    head: AtomicU64,
}

impl Ring {
    fn new() -> Arc<Ring> {
        let slots =
            (0..SLOTS).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect::<Vec<_>>();
        Arc::new(Ring { slots, head: AtomicU64::new(0) })
    }
}

/// A record whose every field follows from its number.
fn record(number: u16) -> Record {
    Record {
        operation: Operation::Acquire,
        place: Place::Foreign,
        lane: 100 + u32::from(number),
        timer: number,
        scope: 200 + number,
        signal: 9,
        at: Nanos(300 + u64::from(number)),
        deadline: Nanos(400 + u64::from(number)),
    }
}

fn write_all(ring: &Ring) {
    let mut writer = RingWriter::resume(&ring.slots, &ring.head);
    (0..RECORDS).for_each(|number| writer.push(&record(number)));
}

#[test]
fn a_lapped_reader_never_gets_a_torn_record() {
    loom::model(|| {
        let ring = Ring::new();
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || write_all(&ring))
        };
        let (mut reader, mut next, mut lost) = (RingReader::default(), 0, 0);
        let mut read_one = || match reader.next(&ring.slots) {
            Read::Record(found) => {
                assert!(found.timer >= next, "{found:?} came again");
                assert_eq!(found, record(found.timer), "torn");
                next = found.timer + 1;
                1
            }
            Read::Lapped(count) => {
                lost += count;
                0
            }
            Read::Nothing => 0,
            Read::Garbage => panic!("an honest ring is no garbage"),
        };
        let mut found: u64 = (0..2).map(|_| read_one()).sum();
        writer.join().unwrap();
        // The writer is done: whatever was not read by now can be, or was lost and said so.
        found += (0..4).map(|_| read_one()).sum::<u64>();
        assert_eq!(found + lost, u64::from(RECORDS));
    });
}

#[test]
fn a_drain_never_pairs_a_stamp_with_the_lane_of_another_record() {
    loom::model(|| {
        let ring = Ring::new();
        let writer = {
            let ring = ring.clone();
            thread::spawn(move || write_all(&ring))
        };
        let mut reader = RingReader::default();
        let mut drain = |most| {
            let drained = reader.drain(&ring.slots, most, |timer, lane| {
                assert_eq!(lane, Some(100 + u32::from(timer)));
            });
            assert!(!drained.garbage);
            drained.records + drained.lapped
        };
        let during = drain(2);
        writer.join().unwrap();
        assert_eq!(during + drain(4), u64::from(RECORDS));
    });
}
