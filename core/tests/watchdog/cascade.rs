use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::watchdog::policy::{Cascade, Policy, SIGKILL};
use hangwatch_core::watchdog::reap::{Course, Excluded, Hold, Outcome, Usual, Verdict};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::clock::ClockKind;
use hangwatch_core::wire::lane::{Identity, LaneNames, TimerSignal};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::{Released, TimerState};

use crate::world::{MAX_INTERVAL, MS, SECOND, Told, Worker, World, words};

const SIGTERM: u8 = 15;
const STEP: ScopeId = ScopeId(1);
const BARRIER: ScopeId = ScopeId(2);
const LOAD: ScopeId = ScopeId(3);
const HOLD: u64 = 5 * SECOND;
/// How late a tick may be.
const TICK: u64 = MAX_INTERVAL + 2048;

fn holding() -> Policy {
    Policy { cascade: Cascade::Hold { hold_ns: HOLD }, ..Policy::default() }
}

/// The courses told of, by worker.
fn courses(world: &World<'_>, worker: u64) -> Vec<Course> {
    let course = |told: &Told| match told {
        Told::Cascade { worker: told_of, course, .. } if *told_of == worker => Some(*course),
        _ => None,
    };
    world.told().iter().filter_map(course).collect()
}

/// Workers 1 to `count`, all but the last of them in the barrier for `ns`.
fn barrier<'a>(world: &World<'a>, count: u64, ns: u64) -> (Vec<Worker<'a>>, Nanos) {
    let mut workers: Vec<Worker<'a>> = (1..=count).map(|pid| world.worker(pid)).collect();
    let mut deadline = Nanos(0);
    for worker in &mut workers[..count as usize - 1] {
        deadline = worker.enter(BARRIER, 0, ns);
    }
    (workers, deadline)
}

fn check_killed_within(world: &World<'_>, pid: u64, from: Nanos, until: Nanos) {
    let signals = world.signals();
    let mut all = signals.iter().filter(|sent| sent.worker == pid);
    let first = all.next().unwrap_or_else(|| panic!("worker {pid} was not signalled"));
    assert!(from <= first.at && first.at <= until.plus(TICK), "{first:?}: {from:?} to {until:?}");
}

#[test]
fn the_one_the_others_wait_for_is_reaped_first_and_they_may_go_on() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (mut workers, deadline) = barrier(&world, 4, SECOND);
    workers[3].enter(LOAD, 0, 3600 * SECOND);
    world.serve_until(deadline.plus(SECOND));
    assert_eq!(world.signalled(), [(4, SIGKILL)], "within its own deadline, and the only one");
    world.check_killed(4, deadline);
    assert_eq!(workers[3].state(0), Some(TimerState::Idle), "condemned and cleared");
    for worker in &mut workers[..3] {
        assert_eq!(worker.release(0), Released::InTime);
    }
    world.serve_for(60 * SECOND);
    assert_eq!(world.signals().len(), 1);
    let counts = [Counter::Condemned, Counter::Expired, Counter::Reaped].map(|c| world.count(c));
    assert_eq!(counts, [1, 0, 1]);
    let suspect = Told::Suspect { worker: 4, signal: SIGKILL, outcome: Outcome::Reaped };
    assert!(world.told().contains(&suspect), "{:?}", world.told());
    for pid in 1..=3 {
        let [Course::SuspectFirst { until }] = courses(&world, pid)[..] else {
            panic!("{:?}", world.told())
        };
        assert_eq!(until, deadline.plus(HOLD));
    }
}

#[test]
fn those_who_do_not_go_on_are_reaped_at_the_end_of_the_cascade() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (_workers, deadline) = barrier(&world, 4, SECOND);
    world.serve_until(deadline.plus(HOLD - SECOND));
    assert_eq!(world.signalled(), [(4, SIGKILL)], "it has no timer at all");
    world.serve_for(2 * SECOND);
    for pid in 1..=3 {
        world.check_killed(pid, deadline.plus(HOLD));
        assert_eq!(courses(&world, pid).last(), Some(&Course::Usual(Usual::HeldLongEnough)));
    }
}

