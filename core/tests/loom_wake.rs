//! The wake protocol under loom: a near deadline is either seen by the watchdog's last look or rings
//! the doorbell, however the two race.
#![cfg(loom)]

use hangwatch_core::atomic::{AtomicU32, AtomicU64, Ordering};
use hangwatch_core::shared::wake::Wake;
use hangwatch_core::wire::record::{Operation, Place, Record};
use hangwatch_core::wire::ring::{RingReader, RingWriter};
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::Timer;
use loom::sync::Arc;
use loom::thread;

const MAX_INTERVAL_NS: u64 = 100_000_000;
const NEAR: Nanos = Nanos(5_000_000);
const WAKE_AT: Nanos = Nanos(90_000_000);

struct Shared {
    timer: AtomicU64,
    slots: Vec<[AtomicU64; 4]>,
    head: AtomicU64,
    next_wake: AtomicU64,
    doorbell: AtomicU32,
}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            timer: AtomicU64::new(0),
            slots: (0..2).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect(),
            head: AtomicU64::new(0),
            next_wake: AtomicU64::new(0),
            doorbell: AtomicU32::new(0),
        })
    }

    fn wake(&self) -> Wake<'_> {
        Wake::new(&self.next_wake, MAX_INTERVAL_NS)
    }

    /// The worker's side: timer, record, and a ring where the deadline is nearer than the wake.
    fn acquire(&self, deadline: Nanos) {
        Timer(&self.timer).arm(Units::at_or_after(deadline));
        RingWriter::resume(&self.slots, &self.head).push(&Record {
            operation: Operation::Acquire,
            place: Place::Own,
            lane: 0,
            timer: 0,
            scope: 0,
            signal: 0,
            at: Nanos(0),
            deadline,
        });
        if self.wake().must_ring(deadline, deadline.0) {
            // Relaxed: the kernel's futex orders a ring and a sleep.
            self.doorbell.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn looks_empty(&self, reader: RingReader) -> bool {
        reader.waiting(self.head.load(Ordering::Relaxed), self.slots.len()) == 0
    }
}

/// The watchdog goes to sleep `rounds` times, woken for nothing between; a sleep that nobody would
/// end before the near deadline is a lost wake-up.
fn check(rounds: usize) {
    loom::model(move || {
        let shared = Shared::new();
        let worker = {
            let shared = shared.clone();
            thread::spawn(move || shared.acquire(NEAR))
        };
        let (mut seen, mut prepared) = (false, 0);
        for _ in 0..rounds {
            if seen {
                break;
            }
            prepared = shared.doorbell.load(Ordering::Relaxed);
            shared.wake().announce(WAKE_AT);
            seen = !shared.looks_empty(RingReader::default());
            if rounds > 1 {
                shared.wake().awake();
                seen |= !shared.looks_empty(RingReader::default());
            }
        }
        if !seen && rounds > 1 {
            prepared = shared.doorbell.load(Ordering::Relaxed);
            shared.wake().announce(WAKE_AT);
            seen = !shared.looks_empty(RingReader::default());
        }
        worker.join().unwrap();
        let rung = shared.doorbell.load(Ordering::Relaxed) != prepared;
        assert!(seen || rung, "the watchdog sleeps past a near deadline");
    });
}

#[test]
fn a_near_deadline_is_seen_or_rings() {
    check(1);
}

#[test]
fn a_near_deadline_is_seen_or_rings_after_a_wake_for_nothing() {
    check(2);
}

#[test]
fn a_deadline_beyond_the_max_interval_costs_nothing_shared() {
    loom::model(|| {
        let shared = Shared::new();
        shared.wake().announce(Nanos::NEVER);
        shared.acquire(Nanos(MAX_INTERVAL_NS));
        assert_eq!(shared.doorbell.load(Ordering::Relaxed), 0);
    });
}
