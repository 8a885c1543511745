use hangwatch_core::atomic::Ordering;
use hangwatch_core::watchdog::expiry::Request;
use hangwatch_core::watchdog::policy::{Policy, SIGKILL};
use hangwatch_core::watchdog::reap::{Hold, Outcome, State, Verdict};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::{LaneState, NotedHold, TimerSignal};
use hangwatch_core::wire::record::{Operation, Place};
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::{Released, TimerState};

use crate::world::{MAX_INTERVAL, MS, SECOND, Told, World, words};

const SIGTERM: u8 = 15;

#[test]
fn a_hung_worker_is_condemned_killed_and_its_lane_recycled_the_others_untouched() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut hung, mut fine) = (world.worker(10), world.worker(20));
    let deadline = hung.acquire(0, SECOND);
    fine.acquire(0, 10 * SECOND);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    world.check_killed(10, deadline);
    assert_eq!(world.signals().len(), 1, "nobody else");
    world.serve_for(SECOND);
    assert_eq!(world.outcomes(), [Outcome::Reaped]);
    assert_eq!(world.segment.lane(hung.lane).owner().state(), Some(LaneState::Free));
    assert_eq!(hung.state(0), Some(TimerState::Idle));
    assert_eq!(fine.state(0), Some(TimerState::Armed));
    let counts = [Counter::Expired, Counter::Condemned, Counter::Reaped, Counter::Recycled]
        .map(|counter| world.count(counter));
    assert_eq!(counts, [1; 4]);
}

#[test]
fn a_deadline_the_table_knows_is_met_to_the_unit() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    world.serve_for(SECOND);
    let deadline = hung.acquire(0, 2 * SECOND + 31 * MS);
    world.serve_for(5 * SECOND);
    assert_eq!(world.signals()[0].at, deadline, "the sleep ends at the next deadline");
    assert_eq!(world.kernel.borrow().told_late, [0]);
}

#[test]
fn the_timers_of_a_reaped_worker_are_cleared_even_before_its_death_is_told() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    world.kernel.borrow_mut().tells_of_deaths = false;
    let mut hung = world.worker(10);
    let deadline = hung.acquire(0, SECOND);
    world.serve_until(deadline.plus(SECOND));
    world.check_killed(10, deadline);
    assert_eq!(hung.state(0), Some(TimerState::Idle));
    assert_eq!(world.outcomes(), [Outcome::Reaped]);
}

#[test]
fn a_release_before_the_tick_wins() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    worker.acquire(0, SECOND);
    world.serve_for(900 * MS);
    world.kernel.borrow_mut().now = world.now().plus(99 * MS);
    assert_eq!(worker.release(0), Released::InTime);
    world.serve_for(5 * SECOND);
    assert_eq!((world.signals(), world.told()), (vec![], vec![]));
}

#[test]
fn a_late_release_cancels_nothing() {
    let words = words();
    let policy =
        Policy { signal: TimerSignal::Signal(SIGTERM), grace_ns: 5 * SECOND, ..Policy::default() };
    let mut world = World::new(&words, policy);
    let mut hung = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    let deadline = hung.acquire(0, SECOND);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(hung.release(0), Released::TooLate);
    world.serve_for(10 * SECOND);
    assert_eq!(world.signalled(), [(10, SIGTERM), (10, SIGKILL)]);
}

#[test]
fn a_worker_that_ignores_a_signal_gets_its_grace_and_then_sigkill() {
    let words = words();
    let mut world = World::new(&words, Policy { grace_ns: 2 * SECOND, ..Policy::default() });
    let mut hung = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    let deadline = hung.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert!(matches!(world.watchdog.reaper.state(WorkerId(10)), Some(State::InGrace { .. })));
    world.serve_for(10 * SECOND);
    let signals = world.signals();
    assert_eq!(world.signalled(), [(10, SIGTERM), (10, SIGKILL)]);
    let grace = signals[1].at.since(signals[0].at);
    assert!((2 * SECOND..=2 * SECOND + MAX_INTERVAL).contains(&grace), "{grace}");
    assert_eq!(world.outcomes(), [Outcome::Reaped]);
}

