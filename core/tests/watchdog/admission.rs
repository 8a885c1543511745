use hangwatch_core::watchdog::expiry::{Admission, Request};
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::LaneState;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::timer::TimerState;

use crate::world::{MAX_INTERVAL, SECOND, World, place, words};

#[test]
fn a_worker_the_kernel_has_not_proved_is_never_signalled_and_reaped_once_it_is() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    world.process(10, |process| process.admission = Admission::Unknown);
    hung.acquire(0, SECOND);
    world.serve_for(10 * SECOND);
    assert_eq!(world.signals(), []);
    assert_eq!(hung.state(0), Some(TimerState::Armed));
    assert!(world.sleeps() < 1_000, "{} sleeps in 10 s", world.sleeps());
    world.process(10, |process| process.admission = Admission::Worker(WorkerId(10)));
    let proved_at = world.now();
    world.serve_for(SECOND);
    let signals = world.signals();
    assert_eq!(signals.len(), 1);
    assert!(
        signals[0].at.since(proved_at) <= 500_000_000 + MAX_INTERVAL,
        "asked every half second"
    );
}

#[test]
fn a_worker_proved_after_its_deadline_is_reaped_on_the_next_tick() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(10);
    hung.acquire(0, SECOND);
    let deadline = world.now().plus(SECOND);
    // The request is answered only now, long after the deadline.
    world.watchdog.tick();
    while world.now() < deadline.plus(5 * SECOND) {
        world.watchdog.tick();
    }
    assert_eq!(world.signals(), []);
    world.ask();
    world.tick();
    assert_eq!(world.signals().len(), 1);
}

#[test]
fn who_owns_a_lane_is_asked_first_where_the_deadline_is_nearest() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut late, mut soon, none) = (world.worker(10), world.worker(20), world.worker(30));
    late.acquire(0, 9 * SECOND);
    soon.acquire(0, SECOND);
    world.watchdog.tick();
    let asked: Vec<u32> = world
        .watchdog
        .table
        .take_requests()
        .iter()
        .filter_map(|request| match request {
            Request::Admit { lane, .. } => Some(*lane),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [soon.lane, late.lane, none.lane]);
}

#[test]
fn an_unattestable_worker_is_reported_once_and_never_signalled() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut unseen, mut hung) = (world.worker(10), world.worker(20));
    world.process(10, |process| process.admission = Admission::Unattestable);
    unseen.acquire(0, SECOND);
    let deadline = hung.acquire(0, 5 * SECOND);
    world.serve_for(10 * SECOND);
    world.check_killed(20, deadline);
    let requests = world.requests();
    let [Request::Unattestable(timer)] = requests[..] else { panic!("{requests:?}") };
    assert_eq!(place(&timer), (unseen.lane, 0));
    assert_eq!(unseen.state(0), Some(TimerState::Reported));
    assert_eq!(world.signals().len(), 1, "only the other one");
    assert_eq!((world.count(Counter::Expired), world.count(Counter::Reported)), (2, 1));
}

#[test]
fn a_condemned_timer_stays_condemned_where_its_worker_cannot_be_proved_any_more() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut worker = world.worker(10);
    world.process(10, |process| process.admission = Admission::Unattestable);
    worker.acquire(0, SECOND);
    // A watchdog that could prove it condemned it, and died.
    assert!(worker.timer(0).condemn(worker.timer(0).load()));
    world.serve_for(10 * SECOND);
    assert_eq!(worker.state(0), Some(TimerState::Condemned));
    let requests = world.requests();
    assert!(matches!(requests[..], [Request::Unattestable(_)]), "told once: {requests:?}");
    assert_eq!(world.signals(), []);
}

#[test]
fn a_lane_whose_claimant_died_half_way_comes_back() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    world.worker(10).detach();
    world.serve_for(SECOND);
    world.segment.note_lane_used(3);
    world.segment.lane(3).claim(10).unwrap();
    world.kernel.borrow_mut().locks.insert(3, 10);
    world.serve_for(SECOND);
    assert_eq!(world.segment.lane(3).owner().state(), Some(LaneState::Claimed), "it lives");
    world.kernel.borrow_mut().kill(10);
    world.serve_for(SECOND);
    assert_eq!(world.segment.lane(3).owner().state(), Some(LaneState::Free));
}

#[test]
fn an_answer_about_an_earlier_owner_is_ignored() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let first = world.worker(10);
    world.serve_for(MAX_INTERVAL);
    first.detach();
    world.serve_for(SECOND);
    let mut second = world.worker(20);
    assert_eq!(second.lane, first.lane);
    world.process(20, |process| process.admission = Admission::Unknown);
    second.acquire(0, SECOND);
    world.serve_for(MAX_INTERVAL);
    world.watchdog.table.admit(first.lane, first.owner, Admission::Worker(WorkerId(10)));
    world.watchdog.table.admit(first.lane, first.owner, Admission::Gone);
    world.serve_for(5 * SECOND);
    assert_eq!(world.signals(), []);
    assert_eq!(world.segment.lane(second.lane).owner(), second.owner);
}
