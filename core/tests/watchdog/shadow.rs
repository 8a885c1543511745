use hangwatch_core::watchdog::expiry::Request;
use hangwatch_core::watchdog::policy::{Policy, Shadow};
use hangwatch_core::wire::lane::TimerSignal;
use hangwatch_core::wire::timeout::Overruns;
use hangwatch_core::wire::timer::{TimerState, TimerWord};

use crate::world::{MAX_INTERVAL, MS, SCOPE, SECOND, Worker, World, words};

const ALLOWED: u64 = 2 * SECOND;

fn shadow() -> Policy {
    Policy { signal: TimerSignal::NotifyOnly, shadow: Shadow::On, ..Policy::default() }
}

fn shadowed(words: &[hangwatch_core::atomic::AtomicU64]) -> World<'_> {
    let world = World::new(words, shadow());
    world.segment.timeout(SCOPE).set_ns(Some(ALLOWED), world.now());
    world
}

/// Those told to have run beyond their timeout, and those told to have ended late, with how late.
fn told(world: &World<'_>) -> (usize, Vec<u64>) {
    let (mut overruns, mut ended) = (0, Vec::new());
    for request in world.requests() {
        match request {
            Request::Overrun(_) => overruns += 1,
            Request::EndedLate { late_ns, .. } => ended.push(late_ns),
            _ => {}
        }
    }
    (overruns, ended)
}

/// What was counted: ended and died; the latest was at least so late, but for the unit that its
/// deadline was rounded up by, and less than two ticks more.
#[track_caller]
fn check(world: &World<'_>, ended: u64, died: u64, latest_ns: u64) {
    let Overruns { ended: e, died: d, max_late_ns, .. } = world.segment.timeout(SCOPE).overruns();
    assert_eq!((e, d), (ended, died));
    let most = if latest_ns == 0 { 0 } else { latest_ns + 2 * MAX_INTERVAL };
    assert!(
        (latest_ns.saturating_sub(1_024)..=most).contains(&max_late_ns),
        "{max_late_ns} beside {latest_ns}"
    );
}

fn kick(worker: &Worker<'_>, timer: u16, deadline: hangwatch_core::wire::time::Nanos) {
    let word: TimerWord = worker.timer(timer).load();
    let until = hangwatch_core::wire::time::Units::at_or_after(deadline);
    worker.timer(timer).rearm(word, until).expect("it is armed");
}

#[test]
fn who_passes_the_deadline_counts_once_it_is_released_and_is_not_signalled() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    world.serve_for(SECOND);
    worker.acquire(0, SECOND);
    world.serve_for(4 * SECOND);
    check(&world, 0, 0, 0);
    worker.release(0);
    world.serve_for(SECOND);
    check(&world, 1, 0, 3 * SECOND);
    assert_eq!(world.signals(), []);
    assert_eq!(told(&world).1.len(), 1);
}

#[test]
fn a_longer_time_of_its_own_is_held_to_the_timeout_and_told_once() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    worker.acquire(0, 60 * SECOND);
    world.serve_for(ALLOWED - 200 * MS);
    assert_eq!(told(&world).0, 0);
    world.serve_for(3 * SECOND + 200 * MS);
    assert_eq!(told(&world).0, 1);
    assert_eq!(worker.state(0), Some(TimerState::Armed), "by its own time it is not late");
    worker.release(0);
    world.serve_for(SECOND);
    check(&world, 1, 0, 3 * SECOND);
}

#[test]
fn who_is_in_time_by_the_timeout_is_not_counted() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    worker.acquire(0, 60 * SECOND);
    world.serve_for(ALLOWED - 500 * MS);
    worker.release(0);
    world.serve_for(60 * SECOND);
    check(&world, 0, 0, 0);
    assert_eq!(told(&world), (0, Vec::new()));
}

#[test]
fn an_extension_moves_the_timeout_too() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    let deadline = worker.acquire(0, 60 * SECOND);
    world.serve_for(SECOND);
    kick(&worker, 0, deadline.plus(10 * SECOND));
    world.serve_for(ALLOWED + 8 * SECOND);
    assert_eq!(told(&world).0, 0);
    world.serve_for(3 * SECOND);
    assert_eq!(told(&world).0, 1);
}

#[test]
fn a_worker_that_dies_late_counts_as_such() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    worker.acquire(0, SECOND);
    world.serve_for(3 * SECOND);
    world.kernel.borrow_mut().kill(10);
    world.serve_for(SECOND);
    check(&world, 0, 1, 0);
}

#[test]
fn a_successor_counts_what_its_predecessor_reported_once_and_as_late_as_it_was() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    worker.acquire(0, SECOND);
    worker.acquire(1, 60 * SECOND);
    world.serve_for(3 * SECOND);
    assert_eq!(worker.state(0), Some(TimerState::Reported));
    for _ in 0..3 {
        world.succeed(shadow());
        world.serve_for(SECOND);
    }
    check(&world, 0, 0, 0);
    worker.release(0);
    world.serve_for(SECOND);
    check(&world, 1, 0, 5 * SECOND);
    worker.release(1);
    world.serve_for(SECOND);
    check(&world, 2, 0, 5 * SECOND);
    world.succeed(shadow());
    world.serve_for(SECOND);
    check(&world, 2, 0, 5 * SECOND);
}

#[test]
fn a_successor_counts_a_reported_worker_that_dies() {
    let words = words();
    let mut world = shadowed(&words);
    let mut worker = world.worker(10);
    worker.acquire(0, SECOND);
    world.serve_for(3 * SECOND);
    world.succeed(shadow());
    world.serve_for(SECOND);
    world.kernel.borrow_mut().kill(10);
    world.serve_for(SECOND);
    check(&world, 0, 1, 0);
}

#[test]
fn a_policy_makes_a_shadow_of_a_watchdog_and_ends_it() {
    let words = words();
    let mut world = shadowed(&words);
    world.set_policy(Policy { shadow: Shadow::Off, ..shadow() });
    let mut worker = world.worker(10);
    worker.acquire(0, SECOND);
    worker.acquire(1, 60 * SECOND);
    world.serve_for(3 * SECOND);
    assert_eq!((told(&world).0, worker.state(0)), (0, Some(TimerState::Reported)));
    world.set_policy(shadow());
    world.serve_for(SECOND);
    assert_eq!(told(&world).0, 1, "what has run beyond it already");
    worker.release(0);
    world.serve_for(SECOND);
    check(&world, 1, 0, 3 * SECOND);
    world.set_policy(Policy { shadow: Shadow::Off, ..shadow() });
    worker.release(1);
    world.serve_for(SECOND);
    check(&world, 1, 0, 3 * SECOND);
}