#[test]
fn a_worker_that_ends_in_its_grace_is_signalled_once() {
    let words = words();
    let mut world = World::new(&words, Policy { grace_ns: 2 * SECOND, ..Policy::default() });
    let mut hung = world.worker(10);
    let deadline = hung.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    world.serve_until(deadline.plus(10 * SECOND));
    assert_eq!(world.signalled(), [(10, SIGTERM)]);
    assert_eq!(world.outcomes(), [Outcome::Reaped]);
}

#[test]
fn a_worker_that_was_dead_already_is_not_signalled() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    world.kernel.borrow_mut().tells_of_deaths = false;
    let mut worker = world.worker(10);
    let deadline = worker.acquire(0, SECOND);
    world.serve_for(500 * MS);
    world.kernel.borrow_mut().kill(10);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(world.signals(), []);
    assert_eq!(world.outcomes(), [Outcome::Exited]);
}

#[test]
fn a_notify_only_timer_is_reported_once_and_may_be_armed_again() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    let deadline = worker.acquire_with(0, SECOND, TimerSignal::NotifyOnly);
    world.serve_until(deadline.plus(5 * SECOND));
    assert_eq!(world.outcomes(), [Outcome::Reported]);
    assert_eq!(worker.state(0), Some(TimerState::Reported));
    let again = Units::at_or_after(world.now().plus(SECOND));
    worker.timer(0).rearm(worker.timer(0).load(), again).unwrap();
    worker.tell(Operation::Rearm, Place::Own, worker.lane, 0);
    world.serve_for(5 * SECOND);
    assert_eq!(world.outcomes(), [Outcome::Reported; 2]);
    assert_eq!(worker.release(0), Released::Reported);
    assert_eq!(world.signals(), []);
}

/// The worker is stopped between the timer's store and its record, while its report is told.
#[test]
fn a_timer_armed_again_while_its_report_is_told_is_enforced() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    let deadline = worker.acquire_with(0, SECOND, TimerSignal::NotifyOnly);
    let timer = worker.timer(0);
    world.kernel.borrow_mut().on_told = Some(Box::new(move || {
        timer.rearm(timer.load(), Units::at_or_after(deadline.plus(SECOND))).unwrap();
    }));
    world.serve_until(deadline.plus(SECOND + MAX_INTERVAL));
    assert_eq!(world.outcomes(), [Outcome::Reported; 2]);
}

#[test]
fn a_notify_only_watchdog_signals_nobody_whatever_a_timer_asks_for() {
    let words = words();
    let policy = Policy { signal: TimerSignal::NotifyOnly, ..Policy::default() };
    let mut world = World::new(&words, policy);
    let mut worker = world.worker(10);
    worker.acquire_with(0, SECOND, TimerSignal::Signal(SIGKILL));
    worker.acquire(1, SECOND);
    world.serve_for(5 * SECOND);
    assert_eq!((world.signals(), world.outcomes()), (vec![], vec![Outcome::Reported; 2]));
}

#[test]
fn a_notify_only_timer_that_expires_during_a_reap_is_reported_not_condemned() {
    let words = words();
    let mut world = World::new(&words, Policy { grace_ns: 5 * SECOND, ..Policy::default() });
    let mut worker = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    worker.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    worker.acquire_with(1, 2 * SECOND, TimerSignal::NotifyOnly);
    world.serve_for(3 * SECOND);
    assert_eq!(world.outcomes(), [Outcome::Reported]);
    assert_eq!(worker.state(1), Some(TimerState::Reported));
}

#[test]
fn timers_that_expire_during_a_reap_belong_to_it() {
    let words = words();
    let mut world = World::new(&words, Policy { grace_ns: 5 * SECOND, ..Policy::default() });
    let mut worker = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    worker.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    worker.acquire_with(1, 2 * SECOND, TimerSignal::Signal(SIGTERM));
    world.serve_for(20 * SECOND);
    assert_eq!(world.signalled(), [(10, SIGTERM), (10, SIGKILL)]);
    assert_eq!(world.outcomes(), [Outcome::Reaped; 2]);
}

