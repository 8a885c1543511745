use hangwatch_core::atomic::AtomicU64;
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::Nanos;

use crate::world::{MAX_INTERVAL, MS, SECOND, World, words};

const STALL: u64 = 3 * SECOND;

/// A worker with a deadline nearer than the max interval; the machine stands still while the watchdog
/// sleeps towards it. Returns when the worker is due at the earliest: nobody knows when in the sleep
/// the stall began, so it gets the whole of its timeout from the end of it.
fn stalled(words: &[AtomicU64]) -> (World<'_>, Nanos) {
    let mut world = World::new(words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    worker.acquire(0, 50 * MS);
    world.watchdog.tick(); // its record are updates
    world.kernel.borrow_mut().oversleeps = STALL;
    world.tick();
    let due = world.now().plus(50 * MS);
    assert_eq!(world.count(Counter::Stalls), 1);
    (world, due)
}

#[test]
fn a_stall_is_given_back_once_and_a_hung_worker_reaped_afterwards() {
    let words = words();
    let (mut world, due) = stalled(&words);
    assert_eq!(world.signals(), [], "nobody is killed for the stall");
    world.serve_until(due);
    world.serve_for(5 * SECOND);
    world.check_killed(10, due);
    assert_eq!(world.count(Counter::Stalls), 1);
}

#[test]
fn a_successor_honours_the_credit() {
    let words = words();
    let (mut world, due) = stalled(&words);
    world.succeed(Policy::default());
    world.serve_for(5 * SECOND);
    world.check_killed(10, due);
}

#[test]
fn a_stall_in_the_middle_of_a_long_timeout_is_added_to_it() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    let deadline = worker.acquire(0, 10 * SECOND);
    world.serve_for(SECOND);
    world.kernel.borrow_mut().oversleeps = STALL;
    world.serve_for(5 * SECOND);
    world.serve_for(20 * SECOND);
    let killed_at = world.signals()[0].at;
    let credited = killed_at.since(deadline);
    assert!((STALL..=STALL + 2 * MAX_INTERVAL).contains(&credited), "{credited}");
}

#[test]
fn a_stall_between_two_ticks_is_given_back_too() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    let deadline = worker.acquire(0, SECOND);
    world.serve_for(500 * MS);
    world.kernel.borrow_mut().now = world.now().plus(STALL);
    world.serve_for(10 * SECOND);
    world.check_killed(10, deadline.plus(STALL));
}

#[test]
fn a_timer_acquired_after_a_stall_gets_nothing_of_it() {
    let words = words();
    let (mut world, _) = stalled(&words);
    let mut second = world.worker(20);
    let deadline = second.acquire(0, SECOND);
    world.serve_for(5 * SECOND);
    world.check_killed(20, deadline);
}

#[test]
fn lateness_below_the_threshold_is_no_stall() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    let deadline = worker.acquire(0, SECOND);
    world.serve_for(500 * MS);
    for _ in 0..4 {
        world.kernel.borrow_mut().oversleeps = 90 * MS;
        world.tick();
    }
    world.serve_for(5 * SECOND);
    world.check_killed(10, deadline);
    assert_eq!(world.count(Counter::Stalls), 0);
}
