//! Workers that cannot run: stopped before they could tell of a timer; stopped, traced or frozen when
//! they are overdue.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::freezer::Freezer;
use hangwatch_tests::mount::Mount;
use hangwatch_tests::tracer::Tracer;
use hangwatch_tests::{Actor, Stage, Watchdog, until};
use rustix::process::Signal;

const SIGKILL: i32 = 9;
/// So long that a worker that is let go has the time to release.
const ALLOWANCE: Duration = Duration::from_millis(1500);
const STEP: &str = "expires step 1500";
/// Several intervals of a stage's segment: what finds a deadline is not the clock of a loaded machine.
const SEVERAL_INTERVALS_MS: f64 = 3_000.0;

fn wait_for_admission(watchdog: &mut Watchdog, actor: &Actor) {
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
}

/// What is said first about the overdue worker: how its expiry ended, or what holds it up.
fn first_said(watchdog: &mut Watchdog, actor: &Actor) -> String {
    let said = watchdog.event(|event| {
        matches!(event["event"].as_str(), Some("held" | "expired")) && event["pid"] == actor.pid()
    });
    let field = if said["event"] == "held" { "hold" } else { "outcome" };
    said[field].as_str().unwrap().to_owned()
}

/// An actor that stops itself at this point: when it has armed a timer, before it records it.
fn start_stopping(stage: &Stage, at: &str) -> Actor {
    let crash = [("HANGWATCH_CRASH_AT", at), ("HANGWATCH_CRASH_BY", "stop")];
    let mut actor = Actor::start(stage.name(), &crash);
    actor.tell("attach");
    actor
}

fn wait_for_ticks(stage: &Stage) {
    let from = stage.counter(Counter::Ticks);
    until("the watchdog looks again", || (stage.counter(Counter::Ticks) > from + 3).then_some(()));
}

/// A worker that was let go has its allowance once more, and can release in time.
fn check_allowance_once_more(stage: &Stage, actor: &mut Actor) {
    wait_for_ticks(stage);
    assert_eq!(actor.tell("release step"), "InTime");
    assert!(actor.end().success());
}

#[test]
fn a_worker_stopped_between_its_timer_and_its_record_is_found_by_the_sweep() {
    let stage = Stage::new("sweep");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = start_stopping(&stage, "worker-armed:2");
    // Until its lane is admitted as it is, the admission would find the timer too.
    actor.tell("notify first 1");
    assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reported");
    let counted = stage.counts().acquired;
    actor.order("expires step 400");
    let expiry = watchdog.expiry_of(actor.pid());
    assert_eq!(
        (expiry["scope"].as_str(), expiry["outcome"].as_str()),
        (Some("step"), Some("reaped"))
    );
    let late_ms = expiry["late_ms"].as_f64().unwrap();
    assert!(late_ms < SEVERAL_INTERVALS_MS, "{late_ms} ms late");
    assert_eq!(actor.wait().signal(), Some(SIGKILL));
    assert_eq!(stage.counts().acquired, counted, "it was stopped before it could tell");
}

#[test]
fn an_overdue_worker_that_is_stopped_is_reaped_or_by_a_flag_reported() {
    for (options, expected) in [(&[][..], "reaped"), (&["--stopped", "report"], "stopped")] {
        let stage = Stage::new("stopped");
        let mut watchdog = stage.watchdog(options);
        let mut actor = start_stopping(&stage, "worker-armed");
        actor.order(STEP);
        assert_eq!(first_said(&mut watchdog, &actor), expected);
        if expected == "reaped" {
            assert_eq!(actor.wait().signal(), Some(SIGKILL));
        } else {
            actor.signal(Signal::CONT);
            assert_eq!(actor.answer().as_deref(), Some("ok"));
            check_allowance_once_more(&stage, &mut actor);
        }
    }
}

#[test]
fn an_overdue_worker_that_is_traced_is_reported_or_by_a_flag_reaped() {
    for (options, expected) in [(&[][..], "traced"), (&["--traced", "reap"], "reaped")] {
        let stage = Stage::new("traced");
        let mut watchdog = stage.watchdog(options);
        let mut actor = stage.actor();
        wait_for_admission(&mut watchdog, &actor);
        let Some(tracer) = Tracer::seize("traced", actor.pid()) else { return };
        actor.tell(STEP);
        if expected == "traced" {
            tracer.halt();
        }
        assert_eq!(first_said(&mut watchdog, &actor), expected);
        if expected == "reaped" {
            assert_eq!(actor.wait().signal(), Some(SIGKILL));
            continue;
        }
        // Several looks later it is still there, and was not told of again.
        wait_for_ticks(&stage);
        let held = watchdog.events().iter().filter(|event| event["event"] == "held").count();
        assert_eq!(held, 1);
        drop(tracer);
        check_allowance_once_more(&stage, &mut actor);
    }
}

#[test]
fn an_overdue_worker_in_a_frozen_cgroup_is_reported_or_by_a_flag_reaped() {
    check_frozen(|| Freezer::new("frozen").map(|freezer| (freezer, None)));
}

/// On a thread of its own: the mount namespace is that thread's, and ends with it.
#[test]
fn an_overdue_worker_in_a_frozen_cgroup_of_version_2_is_reported_or_by_a_flag_reaped() {
    let make = || Freezer::of_version_2("frozen-2").map(|(freezer, mount)| (freezer, Some(mount)));
    std::thread::spawn(move || check_frozen(make)).join().unwrap();
}

/// A freezer, and the mount that it is in where that is the test's own.
type Made = Option<(Freezer, Option<Mount>)>;

fn check_frozen(make: impl Fn() -> Made) {
    for (options, expected) in [(&[][..], "frozen"), (&["--frozen", "reap"], "signalled")] {
        // Before the watchdog is started, which sees the mounts of that moment.
        let Some(own) = make() else { return };
        let stage = Stage::new("frozen");
        let mut watchdog = stage.watchdog(options);
        let mut frozen = freeze_in_time(&stage, &mut watchdog, own);
        let Frozen { freezer, actor, .. } = &mut frozen;
        if expected == "frozen" {
            assert_eq!(first_said(&mut watchdog, actor), expected);
            freezer.thaw();
            check_allowance_once_more(&stage, actor);
        } else {
            watchdog.event(|event| event["event"] == expected && event["pid"] == actor.pid());
            // The freezer of version 1 lets nobody die.
            freezer.thaw();
            assert_eq!(actor.wait().signal(), Some(SIGKILL));
            assert_eq!(first_said(&mut watchdog, actor), "reaped");
        }
    }
}

/// A frozen worker. The freezer first: a frozen process cannot die.
struct Frozen {
    freezer: Freezer,
    actor: Actor,
    _mount: Option<Mount>,
}

/// A worker with a timer armed, frozen well before its deadline: where the machine was too slow for
/// that, another one.
fn freeze_in_time(
    stage: &Stage,
    watchdog: &mut Watchdog,
    (mut freezer, mount): (Freezer, Option<Mount>),
) -> Frozen {
    for _ in 0..10 {
        let mut actor = stage.actor();
        wait_for_admission(watchdog, &actor);
        freezer.take(actor.pid());
        let from = Instant::now();
        actor.tell(STEP);
        freezer.freeze();
        if from.elapsed() < ALLOWANCE / 2 {
            return Frozen { freezer, actor, _mount: mount };
        }
        freezer.thaw();
    }
    panic!("the machine is too slow to freeze a worker in {ALLOWANCE:?}");
}