#[test]
fn an_unkillable_worker_is_told_once_retried_slowly_and_delays_nobody() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut stuck, mut hung) = (world.worker(10), world.worker(20));
    world.process(10, |process| process.survives.insert(SIGKILL));
    stuck.acquire(0, SECOND);
    let deadline = hung.acquire(0, 20 * SECOND);
    world.serve_for(40 * SECOND);
    let to_stuck = world.signals().iter().filter(|sent| sent.worker == 10).count();
    assert!((3..=6).contains(&to_stuck), "{to_stuck} signals in 40 s");
    world.check_killed(20, deadline);
    assert_eq!(world.outcomes(), [Outcome::Unkillable, Outcome::Reaped]);
    assert_eq!(world.count(Counter::Unkillable), 1);
    world.kernel.borrow_mut().kill(10);
    world.serve_for(SECOND);
    assert_eq!(world.outcomes()[2..], [Outcome::Reaped], "its death ends the reap at once");
}

#[test]
fn a_reap_that_fails_ends_and_stops_nobody_else() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut odd, mut hung) = (world.worker(10), world.worker(20));
    world.process(10, |process| process.cannot_be_signalled = true);
    let deadline = odd.acquire(0, SECOND);
    hung.acquire(0, SECOND);
    world.serve_for(5 * SECOND);
    world.check_killed(20, deadline);
    let failed = world.told().iter().filter(|told| **told == Told::Failed { worker: 10 }).count();
    assert_eq!(failed, 1);
    assert_eq!(odd.state(0), Some(TimerState::Reported), "its handle is still there");
    assert_eq!(odd.release(0), Released::Reported);
    assert_eq!(world.count(Counter::Failed), 1);
}

#[test]
fn a_reap_that_fails_in_its_grace_leaves_the_timer_reported() {
    let words = words();
    let mut world = World::new(&words, Policy { grace_ns: 2 * SECOND, ..Policy::default() });
    let mut odd = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    let deadline = odd.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    world.process(10, |process| process.cannot_be_signalled = true);
    world.serve_for(5 * SECOND);
    assert_eq!(world.count(Counter::Failed), 1);
    assert_eq!(odd.state(0), Some(TimerState::Reported));
}

#[test]
fn an_excluded_process_is_reported_and_never_condemned() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut own = world.worker(10);
    world.process(10, |process| process.is_excluded = true);
    own.acquire(0, SECOND);
    world.serve_for(3 * SECOND);
    assert_eq!((world.signals(), world.outcomes()), (vec![], vec![Outcome::Reported]));
    assert_eq!(own.state(0), Some(TimerState::Reported));
    let counts = [Counter::Condemned, Counter::Failed, Counter::Reported].map(|c| world.count(c));
    assert_eq!(counts, [0, 0, 1]);
    assert_eq!(own.release(0), Released::Reported);
}

#[test]
fn a_successor_that_excludes_a_condemned_process_reports_it() {
    let words = words();
    let policy = Policy { grace_ns: 60 * SECOND, ..Policy::default() };
    let mut world = World::new(&words, policy);
    let mut own = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    let deadline = own.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(own.state(0), Some(TimerState::Condemned));
    world.process(10, |process| process.is_excluded = true);
    world.succeed(policy);
    world.serve_for(SECOND);
    assert_eq!(own.state(0), Some(TimerState::Reported));
    assert_eq!(world.signals().len(), 1, "none by the successor");
}

