//! Deadlines learned from what was seen, published by the watchdog, changed while it runs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use hangwatch_tests::{Stage, Watchdog, until};
use rustix::process::Signal;
use serde_json::Value;

use super::{complaint, said};

/// A scope in `hangwatch scopes --json`.
fn scope(stage: &Stage, name: &str) -> Value {
    let seen = said(&["scopes", "--json", "--segment", stage.name()]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let scopes = seen[0]["scopes"].as_array().unwrap();
    scopes.iter().find(|scope| scope["scope"] == name).cloned().unwrap_or_default()
}

/// An event of a watchdog, be it told already or still to come.
fn event(watchdog: &mut Watchdog, what: &str) -> Value {
    until(what, || watchdog.events().iter().find(|event| event["event"] == what).cloned())
}

/// A deadlines file in a directory of its own.
struct File {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl File {
    fn new(text: &str) -> File {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deadlines.toml");
        if !text.is_empty() {
            fs::write(&path, text).unwrap();
        }
        File { path, _dir: dir }
    }

    fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }
}

#[test]
fn statistics_survive_their_workers_and_watchdogs() {
    let stage = Stage::new("statistics");
    let mut first = stage.watchdog(&[]);
    let mut ended = stage.actor();
    ended.tell("pairs 500");
    ended.end();
    until("its lane is recycled", || stage.lanes_in_use().is_empty().then_some(()));
    first.kill();
    let _second = stage.watchdog(&[]);
    let mut killed = stage.actor();
    killed.tell("pairs 300");
    killed.wait_or_kill();
    until("its lane is recycled", || stage.lanes_in_use().is_empty().then_some(()));
    let mut living = stage.actor();
    living.tell("pairs 200");

    let pair = scope(&stage, "pair");
    assert_eq!((&pair["acquired"], &pair["released"]), (&1000.into(), &1000.into()), "{pair}");
    assert_eq!(pair["confidence"], "good");
    assert_eq!(pair["quantiles"][1]["sound"], true, "{pair}");
    assert_eq!(pair["quantiles"][2]["sound"], false, "{pair}");
    let clock = pair["clocks"][0].as_str().unwrap();
    let table = said(&["scopes", "--segment", stage.name()]);
    assert!(table.contains(clock) && table.contains("resolution 1ns"), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
}

#[test]
fn what_wby_default_is_enforced_where_an_acquire_brings_no_time() {
    let stage = Stage::new("learned");
    let file = File::new("");
    let mut teacher = stage.actor();
    teacher.tell("pairs 100");
    teacher.tell("expires once 60000");
    teacher.tell("release once");
    let (code, said_why) = complaint(&["learn", "--segment", stage.name(), "-o", file.name()]);
    assert_eq!(code, Some(0), "{said_why}");
    assert!(said_why.contains("once: left out: only 1 acquires"), "{said_why}");
    assert!(file.text().contains("[scopes.pair]") && file.text().contains("fair"));
    let refused = teacher.try_tell("learned pair").unwrap_err();
    assert!(refused.contains("no deadline is known"), "{refused}");

    let mut watchdog = stage.watchdog(&["--deadlines", file.name()]);
    event(&mut watchdog, "deadlines");
    let mut hung = stage.actor();
    hung.tell("learned pair");
    let expiry = watchdog.expiry_of(hung.pid());
    assert_eq!((&expiry["scope"], &expiry["outcome"]), (&"pair".into(), &"reaped".into()));
    let allowance_ms = expiry["allowance_ms"].as_f64().unwrap();
    assert!((1000.0..1001.0).contains(&allowance_ms), "{expiry}");
    assert!(teacher.is_alive());
}

#[test]
fn a_file_is_read_anew_without_touching_what_is_under_way() {
    let stage = Stage::new("reread");
    let file = File::new("[scopes]\nforward = \"10m\"\nbackward = 600");
    let mut watchdog = stage.watchdog(&["--deadlines", file.name()]);
    event(&mut watchdog, "deadlines");
    let mut worker = stage.actor();
    worker.tell("learned forward");
    let allowances = || -> Vec<Duration> {
        let lanes = stage.picture().lanes;
        let timers = lanes.iter().flat_map(|lane| &lane.timers);
        timers.map(|timer| Duration::from_secs(timer.timeout.as_secs())).collect()
    };
    let of = |name: &str| scope(&stage, name)["deadline_ns"].as_u64();
    assert_eq!(allowances(), [Duration::from_mins(10)]);

    fs::write(&file.path, "[scopes]\nforward = \"5M\"").unwrap();
    watchdog.signal(Signal::HUP);
    let refused = event(&mut watchdog, "deadlines_refused");
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("line 2") && error.contains("m for minutes"), "{error}");
    assert_eq!(of("forward"), Some(600_000_000_000), "the old ones stay");

    fs::write(&file.path, "default = \"1h\"\n[scopes]\nforward = \"5m\"").unwrap();
    watchdog.signal(Signal::HUP);
    until("the new ones", || (of("forward") == Some(300_000_000_000)).then_some(()));
    until("and no others", || of("backward").is_none().then_some(()));
    assert_eq!(allowances(), [Duration::from_mins(10)], "what is under way keeps its deadline");
    worker.tell("release forward");
    worker.tell("learned forward");
    worker.tell("learned backward");
    let mut now = allowances();
    now.sort();
    assert_eq!(now, [Duration::from_mins(5), Duration::from_hours(1)]);

    // A watchdog that is given no file leaves what is there.
    watchdog.kill();
    let _successor = stage.watchdog(&[]);
    assert_eq!(of("forward"), Some(300_000_000_000));
}

#[test]
fn a_file_that_is_there_is_neither_lost_nor_lowered_unasked() {
    let stage = Stage::new("merge");
    let mut worker = stage.actor();
    worker.tell("pairs 100");
    let file = File::new("# by hand\n[scopes]\npair = \"30s\"\nrare = \"1h\"\n");
    let learn = |more: &[&str]| {
        let words = ["learn", "--segment", stage.name(), "-o", file.name()];
        complaint(&[&words[..], more].concat())
    };
    let before = file.text();
    let (code, why) = learn(&[]);
    assert_eq!(code, Some(125), "{why}");
    assert!(why.contains("--merge"), "{why}");
    assert_eq!(file.text(), before);
    let (code, why) = learn(&["--merge"]);
    assert_eq!(code, Some(0), "{why}");
    assert!(why.contains("pair: kept at 30s; 1s would be enough"), "{why}");
    assert_eq!(file.text(), before);
    let (_, why) = learn(&["--merge", "--lower"]);
    assert!(why.contains("pair: lowered from 30s to 1s"), "{why}");
    assert!(file.text().starts_with("# by hand") && file.text().contains("rare = \"1h\""));
    learn(&["--replace"]);
    assert!(!file.text().contains("rare"));
}

#[test]
fn a_file_that_is_wrong_starts_no_watchdog() {
    let stage = Stage::new("wrong-file");
    let check = |text: &str, part: &str| {
        let file = File::new(text);
        let (code, why) =
            complaint(&["run", "--segment", stage.name(), "--deadlines", file.name()]);
        assert_eq!(code, Some(125), "{text:?}: {why}");
        assert!(why.contains(part), "{text:?}: {why}");
    };
    check("[scopes]\n\nforward = \"soon\"", "line 3");
    check("[scopes.forward]\nlimit = 3", "did you mean deadline?");
    check("", "No such file");
    check("\u{1b}]0;boo\u{7}", "line 1");
}

#[test]
fn more_scopes_than_there_is_room_for_are_named() {
    let stage = Stage::new("no-room"); // 32 names, one of which is (other)
    let scopes: Vec<String> = (0..40).map(|n| format!("s{n:02} = 60")).collect();
    let file = File::new(&format!("[scopes]\n{}", scopes.join("\n")));
    let mut watchdog = stage.watchdog(&["--deadlines", file.name()]);
    assert_eq!(event(&mut watchdog, "deadlines")["scopes"], 31);
    let lost = event(&mut watchdog, "deadlines_lost");
    assert_eq!(lost["scopes"].as_str().unwrap().split(", ").count(), 9, "{lost}");
}
