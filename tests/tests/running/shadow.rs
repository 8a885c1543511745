//! Shadow mode: what would have been reaped, and how late it was in the end.

use hangwatch_tests::{Stage, Watchdog, until};
use serde_json::Value;

use super::said;

const FILE: &str = "[scopes]\nforward = 0.1\nload = 600\n";

/// A scope in `hangwatch shadow --json`.
fn shadow(stage: &Stage, name: &str) -> Value {
    let seen = said(&["shadow", "--json", "--segment", stage.name()]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let scopes = seen[0]["scopes"].as_array().unwrap();
    scopes.iter().find(|scope| scope["scope"] == name).cloned().unwrap_or_default()
}

fn watched(stage: &Stage, options: &[&str]) -> (Watchdog, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deadlines.toml");
    std::fs::write(&path, FILE).unwrap();
    let words = [&["--deadlines", path.to_str().unwrap()], options].concat();
    let watchdog = stage.watchdog(&words);
    until("the file is published", || {
        let forward = shadow(stage, "forward");
        (forward["deadline_ns"] == 100_000_000).then_some(())
    });
    (watchdog, dir)
}

#[test]
fn a_shadow_tells_who_would_have_been_reaped_and_how_late_each_was() {
    let stage = Stage::new("shadow");
    let (mut watchdog, _dir) = watched(&stage, &["--notify-only"]);
    let mut worker = stage.actor();
    // By the file, with a longer time of its own, in time.
    worker.tell("learned forward");
    worker.tell("expires load 600000");
    let expired = watchdog.expiry_of(worker.pid());
    assert_eq!((&expired["outcome"], &expired["scope"]), (&"reported".into(), &"forward".into()));
    until("it counts as late now", || (shadow(&stage, "forward")["late_now"] == 1).then_some(()));
    let table = said(&["shadow", "--segment", stage.name()]);
    assert!(table.contains(": 1 acquire would have been killed"), "{table}");
    worker.tell("release forward");
    let ended = watchdog.event(|event| event["event"] == "ended_late");
    assert_eq!((&ended["scope"], &ended["pid"]), (&"forward".into(), &worker.pid().into()));
    assert!(ended["late_ms"].as_f64().unwrap() > 0.0, "{ended}");

    worker.tell("expires forward 600000");
    let overrun = watchdog.event(|event| event["event"] == "overrun");
    assert_eq!((&overrun["scope"], &overrun["pid"]), (&"forward".into(), &worker.pid().into()));
    worker.tell("release forward");
    until("both are counted", || (shadow(&stage, "forward")["ended_late"] == 2).then_some(()));
    let forward = shadow(&stage, "forward");
    assert_eq!((&forward["late_now"], &forward["died_late"]), (&0.into(), &0.into()), "{forward}");
    assert!(forward["max_late_ns"].as_u64() >= forward["mean_late_ns"].as_u64(), "{forward}");

    // Killed by somebody else while it was late.
    worker.tell("learned forward");
    watchdog.event(|event| event["event"] == "expired" && event["pid"] == worker.pid());
    worker.wait_or_kill();
    until("its death is counted", || (shadow(&stage, "forward")["died_late"] == 1).then_some(()));
    let load = shadow(&stage, "load");
    assert_eq!((&load["ended_late"], &load["died_late"]), (&0.into(), &0.into()), "{load}");
    let table = said(&["shadow", "--segment", stage.name()]);
    assert!(table.contains("3 acquires would have been killed"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn a_watchdog_that_enforces_holds_nobody_to_another_time_than_its_own() {
    let stage = Stage::new("no-shadow");
    let (mut watchdog, _dir) = watched(&stage, &[]);
    let mut own = stage.actor();
    own.tell("expires forward 600000");
    let mut by_file = stage.actor();
    by_file.tell("learned forward");
    assert_eq!(watchdog.expiry_of(by_file.pid())["outcome"], "reaped");
    assert!(own.is_alive());
    let told = watchdog.events().iter().any(|event| event["event"] == "overrun");
    assert!(!told, "{:#?}", watchdog.events());
}