#[test]
fn the_limiter_holds_back_a_storm_until_it_is_released() {
    let words = words();
    let mut world = World::new(&words, Policy { max_reaps: Some(2), ..Policy::default() });
    let mut workers: Vec<_> = (1..=5).map(|pid| world.worker(pid)).collect();
    for worker in &mut workers {
        worker.acquire(0, SECOND);
    }
    world.serve_for(5 * SECOND);
    assert_eq!(world.signals().len(), 2);
    assert!(world.watchdog.reaper.is_limited());
    let limited = world.told().iter().filter(|told| **told == Told::Limited).count();
    assert_eq!(limited, 1, "said once");
    assert_eq!(world.outcomes().iter().filter(|told| **told == Outcome::Limited).count(), 3);
    assert_eq!(world.segment.watchdog().limited().load(Ordering::Relaxed), 1);
    assert_eq!(workers[4].state(0), Some(TimerState::Limited));
    assert_eq!(workers[4].release(0), Released::Reported);
    let deadline = workers[4].acquire(0, 20 * SECOND);
    world.release_limiter();
    world.serve_for(SECOND);
    assert_eq!(world.signals().len(), 4, "who is still overdue is judged again, up to the limit");
    assert!(!world.watchdog.reaper.is_limited());
    world.serve_until(deadline.plus(SECOND));
    assert!(world.watchdog.reaper.is_limited(), "a third in a minute");
    let counts = [Counter::Expired, Counter::Condemned, Counter::Reported].map(|c| world.count(c));
    assert_eq!(counts, [6, 4, 4], "expired once for each arming");
    world.release_limiter();
    world.serve_for(SECOND);
    assert_eq!(world.signalled()[4], (5, SIGKILL));
}

#[test]
fn what_the_limiter_excluded_is_told_once_and_judged_by_a_successor_after_its_release() {
    let words = words();
    let policy = Policy { max_reaps: Some(1), ..Policy::default() };
    let mut world = World::new(&words, policy);
    let mut workers: Vec<_> = (1..=3).map(|pid| world.worker(pid)).collect();
    for worker in &mut workers {
        worker.acquire(0, SECOND);
    }
    world.serve_for(5 * SECOND);
    world.succeed(Policy::default());
    // A lapped ring has the whole lane looked at.
    for _ in 0..50 {
        workers[1].acquire(1, 60 * SECOND);
        workers[1].release(1);
    }
    world.serve_for(5 * SECOND);
    assert_eq!(world.signals().len(), 1, "a successor keeps the limiter, with a limit or without");
    let limited = world.outcomes().iter().filter(|told| **told == Outcome::Limited).count();
    assert_eq!(limited, 2, "told once each");
    world.release_limiter();
    world.serve_for(SECOND);
    assert_eq!(world.signals().len(), 3);
}

#[test]
fn a_worker_that_died_or_released_while_the_limiter_held_is_not_signalled_after_it() {
    let words = words();
    let mut world = World::new(&words, Policy { max_reaps: Some(1), ..Policy::default() });
    let mut workers: Vec<_> = (1..=3).map(|pid| world.worker(pid)).collect();
    for worker in &mut workers {
        worker.acquire(0, SECOND);
    }
    world.serve_for(5 * SECOND);
    world.kernel.borrow_mut().kill(2);
    workers[2].release(0);
    world.release_limiter();
    world.serve_for(5 * SECOND);
    assert_eq!(world.signalled(), [(1, SIGKILL)]);
}

#[test]
fn a_worker_whose_lane_is_quarantined_in_its_grace_is_killed_after_it() {
    let words = words();
    let mut world = World::new(&words, Policy { grace_ns: 2 * SECOND, ..Policy::default() });
    let mut hung = world.worker(10);
    world.process(10, |process| process.survives.insert(SIGTERM));
    let deadline = hung.acquire_with(0, SECOND, TimerSignal::Signal(SIGTERM));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(world.signalled(), [(10, SIGTERM)]);
    hung.segment.lane(hung.lane).timers()[3].store(u64::MAX, Ordering::Relaxed);
    hung.tell(Operation::Acquire, Place::Own, hung.lane, 3);
    world.serve_for(SECOND);
    assert!(world.watchdog.table.is_quarantined(hung.lane));
    assert_eq!(world.signals().len(), 1, "not before its grace has ended");
    world.serve_for(5 * SECOND);
    assert_eq!(world.signalled(), [(10, SIGTERM), (10, SIGKILL)]);
    assert_eq!(world.outcomes(), [Outcome::Reaped]);
    assert_eq!(world.segment.lane(hung.lane).owner().state(), Some(LaneState::Free));
}