#[test]
fn a_suspect_without_a_timer_gets_its_grace_and_then_sigkill_on_time() {
    let words = words();
    let policy = Policy { signal: TimerSignal::Signal(SIGTERM), grace_ns: 2 * SECOND, ..holding() };
    let mut world = World::new(&words, policy);
    let (_workers, deadline) = barrier(&world, 3, SECOND);
    world.process(3, |process| process.survives.insert(SIGTERM));
    world.serve_until(deadline.plus(4 * SECOND));
    let signals = world.signals();
    assert_eq!(world.signalled(), [(3, SIGTERM), (3, SIGKILL)]);
    assert_eq!(signals[1].at, signals[0].at.plus(2 * SECOND), "to the unit");
}

#[test]
fn the_first_to_run_out_of_time_waits_for_the_pattern_to_show() {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<_> = (1..=4).map(|pid| world.worker(pid)).collect();
    let first = workers[0].enter(BARRIER, 0, SECOND);
    let second = workers[1].enter(BARRIER, 0, 2 * SECOND);
    let last = workers[2].enter(BARRIER, 0, 3 * SECOND);
    world.serve_until(second.plus(500 * MS));
    assert_eq!(world.signals(), [], "nobody before all are overdue");
    world.serve_until(last.plus(MAX_INTERVAL));
    assert_eq!(world.signalled(), [(4, SIGKILL)]);
    world.check_killed(4, last);
    assert!(
        matches!(courses(&world, 1)[0], Course::HeldBack { until } if until == first.plus(HOLD))
    );
    world.serve_for(20 * SECOND);
    for (worker, deadline) in [(1, first), (2, second), (3, last)] {
        check_killed_within(&world, worker, deadline.plus(HOLD), deadline.plus(HOLD));
    }
}

#[test]
fn a_suspect_that_comes_in_late_is_excluded_and_so_are_the_others() {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<_> = (1..=4).map(|pid| world.worker(pid)).collect();
    for (worker, timeout) in workers[..3].iter_mut().zip([SECOND, 3 * SECOND, 3 * SECOND]) {
        worker.enter(BARRIER, 0, timeout);
    }
    world.serve_for(2 * SECOND);
    workers[3].enter(BARRIER, 0, 30 * SECOND);
    world.serve_for(500 * MS);
    for worker in &mut workers {
        assert_eq!(worker.release(0), Released::InTime);
    }
    world.serve_for(30 * SECOND);
    assert_eq!(world.signals(), []);
}

#[test]
fn where_several_are_suspected_or_nobody_all_are_reaped_as_usual() {
    for (outside, why) in [(2, Usual::SeveralOutside), (0, Usual::NobodyOutside)] {
        let words = words();
        let mut world = World::new(&words, holding());
        let mut workers: Vec<_> = (1..=5).map(|pid| world.worker(pid)).collect();
        let mut deadline = Nanos(0);
        for worker in &mut workers[..5 - outside] {
            deadline = worker.enter(BARRIER, 0, SECOND);
        }
        world.serve_until(deadline.plus(HOLD));
        for pid in 1..=(5 - outside as u64) {
            world.check_killed(pid, deadline);
            assert_eq!(courses(&world, pid), [Course::Usual(why)]);
        }
        assert_eq!(world.signals().len(), 5 - outside);
    }
}

#[test]
fn who_hangs_alone_is_reaped_as_usual() {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<_> = (1..=4).map(|pid| world.worker(pid)).collect();
    let deadline = workers[0].enter(LOAD, 0, SECOND);
    for worker in &mut workers[1..] {
        worker.enter(BARRIER, 0, 30 * SECOND);
    }
    world.serve_for(2 * SECOND);
    world.check_killed(1, deadline);
    assert_eq!(courses(&world, 1), [Course::Usual(Usual::Alone)]);
}

#[test]
fn a_suspect_that_is_overdue_elsewhere_is_reaped_for_that_and_the_others_are_held_back() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (mut workers, deadline) = barrier(&world, 4, SECOND);
    let own = workers[3].enter(LOAD, 0, 500 * MS);
    world.process(4, |process| process.survives.insert(SIGKILL));
    world.serve_until(deadline.plus(HOLD - SECOND));
    assert!(world.signalled().iter().all(|(worker, _)| *worker == 4), "{:?}", world.signals());
    check_killed_within(&world, 4, own, own);
    world.serve_for(2 * SECOND);
    assert_eq!(world.signalled().iter().filter(|(worker, _)| *worker != 4).count(), 3);
}

