use hangwatch_core::atomic::Ordering;
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::watchdog::tick::Table;
use hangwatch_core::wire::lane::TimerSignal;
use hangwatch_core::wire::record::{Operation, Place, Stamp};
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::Nanos;

use crate::world::{MAX_INTERVAL, MS, SECOND, World, words};

#[test]
fn the_table_knows_the_next_deadline_from_the_records() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(MAX_INTERVAL);
    worker.acquire(2, 9 * SECOND);
    let deadline = worker.acquire(5, 3 * SECOND);
    world.serve_for(MAX_INTERVAL);
    assert_eq!(world.watchdog.table.next_deadline(), deadline);
    worker.release(5);
    world.serve_for(MAX_INTERVAL);
    assert!(world.watchdog.table.next_deadline() > deadline);
    worker.release(2);
    world.serve_for(MAX_INTERVAL);
    assert_eq!(world.watchdog.table.next_deadline(), Nanos::NEVER);
}

#[test]
fn a_lapped_ring_loses_no_timer() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    let deadline = worker.acquire(6, 5 * SECOND);
    for _ in 0..1_000 {
        worker.acquire(0, 60 * SECOND);
        worker.release(0);
    }
    world.tick();
    world.tick();
    assert!(world.count(Counter::Lapped) > 0, "the ring was to lap");
    assert_eq!(world.watchdog.table.next_deadline(), deadline, "known long before it is due");
    world.serve_for(10 * SECOND);
    world.check_killed(10, deadline);
}

#[test]
fn a_timer_stored_without_its_record_is_found_within_a_tick_of_its_deadline() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    let armed = worker.arm_silently(7, 2 * SECOND + 30 * MS, TimerSignal::Default);
    world.serve_for(10 * SECOND);
    world.check_killed(10, armed.deadline().begins());
}

#[test]
fn a_near_deadline_armed_during_a_sleep_is_met_by_the_next_tick() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    let deadline = world.now().plus(10 * MS);
    world.kernel.borrow_mut().during_sleep = Some(Box::new(move || {
        worker.arm_silently(0, 10 * MS, TimerSignal::Default);
    }));
    world.serve_for(5 * SECOND);
    world.check_killed(10, deadline);
}

#[test]
fn a_release_by_another_lane_reaches_the_table() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut owner, mut other) = (world.worker(10), world.thread(10));
    owner.acquire(3, 5 * SECOND);
    world.serve_for(SECOND);
    let timer = owner.timer(3);
    timer.release(timer.load());
    other.tell(Operation::Release, Place::Foreign, owner.lane, 3);
    world.serve_for(MAX_INTERVAL);
    assert_eq!(world.watchdog.table.next_deadline(), Nanos::NEVER);
    world.serve_for(10 * SECOND);
    assert_eq!(world.signals(), []);
}

/// A worker stopped in the middle of a record, a lap behind: its hint says that there is something,
/// its slot that there is nothing.
#[test]
fn a_record_that_is_never_finished_does_not_make_the_watchdog_spin() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    let deadline = worker.acquire(4, 5 * SECOND);
    (0..15).for_each(|_| worker.tell(Operation::Rearm, Place::Own, worker.lane, 4));
    let lane = world.segment.lane(worker.lane);
    let next = lane.head().load(Ordering::Relaxed) as usize % lane.ring().len();
    lane.ring()[next][0].store(Stamp::NONE.0, Ordering::Relaxed);
    world.serve_for(SECOND);
    assert!(world.sleeps() < 100, "{} sleeps", world.sleeps());
    assert_eq!(world.watchdog.table.next_deadline(), deadline);
    worker.tell(Operation::Rearm, Place::Own, worker.lane, 4);
    worker.acquire(5, 2 * SECOND);
    world.serve_for(MAX_INTERVAL);
    assert!(world.watchdog.table.next_deadline() < deadline, "it goes on when the worker does");
}

#[test]
fn an_idle_watchdog_looks_once_a_max_interval() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    worker.acquire(0, 3600 * SECOND);
    world.serve_for(SECOND);
    let before = world.sleeps();
    world.serve_for(10 * SECOND);
    assert_eq!(world.sleeps() - before, 100);
}