/// From a hold on `worker` to the time it is let go.
fn hold(world: &mut World<'_>, pid: u64, hold: Hold, until: Nanos) {
    world.process(pid, |process| process.verdict = Verdict::Held(hold));
    world.serve_until(until);
    world.process(pid, |process| process.verdict = Verdict::Go);
}

#[test]
fn a_held_worker_is_reported_once_and_gets_its_timeout_when_it_is_let_go() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut traced, mut hung) = (world.worker(10), world.worker(20));
    traced.acquire(0, SECOND);
    let deadline = hung.acquire(0, 5 * SECOND);
    let let_go = world.now().plus(10 * SECOND);
    hold(&mut world, 10, Hold::Traced, let_go);
    world.check_killed(20, deadline);
    assert_eq!(world.told()[0], Told::Held { worker: 10, hold: Hold::Traced });
    let held = world.told().iter().filter(|told| matches!(told, Told::Held { .. })).count();
    assert_eq!(held, 1, "told once");
    world.serve_for(900 * MS);
    assert_eq!(world.signals().len(), 1, "it gets its second again");
    world.serve_for(SECOND);
    assert_eq!(world.signals()[1].worker, 10, "and no more than that");
}

/// Each look at it begins with a question, whose answer is not in yet.
#[test]
fn a_held_worker_is_told_of_once_however_often_it_is_asked_about() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut traced = world.worker(10);
    let deadline = traced.acquire(0, SECOND);
    world.process(10, |process| process.verdict = Verdict::Held(Hold::Traced));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    for _ in 0..5 {
        let answered_at = world.now().plus(MAX_INTERVAL + MS);
        world.process(10, |process| process.verdict = Verdict::Wait(answered_at));
        world.serve_until(answered_at);
        world.process(10, |process| process.verdict = Verdict::Held(Hold::Traced));
        world.serve_for(2 * MAX_INTERVAL);
    }
    assert_eq!(world.told(), [Told::Held { worker: 10, hold: Hold::Traced }]);
}

#[test]
fn who_was_held_and_released_has_no_more_than_its_timeout_for_what_it_acquires_later() {
    for watchdog in ["the same", "a successor"] {
        let words = words();
        let mut world = World::new(&words, Policy::default());
        let mut traced = world.worker(10);
        traced.acquire(0, SECOND);
        let let_go = world.now().plus(10 * SECOND);
        hold(&mut world, 10, Hold::Traced, let_go);
        assert_eq!(traced.release(0), Released::InTime);
        world.serve_for(60 * SECOND);
        let deadline = traced.acquire(0, 30 * SECOND);
        if watchdog == "a successor" {
            world.succeed(Policy::default());
        }
        world.serve_for(40 * SECOND);
        world.check_killed(10, deadline);
    }
}

#[test]
fn a_successor_gives_a_worker_that_was_held_its_timeout() {
    for let_go in ["before", "after"] {
        let words = words();
        let mut world = World::new(&words, Policy::default());
        let mut traced = world.worker(10);
        traced.acquire(0, 2 * SECOND);
        let end = world.now().plus(10 * SECOND);
        hold(&mut world, 10, Hold::Traced, end);
        if let_go == "after" {
            world.serve_for(MAX_INTERVAL); // the first has seen it
        }
        world.succeed(Policy::default());
        world.serve_for(SECOND + 500 * MS);
        assert_eq!(world.signals(), [], "let go {let_go} the first's last look");
        // Another gives no further timeout for the same hold.
        if let_go == "after" {
            world.succeed(Policy::default());
        }
        world.serve_for(SECOND);
        assert_eq!(world.signalled(), [(10, SIGKILL)], "{let_go}");
    }
}

