use hangwatch_core::watchdog::policy::{Policy, SIGKILL};
use hangwatch_core::watchdog::reap::Outcome;
use hangwatch_core::watchdog::tick::Table;
use hangwatch_core::wire::lane::{LaneState, TimerSignal};
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::stats::ScopeStats;
use hangwatch_core::wire::timer::TimerState;

use crate::world::{MAX_INTERVAL, MS, SCOPE, SECOND, World, words};

#[test]
fn a_successor_finds_every_armed_timer_with_its_deadline() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut workers: Vec<_> = (1..=8).map(|pid| world.worker(pid)).collect();
    let deadlines: Vec<_> = workers
        .iter_mut()
        .enumerate()
        .map(|(index, worker)| worker.acquire(index as u16, (index as u64 + 2) * SECOND))
        .collect();
    world.serve_for(SECOND);
    world.succeed(Policy::default());
    world.tick();
    assert_eq!(world.watchdog.table.next_deadline(), deadlines[0]);
    world.serve_for(20 * SECOND);
    for (worker, deadline) in deadlines.into_iter().enumerate() {
        world.check_killed(worker as u64 + 1, deadline);
    }
}

#[test]
fn a_successor_finds_what_was_armed_while_nobody_watched() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    for _ in 0..100 {
        worker.acquire(3, 60 * SECOND);
        worker.release(3);
    }
    let deadline = worker.acquire(0, SECOND);
    world.kernel.borrow_mut().now = world.now().plus(500 * MS);
    world.succeed(Policy::default());
    world.serve_for(5 * SECOND);
    world.check_killed(10, deadline);
}

#[test]
fn a_successor_resumes_the_reap_of_a_condemned_timer_and_counts_it_once() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGKILL));
    let deadline = hung.acquire(0, SECOND);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(world.signalled(), [(10, SIGKILL)]);
    assert_eq!(hung.state(0), Some(TimerState::Condemned));
    world.process(10, |process| process.survives.clear());
    world.succeed(Policy { max_reaps: Some(0), ..Policy::default() });
    world.serve_for(SECOND);
    assert_eq!(world.signalled(), [(10, SIGKILL), (10, SIGKILL)], "the limiter holds no reap back");
    assert_eq!(world.outcomes(), [Outcome::Reaped]);
    assert_eq!(world.count(Counter::Condemned), 1);
    assert_eq!(world.segment.lane(hung.lane).owner().state(), Some(LaneState::Free));
    let total = ScopeStats(world.segment.total(SCOPE)).snapshot();
    assert_eq!((total.condemned, total.abandoned), (1, 0));
}

#[test]
fn a_notify_only_successor_signals_nobody_for_what_was_condemned_before_it() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    hung.acquire(0, SECOND);
    assert!(hung.timer(0).condemn(hung.timer(0).load()));
    world.succeed(Policy { signal: TimerSignal::NotifyOnly, ..Policy::default() });
    world.serve_for(10 * SECOND);
    assert_eq!(world.signals(), []);
    assert_eq!(world.outcomes(), [Outcome::Reported], "told once");
    assert_eq!(hung.state(0), Some(TimerState::Condemned), "final");
    // Told to signal again, it resumes that reap.
    world.set_policy(Policy::default());
    world.serve_for(SECOND);
    assert_eq!(world.signalled(), [(10, SIGKILL)]);
}

#[test]
fn a_recycling_left_half_way_is_finished_and_nothing_counted_twice() {
    for steps in 0..4 {
        let words = words();
        let mut world = World::new(&words, Policy::default());
        let mut worker = world.worker(10);
        (0..7).for_each(|_| worker.stats().acquired());
        (0..6).for_each(|_| worker.stats().released(1_000));
        worker.acquire(0, 60 * SECOND);
        world.serve_for(SECOND);
        world.kernel.borrow_mut().kill(10);
        // The dead watchdog came this far.
        let lane = world.segment.lane(worker.lane);
        if steps > 0 {
            assert!(lane.begin_recycling(worker.owner).is_some());
        }
        if steps > 1 {
            world.segment.end_timer(worker.lane, 0);
        }
        if steps > 2 {
            world.segment.fold_lane(worker.lane);
        }
        world.succeed(Policy::default());
        world.serve_for(SECOND);
        assert_eq!(lane.owner().state(), Some(LaneState::Free), "after {steps} steps");
        let total = ScopeStats(world.segment.total(SCOPE)).snapshot();
        assert_eq!((total.acquired, total.released(), total.abandoned), (7, 6, 1));
        assert_eq!(world.signals(), []);
    }
}