/// All are in "step"; three wait in the barrier inside it, the fourth never comes there.
#[test]
fn who_waits_in_a_scope_inside_the_one_all_are_in_is_held_back_and_the_overdue_one_is_not() {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<_> = (1..=4).map(|pid| world.worker(pid)).collect();
    let mut deadline = Nanos(0);
    for worker in &mut workers {
        deadline = worker.enter(STEP, 0, SECOND);
    }
    for worker in &mut workers[..3] {
        worker.enter(BARRIER, 1, 60 * SECOND);
    }
    workers[3].enter(LOAD, 1, 60 * SECOND);
    world.serve_until(deadline.plus(SECOND));
    world.check_killed(4, deadline);
    assert_eq!(world.signals().len(), 1);
    for worker in &mut workers[..3] {
        assert_eq!((worker.release(1), worker.release(0)), (Released::InTime, Released::InTime));
    }
    world.serve_for(60 * SECOND);
    assert_eq!(world.signals().len(), 1);
}

/// The waiting ones leave one by one when the suspect is dead. Who leaves first is not the next.
#[test]
fn nobody_is_suspected_for_having_left_first() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (mut workers, deadline) = barrier(&world, 4, SECOND);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(world.signalled(), [(4, SIGKILL)]);
    workers[0].release(0);
    world.serve_for(SECOND);
    workers[1].release(0);
    world.serve_for(SECOND);
    assert_eq!(world.signals().len(), 1);
    assert_eq!(workers[2].release(0), Released::InTime);
    world.serve_for(30 * SECOND);
    assert_eq!(world.signals().len(), 1);
}

/// No suspect was named; but two that were there with the others have seen it through.
#[test]
fn who_was_in_the_scope_with_the_others_and_left_it_is_no_suspect() {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<_> = (1..=3).map(|pid| world.worker(pid)).collect();
    let mut deadline = Nanos(0);
    for worker in &mut workers {
        deadline = worker.enter(BARRIER, 0, SECOND);
    }
    world.serve_for(500 * MS);
    workers[2].release(0);
    world.serve_for(2 * SECOND);
    for pid in [1, 2] {
        world.check_killed(pid, deadline);
        assert_eq!(courses(&world, pid), [Course::Usual(Usual::Excluded(Excluded::HasLeft))]);
    }
    assert_eq!(world.signals().len(), 2);
}

/// A lane that was given back tells nothing of the visit.
#[test]
fn whose_thread_was_in_the_scope_and_has_ended_is_no_suspect() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (_workers, deadline) = barrier(&world, 3, SECOND);
    world.serve_for(100 * MS);
    let mut visitor = world.thread(3);
    visitor.enter(BARRIER, 0, 60 * SECOND);
    world.serve_for(100 * MS);
    visitor.release(0);
    visitor.detach();
    world.serve_until(deadline.plus(SECOND));
    for pid in [1, 2] {
        world.check_killed(pid, deadline);
        assert_eq!(courses(&world, pid), [Course::Usual(Usual::Excluded(Excluded::AtWork))]);
    }
    assert_eq!(world.signals().len(), 2);
}

#[test]
fn who_is_awaited_in_two_scopes_at_once_is_reaped_once() {
    let words = words();
    let mut world = World::new(&words, Policy { max_reaps: Some(1), ..holding() });
    let (mut workers, _) = barrier(&world, 3, SECOND);
    let mut deadline = Nanos(0);
    for worker in &mut workers[..2] {
        deadline = worker.enter(STEP, 1, SECOND);
    }
    let own = workers[2].enter(LOAD, 0, 3600 * SECOND);
    let other = workers[2].enter(LOAD, 1, 3600 * SECOND);
    assert!(own > deadline && other > deadline);
    world.serve_until(deadline.plus(SECOND));
    assert_eq!(world.signalled(), [(3, SIGKILL)]);
    assert!(!world.watchdog.reaper.is_limited(), "one reap counts once");
    assert_eq!(world.count(Counter::Condemned), 1);
}

#[test]
fn who_has_recorded_so_much_since_is_at_work_and_no_suspect() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (mut workers, deadline) = barrier(&world, 3, SECOND);
    for _ in 0..40 {
        workers[2].enter(LOAD, 0, SECOND);
        workers[2].release(0);
    }
    world.serve_until(deadline.plus(SECOND));
    assert_eq!(courses(&world, 1), [Course::Usual(Usual::Excluded(Excluded::AtWork))]);
    assert_eq!(world.signalled(), [(1, SIGKILL), (2, SIGKILL)]);
}