/// The first may have stopped it itself, to kill it after its descendants.
#[test]
fn a_successor_told_to_leave_the_stopped_alone_reaps_whom_the_first_condemned() {
    for evidence_ns in [0, 500 * MS] {
        let words = words();
        let mut world = World::new(&words, Policy::default());
        let mut hung = world.worker(10);
        let deadline = hung.acquire(0, SECOND);
        world.process(10, |process| process.evidence_by = deadline.plus(100 * SECOND));
        world.serve_until(deadline.plus(MS));
        assert_eq!((hung.state(0), world.signals()), (Some(TimerState::Condemned), vec![]));
        world.succeed(Policy::default());
        let evidence_by = world.now().plus(evidence_ns);
        world.process(10, |process| {
            (process.verdict, process.evidence_by) = (Verdict::Held(Hold::Traced), evidence_by);
        });
        world.serve_for(SECOND);
        assert_eq!(world.signals(), [], "a debugger's is another matter");
        let evidence_by = world.now().plus(evidence_ns);
        world.process(10, |process| {
            (process.verdict, process.evidence_by) = (Verdict::Held(Hold::Stopped), evidence_by);
        });
        world.serve_for(2 * SECOND);
        assert_eq!(world.signalled(), [(10, SIGKILL)]);
    }
}

#[test]
fn the_next_owner_of_a_lane_inherits_no_hold() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut traced = world.worker(10);
    traced.acquire(0, SECOND);
    let end = world.now().plus(5 * SECOND);
    hold(&mut world, 10, Hold::Traced, end);
    world.kernel.borrow_mut().kill(10);
    world.serve_for(SECOND);
    let lane = world.segment.lane(traced.lane);
    assert_eq!(lane.noted_hold(), None, "recycled");
    lane.note_hold(NotedHold::Held);
    let next = world.worker(20);
    assert_eq!(next.lane, traced.lane);
    assert_eq!(lane.noted_hold(), None, "claimed");
}

#[test]
fn every_timer_that_was_held_gets_its_timeout_again() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut frozen = world.worker(10);
    frozen.acquire(0, SECOND);
    frozen.acquire(1, 5 * SECOND + 50 * MS);
    let let_go = world.now().plus(10 * SECOND);
    hold(&mut world, 10, Hold::Frozen, let_go);
    frozen.release(0);
    world.serve_until(let_go.plus(5 * SECOND));
    assert_eq!(world.signals(), [], "the second timer has 5 s from when it was let go");
    world.serve_for(SECOND);
    assert_eq!(world.signalled(), [(10, SIGKILL)]);
}

#[test]
fn a_timer_held_beside_an_earlier_one_does_not_end_its_timeout() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut frozen = world.worker(10);
    frozen.acquire(0, SECOND);
    frozen.acquire(1, 5 * SECOND + 50 * MS);
    let let_go = world.now().plus(10 * SECOND);
    hold(&mut world, 10, Hold::Frozen, let_go);
    world.serve_until(let_go.plus(800 * MS));
    assert_eq!(world.signals(), [], "the first timer has 1 s from when it was let go");
}

#[test]
fn a_lapped_ring_does_not_end_the_timeout_of_a_worker_that_was_held() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut traced = world.worker(10);
    traced.acquire(0, SECOND);
    let let_go = world.now().plus(10 * SECOND);
    hold(&mut world, 10, Hold::Traced, let_go);
    world.serve_for(2 * MAX_INTERVAL);
    for _ in 0..50 {
        traced.acquire(1, 60 * SECOND);
        traced.release(1);
    }
    world.serve_for(500 * MS);
    assert_eq!(world.signals(), []);
}

#[test]
fn a_verdict_that_is_not_in_yet_is_waited_for() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    let deadline = hung.acquire(0, SECOND);
    let known_at = deadline.plus(3 * SECOND);
    world.process(10, |process| process.verdict = Verdict::Wait(known_at));
    world.serve_until(known_at);
    assert_eq!(world.signals(), []);
    world.process(10, |process| process.verdict = Verdict::Go);
    world.serve_for(MAX_INTERVAL);
    world.check_killed(10, known_at);
}

