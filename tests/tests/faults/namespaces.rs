//! Workers in a PID namespace below the watchdog's, and beside it.

use std::process::Command;

use hangwatch_tests::namespace::{Proc, below, refused};
use hangwatch_tests::{Actor, Stage, Watchdog, program, until};

fn is_skipped() -> bool {
    let reason = refused();
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_some()
}

/// The pids of a process, from our namespace inwards.
fn pids(pid: u64) -> Vec<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_worker_in_a_pid_namespace_below_is_reaped_by_the_pid_the_watchdog_sees() {
    if is_skipped() {
        return;
    }
    for proc in [Proc::Own, Proc::Parents] {
        let stage = Stage::new("below");
        let mut watchdog = stage.watchdog(&[]);
        let mut bystander = stage.actor();
        let mut actor = Actor::spawn(stage.name(), below(proc, &program("stage-worker")));
        assert_eq!(actor.tell("attach"), "1", "what it claims to be, {proc:?}");
        let other = bystander.pid();
        let admitted =
            watchdog.event(|event| event["event"] == "admitted" && event["pid"] != other);
        let pid = admitted["pid"].as_u64().unwrap();
        assert_eq!(pids(pid), [pid, 1], "{proc:?}");
        actor.tell("expires step 50");
        let expiry = watchdog.event(|event| event["event"] == "expired");
        assert_eq!((expiry["pid"].as_u64(), &expiry["outcome"]), (Some(pid), &"reaped".into()));
        assert!(!actor.wait().success(), "who started it has seen it die");
        until("its lane comes back", || (stage.lanes_in_use().len() == 1).then_some(()));
        assert_eq!(bystander.tell("attach"), bystander.pid().to_string());
    }
}

#[test]
fn a_worker_beside_the_watchdogs_pid_namespace_is_reported_as_unattestable() {
    if is_skipped() {
        return;
    }
    let stage = Stage::new("beside");
    let mut command: Command = below(Proc::Own, &program("stage-watchdog"));
    command.args(Watchdog::arguments(stage.name(), &[]));
    let mut watchdog = Watchdog::spawn(command);
    watchdog.event(|event| event["event"] == "serving");
    let mut actor = stage.actor();
    actor.tell("expires step 100");
    let expiry = watchdog.event(|event| event["event"] == "expired");
    assert_eq!((&expiry["outcome"], &expiry["scope"]), (&"unattestable".into(), &"step".into()));
    assert!(expiry["pid"].is_null(), "{expiry}");
    // Said once, and nothing is done: it is alive, and its lane is its own.
    actor.tell("expires other 100");
    let expiry = watchdog.event(|event| event["event"] == "expired");
    assert_eq!(expiry["scope"], "other");
    assert_eq!(actor.tell("release step"), "Reported");
    assert_eq!(actor.tell("release other"), "Reported");
    assert!(actor.end().success());
    until("it gives its lane back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(watchdog.events().iter().all(|event| event["event"] != "signalled"));
}
