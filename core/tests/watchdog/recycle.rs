use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::watchdog::tick::Table;
use hangwatch_core::wire::lane::LaneState;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::stats::{Counts, ScopeStats};
use hangwatch_core::wire::time::Nanos;

use crate::world::{SCOPE, SECOND, World, words};

#[test]
fn the_lanes_of_a_dead_worker_come_back_with_their_statistics_exact() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut first, second) = (world.worker(10), world.thread(10));
    for worker in [&first, &second] {
        (0..100).for_each(|_| worker.stats().acquired());
    }
    (0..99).for_each(|_| first.stats().released(5_000));
    (0..100).for_each(|_| second.stats().released(7_000));
    first.acquire(0, 60 * SECOND);
    world.serve_for(SECOND);
    world.kernel.borrow_mut().kill(10);
    world.serve_for(SECOND);
    for worker in [&first, &second] {
        let lane = world.segment.lane(worker.lane);
        assert_eq!(lane.owner().state(), Some(LaneState::Free));
        assert_eq!(ScopeStats(&lane.stats()[0]).snapshot(), Counts::default());
    }
    let total = ScopeStats(world.segment.total(SCOPE)).snapshot();
    assert_eq!((total.acquired, total.released(), total.abandoned), (200, 199, 1));
    assert_eq!((total.sum_ns, total.max_ns), (99 * 5_000 + 100 * 7_000, 7_000));
    assert_eq!((world.signals(), world.count(Counter::Recycled)), (vec![], 2));
    assert_eq!(world.watchdog.table.next_deadline(), Nanos::NEVER);
}

#[test]
fn a_detached_lane_is_recycled_while_its_process_lives() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (gone, mut stays) = (world.worker(10), world.thread(10));
    stays.acquire(0, 60 * SECOND);
    gone.stats().acquired();
    gone.stats().released(1);
    world.serve_for(SECOND);
    gone.detach();
    world.serve_for(SECOND);
    assert_eq!(world.segment.lane(gone.lane).owner().state(), Some(LaneState::Free));
    assert_eq!(world.segment.lane(stays.lane).owner(), stays.owner);
    assert_eq!(ScopeStats(world.segment.total(SCOPE)).snapshot().released(), 1);
}

#[test]
fn a_detached_lane_that_is_claimed_first_is_left_to_its_claimant() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let first = world.worker(10);
    first.stats().acquired();
    world.serve_for(SECOND);
    first.detach();
    let mut second = world.thread(10);
    assert_eq!(second.lane, first.lane);
    let deadline = second.acquire(0, SECOND);
    world.serve_for(3 * SECOND);
    world.check_killed(10, deadline);
    assert_eq!(ScopeStats(world.segment.total(SCOPE)).snapshot().acquired, 1, "by its death");
}

#[test]
fn the_next_owner_of_a_lane_is_not_held_to_the_last_ones_timers() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut first = world.worker(10);
    first.acquire(0, 2 * SECOND);
    world.serve_for(SECOND);
    world.kernel.borrow_mut().kill(10);
    world.serve_for(500_000_000);
    let mut second = world.worker(20);
    assert_eq!(second.lane, first.lane);
    let deadline = second.acquire(0, 5 * SECOND);
    world.serve_for(10 * SECOND);
    world.check_killed(20, deadline);
    assert_eq!(world.signals().len(), 1);
}

#[test]
fn a_silent_lane_is_never_recycled() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let worker = world.worker(10);
    world.serve_for(600 * SECOND);
    assert_eq!(world.segment.lane(worker.lane).owner(), worker.owner);
}
