use hangwatch_core::atomic::Ordering;
use hangwatch_core::watchdog::expiry::Request;
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::wire::lane::{LaneState, OwnerWord};
use hangwatch_core::wire::record::{Operation, Place, Stamp};
use hangwatch_core::wire::segment::Counter;

use crate::world::{SECOND, Worker, World, words};

/// One lane lies; it is quarantined, its worker is not signalled, the other is served.
fn check(lie: impl FnOnce(&mut Worker<'_>)) {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut liar, mut hung) = (world.worker(10), world.worker(20));
    liar.acquire(1, 4 * SECOND);
    let deadline = hung.acquire(0, 5 * SECOND);
    world.serve_for(SECOND);
    lie(&mut liar);
    world.serve_for(10 * SECOND);
    world.check_killed(20, deadline);
    assert_eq!(world.signals().len(), 1, "a lane that lies gets nobody signalled");
    assert!(world.watchdog.table.is_quarantined(liar.lane));
    assert!(world.segment.lane(liar.lane).is_quarantined(), "for observers too");
    assert_eq!(world.count(Counter::Quarantined), 1);
    assert_eq!(world.requests(), [Request::Quarantined { lane: liar.lane }]);
    // Dead, its lane comes back, and serves the next one.
    world.kernel.borrow_mut().kill(10);
    world.serve_for(2 * SECOND);
    let lane = world.segment.lane(liar.lane);
    assert_eq!(lane.owner().state(), Some(LaneState::Free));
    assert!(!lane.is_quarantined());
    let mut next = world.worker(30);
    assert_eq!(next.lane, liar.lane);
    let deadline = next.acquire(0, SECOND);
    world.serve_for(3 * SECOND);
    world.check_killed(30, deadline);
}

#[test]
fn a_timer_word_of_no_state_quarantines_its_lane() {
    check(|liar| {
        let timer = &liar.segment.lane(liar.lane).timers()[2];
        timer.store(u64::MAX, Ordering::Relaxed);
        liar.tell(Operation::Acquire, Place::Own, liar.lane, 2);
    });
}

#[test]
fn a_timer_word_that_turns_to_garbage_is_found_at_its_deadline() {
    check(|liar| {
        liar.segment.lane(liar.lane).timers()[1].store(7 << 61, Ordering::Relaxed);
    });
}

#[test]
fn a_stamp_of_no_lap_quarantines_its_lane() {
    check(|liar| {
        let lane = liar.segment.lane(liar.lane);
        let head = lane.head().load(Ordering::Relaxed);
        let slot = &lane.ring()[head as usize % lane.ring().len()];
        slot[0].store(Stamp::new(head + 5, Operation::Acquire, 0).0, Ordering::Relaxed);
        lane.head().store(head + 1, Ordering::Relaxed);
    });
}

#[test]
fn a_record_of_a_timer_that_does_not_exist_quarantines_its_lane() {
    check(|liar| liar.tell(Operation::Acquire, Place::Own, liar.lane, 999));
}

#[test]
fn a_record_of_a_lane_that_does_not_exist_quarantines_its_lane() {
    check(|liar| liar.tell(Operation::Release, Place::Foreign, 999, 0));
}

/// The owner word is public only through its moves, so the test finds it by its value.
#[test]
fn an_owner_word_of_no_state_quarantines_its_lane_and_the_others_are_served() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (mut liar, mut hung) = (world.worker(10), world.worker(20));
    liar.acquire(1, 4 * SECOND);
    let deadline = hung.acquire(0, 5 * SECOND);
    world.serve_for(SECOND);
    let at = world.segment.layout().front_at(liar.lane);
    assert_eq!(OwnerWord(words[at].load(Ordering::Relaxed)), liar.owner);
    words[at].store(u64::MAX, Ordering::Relaxed);
    world.serve_for(10 * SECOND);
    world.check_killed(20, deadline);
    assert_eq!(world.signals().len(), 1);
    assert!(world.segment.lane(liar.lane).is_quarantined());
}

#[test]
fn a_lane_that_claims_another_pid_gets_nobody_signalled_but_whom_the_kernel_names() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut victim = world.worker(10);
    victim.acquire(0, 60 * SECOND);
    let mut forger = world.thread(10);
    world.kernel.borrow_mut().locks.remove(&forger.lane);
    forger.acquire(0, SECOND);
    world.serve_for(10 * SECOND);
    assert_eq!(world.signals(), []);
}

#[test]
fn a_head_that_runs_wild_delays_nobody() {
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let (liar, mut hung) = (world.worker(10), world.worker(20));
    let deadline = hung.acquire(0, 5 * SECOND);
    world.serve_for(SECOND);
    world.segment.lane(liar.lane).head().store(u64::MAX / 3, Ordering::Relaxed);
    world.serve_for(10 * SECOND);
    world.check_killed(20, deadline);
}