/// It may run another program by now, or have been seized by a debugger: a verdict of before says nothing.
#[test]
fn whether_a_worker_may_be_signalled_is_asked_anew_after_its_evidence_and_after_its_grace() {
    for first in [SIGKILL, SIGTERM] {
        let words = words();
        let mut world = World::new(&words, Policy { grace_ns: 2 * SECOND, ..Policy::default() });
        let mut hung = world.worker(10);
        world.process(10, |process| process.survives.insert(SIGTERM));
        let deadline = hung.acquire_with(0, SECOND, TimerSignal::Signal(first));
        if first == SIGKILL {
            let evidence_by = deadline.plus(2 * SECOND);
            world.process(10, |process| process.evidence_by = evidence_by);
        }
        world.serve_until(deadline.plus(SECOND));
        let so_far = world.signals().len();
        let vouched_at = deadline.plus(6 * SECOND);
        world.process(10, |process| process.verdict = Verdict::Wait(vouched_at));
        world.serve_until(vouched_at);
        assert_eq!(world.signals().len(), so_far, "nobody vouches for it");
        world.process(10, |process| process.verdict = Verdict::Held(Hold::Traced));
        world.serve_for(5 * SECOND);
        assert_eq!(world.signals().len(), so_far, "it is held");
        world.process(10, |process| process.verdict = Verdict::Go);
        world.serve_for(SECOND);
        assert_eq!(world.signalled().last(), Some(&(10, SIGKILL)));
        assert_eq!(world.signals().len(), so_far + 1);
        assert_eq!(world.outcomes(), [Outcome::Reaped]);
    }
}

#[test]
fn who_dies_while_nobody_vouches_for_it_has_exited() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    let deadline = hung.acquire(0, SECOND);
    world.process(10, |process| process.evidence_by = deadline.plus(SECOND));
    world.serve_until(deadline.plus(500 * MS));
    world.kernel.borrow_mut().tells_of_deaths = false;
    world.process(10, |process| process.verdict = Verdict::Wait(Nanos::NEVER));
    world.kernel.borrow_mut().kill(10);
    world.serve_for(2 * SECOND);
    assert_eq!((world.signals(), world.outcomes()), (vec![], vec![Outcome::Exited]));
}

#[test]
fn a_policy_that_changes_warns_of_timers_that_are_armed_already_and_of_none_twice() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    let deadline = worker.acquire(0, 10 * SECOND);
    world.serve_for(4_900 * MS);
    let warn_at = |warn_at| Policy { warn_at, ..Policy::default() };
    world.set_policy(warn_at(Some(0.8)));
    world.serve_for(2 * SECOND);
    assert_eq!(world.requests(), []);
    world.set_policy(warn_at(Some(0.5)));
    world.serve_for(MAX_INTERVAL);
    let requests = world.requests();
    assert!(matches!(requests[..], [Request::Warning(_)]), "{requests:?}");
    world.set_policy(warn_at(Some(0.9)));
    world.set_policy(warn_at(None));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(world.requests().len(), 1, "it was warned of, and is not again");
    world.check_killed(10, deadline);
}

#[test]
fn a_timer_is_warned_of_once_at_its_fraction() {
    let words = words();
    let mut world = World::new(&words, Policy { warn_at: Some(0.5), ..Policy::default() });
    let mut worker = world.worker(10);
    worker.acquire(0, 10 * SECOND);
    world.serve_for(4_900 * MS);
    assert_eq!(world.requests(), []);
    world.serve_for(4 * SECOND);
    let requests = world.requests();
    let [Request::Warning(warned)] = requests[..] else { panic!("{requests:?}") };
    assert_eq!(crate::world::place(&warned), (worker.lane, 0));
    assert_eq!(worker.state(0), Some(TimerState::Armed), "untouched");
    worker.release(0);
    worker.acquire(0, 10 * SECOND);
    world.serve_for(9 * SECOND);
    assert_eq!(world.requests().len(), 2, "another arming is warned of anew");
}