#[test]
fn a_suspect_that_may_not_be_signalled_is_told_of_and_the_others_reaped_as_usual() {
    let check = |change: &dyn Fn(&World<'_>, &mut Worker<'_>), policy: Policy, why: Usual| {
        let words = words();
        let mut world = World::new(&words, policy);
        let (mut workers, deadline) = barrier(&world, 3, SECOND);
        change(&world, &mut workers[2]);
        world.serve_until(deadline.plus(SECOND));
        assert_eq!(courses(&world, 1).last(), Some(&Course::Usual(why)), "{:?}", world.told());
        assert!(world.signals().iter().all(|sent| sent.worker != 3), "{:?}", world.signals());
    };
    let reports_only = |_: &World<'_>, suspect: &mut Worker<'_>| {
        suspect.enter_with(LOAD, 0, 60 * SECOND, TimerSignal::NotifyOnly);
    };
    check(&reports_only, holding(), Usual::Excluded(Excluded::ReportsOnly));
    let unattestable = |world: &World<'_>, _: &mut Worker<'_>| {
        world.process(3, |process| process.admission = Admission::Unattestable);
    };
    check(&unattestable, holding(), Usual::Unproved);
    let traced = |world: &World<'_>, _: &mut Worker<'_>| {
        world.process(3, |process| process.verdict = Verdict::Held(Hold::Traced));
    };
    check(&traced, holding(), Usual::Excluded(Excluded::Held(Hold::Traced)));
    let limited = Policy { max_reaps: Some(0), ..holding() };
    check(&|_, _| {}, limited, Usual::Excluded(Excluded::Limited));
}

#[test]
fn a_suspect_whose_verdict_is_not_in_yet_is_asked_about_again_soon() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (_workers, deadline) = barrier(&world, 3, SECOND);
    let known_at = deadline.plus(3 * MS);
    world.process(3, |process| process.verdict = Verdict::Wait(known_at));
    world.serve_until(known_at);
    assert_eq!(world.signals(), []);
    world.process(3, |process| process.verdict = Verdict::Go);
    world.serve_for(MAX_INTERVAL);
    check_killed_within(&world, 3, known_at, known_at);
}

#[test]
fn workers_of_another_job_are_nobodys_suspects() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (_workers, deadline) = barrier(&world, 4, SECOND);
    let _stranger = world.worker_of_job(20, "another");
    let mut alone = world.worker_of_job(21, "");
    alone.enter(BARRIER, 0, SECOND);
    world.serve_until(deadline.plus(SECOND));
    assert_eq!(world.signalled().len(), 2, "{:?}", world.signals());
    world.check_killed(4, deadline);
    world.check_killed(21, deadline);
}

#[test]
fn a_worker_is_one_process_whatever_threads_it_has() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (_workers, deadline) = barrier(&world, 3, SECOND);
    let mut thread = world.thread(1);
    thread.enter(LOAD, 0, 60 * SECOND);
    let _idle = world.thread(3);
    world.serve_until(deadline.plus(SECOND));
    assert_eq!(world.signalled(), [(3, SIGKILL)]);
}

#[test]
fn a_report_names_the_suspect_and_changes_nothing() {
    let words = words();
    let mut world = World::new(&words, Policy { cascade: Cascade::Report, ..Policy::default() });
    let (_workers, deadline) = barrier(&world, 4, SECOND);
    world.serve_until(deadline.plus(SECOND));
    for worker in 1..=3 {
        world.check_killed(worker, deadline);
        let told = Told::Cascade { worker, suspect: Some(4), course: Course::Told };
        assert!(world.told().contains(&told), "{:?}", world.told());
    }
    assert_eq!(world.signals().len(), 3);
}

#[test]
fn a_watchdog_that_signals_nobody_tells_of_suspects_all_the_same() {
    let words = words();
    let policy = Policy { signal: TimerSignal::NotifyOnly, ..holding() };
    let mut world = World::new(&words, policy);
    let (_workers, deadline) = barrier(&world, 4, SECOND);
    world.serve_until(deadline.plus(SECOND));
    assert_eq!(world.signals(), []);
    assert_eq!(courses(&world, 1), [Course::Told]);
    assert_eq!(world.outcomes(), [Outcome::Reported; 3]);
}

