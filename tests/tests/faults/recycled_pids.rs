//! The pid of a dead worker is another process's: that one is never signalled.

use std::io::ErrorKind;

use hangwatch::lane_lock_byte;
use hangwatch::sys::lock::{Holder, holder};
use hangwatch_process::proc::{State, state};
use hangwatch_tests::newcomer::Newcomer;
use hangwatch_tests::{Actor, Stage, Watchdog, until};
use rustix::process::Signal;

/// Whether somebody is left who shared the worker's file table, and has its locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sibling {
    None,
    LivesOn,
}

/// When a watchdog first sees the worker's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    FromTheStart,
    AfterItsDeath,
}

/// Kills a worker, and has its pid taken. `None`, said why, where that may not be.
fn replace(actor: &mut Actor) -> Option<Newcomer> {
    actor.signal(Signal::KILL);
    actor.wait();
    match Newcomer::with_pid(actor.pid()) {
        Ok(newcomer) => Some(newcomer),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            println!("skipped: somebody else was faster to have the pid");
            None
        }
        Err(error) => {
            println!("skipped: cannot choose the pid of a child here: {error}");
            None
        }
    }
}

fn check(watched: Watched, sibling: Sibling) {
    let case = (watched, sibling);
    let stage = Stage::new("recycled");
    let start = || stage.watchdog(&[]);
    let mut watchdog = (watched == Watched::FromTheStart).then(start);
    let mut actor = stage.actor();
    if let Some(watchdog) = &mut watchdog {
        watchdog.event(|event| event["event"] == "admitted");
        actor.tell("expires step 60000");
    } else {
        // Overdue when the watchdog comes.
        actor.tell("expires step 1");
    }
    let lane = stage.lanes_in_use()[0];
    let sibling = (sibling == Sibling::LivesOn).then(|| {
        let pid = actor.tell("sibling");
        Newcomer::adopt(pid.parse().unwrap())
    });
    let Some(newcomer) = replace(&mut actor) else { return };
    if sibling.is_some() {
        let holder = holder(stage.segment.file(), lane_lock_byte(lane)).unwrap();
        assert_eq!(holder, Holder::Process(newcomer.pid()), "the trap is set");
    }
    let mut watchdog = watchdog.unwrap_or_else(start);
    until("the dead worker's lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(newcomer.is_alive(), "{case:?}");
    assert!(sibling.is_none_or(|sibling| sibling.is_alive()), "{case:?}");
    assert_eq!(stage.counts().abandoned, 1, "{case:?}");
    assert!(watchdog.end().success());
    let wrong = |event: &&serde_json::Value| {
        matches!(event["event"].as_str(), Some("signalled" | "expired"))
    };
    assert_eq!(watchdog.events().iter().find(wrong), None, "{case:?}");
}

#[test]
fn the_newcomer_under_a_dead_workers_pid_is_never_signalled() {
    for watched in [Watched::FromTheStart, Watched::AfterItsDeath] {
        check(watched, Sibling::None);
    }
}

#[test]
fn the_newcomer_is_not_signalled_for_a_lock_that_a_sibling_of_the_dead_has() {
    for watched in [Watched::FromTheStart, Watched::AfterItsDeath] {
        check(watched, Sibling::LivesOn);
    }
}

#[test]
fn the_newcomer_is_spared_by_a_watchdog_about_to_signal_the_dead() {
    let stage = Stage::new("about-to");
    let crash = [("HANGWATCH_CRASH_AT", "signal"), ("HANGWATCH_CRASH_BY", "stop")];
    let mut watchdog = Watchdog::start(stage.name(), &[], &crash);
    let mut actor = stage.actor();
    actor.tell("expires step 50");
    let is_stopped = || matches!(state(watchdog.pid()), Ok(Some(State::Stopped)));
    until("the watchdog stops before its signal", || is_stopped().then_some(()));
    let Some(newcomer) = replace(&mut actor) else { return };
    watchdog.signal(Signal::CONT);
    let expiry = watchdog.expiry_of(actor.pid());
    assert_eq!(expiry["outcome"], "exited");
    until("the dead worker's lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(newcomer.is_alive());
}