#[test]
fn a_successor_decides_anew_and_holds_back_no_longer() {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<_> = (1..=3).map(|pid| world.worker(pid)).collect();
    let first = workers[0].enter(BARRIER, 0, SECOND);
    let second = workers[1].enter(BARRIER, 0, 3 * SECOND);
    world.serve_until(first.plus(SECOND));
    assert!(matches!(courses(&world, 1)[..], [Course::HeldBack { .. }]));
    world.succeed(holding());
    world.serve_for(500 * MS);
    assert_eq!(world.signals(), []);
    world.serve_until(second.plus(MAX_INTERVAL));
    assert_eq!(world.signalled(), [(3, SIGKILL)]);
    world.serve_until(second.plus(HOLD + SECOND));
    check_killed_within(&world, 1, first.plus(HOLD), first.plus(HOLD));
    check_killed_within(&world, 2, second.plus(HOLD), second.plus(HOLD));
}

/// The suspect was named; the watchdog dies; those who waited for it leave or do not.
#[test]
fn a_successor_names_no_second_suspect_for_the_same_wait() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (mut workers, deadline) = barrier(&world, 4, SECOND);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(world.signalled(), [(4, SIGKILL)]);
    workers[0].release(0);
    // Its flight record does not reach back: it went on.
    for _ in 0..40 {
        workers[0].enter(LOAD, 1, 60 * SECOND);
        workers[0].release(1);
    }
    world.succeed(holding());
    world.serve_until(deadline.plus(HOLD - SECOND));
    assert_eq!(world.signals().len(), 1, "{:?}", world.signals());
    world.serve_for(2 * SECOND);
    for pid in [2, 3] {
        world.check_killed(pid, deadline.plus(HOLD));
    }
    assert_eq!(world.signals().len(), 3);
}

#[test]
fn a_successor_resumes_the_reap_of_a_suspect_that_has_not_died() {
    let words = words();
    let mut world = World::new(&words, holding());
    let (mut workers, deadline) = barrier(&world, 3, SECOND);
    workers[2].enter(LOAD, 0, 3600 * SECOND);
    world.process(3, |process| process.survives.insert(SIGKILL));
    world.serve_until(deadline.plus(MAX_INTERVAL));
    assert_eq!(workers[2].state(0), Some(TimerState::Condemned));
    world.process(3, |process| process.survives.clear());
    world.succeed(holding());
    world.serve_for(SECOND);
    assert_eq!(world.signalled(), [(3, SIGKILL); 2]);
    let suspect = Told::Suspect { worker: 3, signal: SIGKILL, outcome: Outcome::Reaped };
    assert!(world.told().contains(&suspect), "{:?}", world.told());
    assert_eq!(world.watchdog.reaper.state(WorkerId(3)), None);
}

/// The suspect's last visit is 5 ms before the others entered, by their clocks.
fn left_just_before(clock: ClockKind) -> Vec<(u64, u8)> {
    let words = words();
    let mut world = World::new(&words, holding());
    let mut workers: Vec<Worker<'_>> = (1..=3).map(|pid| world.worker(pid)).collect();
    for worker in &workers {
        let lane = world.segment.lane(worker.lane);
        let identity = Identity { clock: clock as u64, ..Identity::default() };
        lane.attach(lane.owner(), identity, LaneNames { job: "job", ..LaneNames::default() });
    }
    workers[2].enter(BARRIER, 0, SECOND);
    workers[2].release(0);
    let now = world.now();
    world.kernel.borrow_mut().now = now.plus(5 * MS);
    let deadline = workers[0].enter(BARRIER, 0, SECOND);
    workers[1].enter(BARRIER, 0, SECOND);
    world.serve_until(deadline.plus(MAX_INTERVAL));
    world.signalled()
}

#[test]
fn who_left_within_the_clocks_tolerance_is_not_killed() {
    assert_eq!(left_just_before(ClockKind::System), [(3, SIGKILL)], "it left before they entered");
    let killed = left_just_before(ClockKind::Coarse);
    assert!(!killed.contains(&(3, SIGKILL)), "it may have left after that: {killed:?}");
}
