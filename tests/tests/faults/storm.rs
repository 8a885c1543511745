//! A storm: every worker expires at once, by mistake. The brake holds, says so, and is released by
//! an operator, by nothing else.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::soak::{self, storms};
use hangwatch_tests::{Actor, Stage, Watchdog, program, until};
use rustix::process::Signal;
use serde_json::Value;

const WORKERS: usize = 8;
const MAX_REAPS: &[&str] = &["--max-reaps", "3"];

/// What the binary says of the segment.
fn hangwatch(words: &[&str]) -> String {
    let output = Command::new(program("stage-watchdog")).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn says_braked(stage: &Stage) -> bool {
    let table = hangwatch(&["status", "--segment", stage.name()]);
    let json = hangwatch(&["status", "--segment", stage.name(), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let braked = json[0]["braked"].as_bool().unwrap();
    assert_eq!(table.contains("KILL LIMITER ENGAGED"), braked, "{table}");
    braked
}

/// All at once; those who die of it are gone from what is given back.
fn storm(stage: &Stage, watchdog: &mut Watchdog) -> Vec<Actor> {
    let mut workers: Vec<Actor> = (0..WORKERS).map(|_| stage.actor()).collect();
    for worker in &mut workers {
        worker.tell("expires storm 400");
    }
    for _ in 0..WORKERS {
        let ended = watchdog.event(|event| event["event"] == "expired");
        let worker = workers.iter_mut().find(|worker| ended["pid"] == worker.pid()).unwrap();
        match ended["outcome"].as_str() {
            Some("reaped") => assert_eq!(worker.wait().signal(), Some(9)),
            Some("braked") => assert_eq!(worker.tell("release storm"), "Reported"),
            _ => panic!("{ended}"),
        }
    }
    workers.retain_mut(Actor::is_alive);
    workers
}

fn check_reaps(stage: &Stage, watchdog: &mut Watchdog) {
    let mut hung = stage.actor();
    hung.tell("expires hung 30");
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(hung.wait().signal(), Some(9));
}

fn check_spares(stage: &Stage, watchdog: &mut Watchdog) {
    let mut hung = stage.actor();
    hung.tell("expires hung 30");
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "braked");
    assert_eq!(hung.tell("release hung"), "Reported");
    assert!(hung.end().success());
}

#[test]
fn in_a_storm_the_brake_holds_until_an_operator_releases_it() {
    let stage = Stage::new("storm");
    let mut watchdog = stage.watchdog(MAX_REAPS);
    assert!(!says_braked(&stage));
    let spared = storm(&stage, &mut watchdog);
    assert_eq!(spared.len(), WORKERS - 3);
    assert!(says_braked(&stage));
    let said = watchdog.events().iter().filter(|event| event["event"] == "braked");
    let said: Vec<String> = said.map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "said once");
    assert!(said[0].contains("hangwatch release-brake"), "{said:?}");
    check_spares(&stage, &mut watchdog);

    hangwatch(&["release-brake", "--segment", stage.name()]);
    watchdog.event(|event| event["event"] == "brake_released");
    until("status says so", || (!says_braked(&stage)).then_some(()));
    check_reaps(&stage, &mut watchdog);

    // The release forgot what led to the brake, but for that one: two more, and it holds again.
    let spared = storm(&stage, &mut watchdog);
    assert_eq!(spared.len(), WORKERS - 2);
    // To read the settings again is no release.
    watchdog.signal(Signal::HUP);
    watchdog.event(|event| event["event"] == "reloaded");
    check_spares(&stage, &mut watchdog);
    hangwatch(&["release-brake", "--segment", stage.name()]);
    watchdog.event(|event| event["event"] == "brake_released");
    check_reaps(&stage, &mut watchdog);
    assert_eq!(stage.counter(Counter::Reaped), 3 + 1 + 2 + 1);
    assert!(watchdog.end().success());
}

/// Nobody releases: all hang on. Judged again after each release of the brake, as many as it lets.
#[test]
fn who_still_hangs_when_the_brake_is_released_is_reaped() {
    let stage = Stage::new("storm-hangs");
    let mut watchdog = stage.watchdog(MAX_REAPS);
    let mut workers: Vec<Actor> = (0..WORKERS).map(|_| stage.actor()).collect();
    let mut fine = stage.actor();
    fine.tell("expires fine 3600000");
    for worker in &mut workers {
        worker.tell("expires storm 400");
    }
    let ended =
        |outcome| move |event: &Value| event["event"] == "expired" && event["outcome"] == outcome;
    for (reaped, spared) in [(3, 5), (3, 2), (2, 0)] {
        (0..reaped).for_each(|_| drop(watchdog.event(ended("reaped"))));
        if spared == 0 {
            break;
        }
        until("the brake holds", || says_braked(&stage).then_some(()));
        // In the middle of it the watchdog dies: what was spared stands in the segment.
        watchdog.kill();
        watchdog = stage.watchdog(MAX_REAPS);
        let living = workers.iter_mut().filter_map(|worker| worker.is_alive().then_some(()));
        assert_eq!(living.count(), spared);
        hangwatch(&["release-brake", "--segment", stage.name()]);
    }
    assert!(workers.iter_mut().all(|worker| worker.wait().signal() == Some(9)));
    assert_eq!(fine.tell("release fine"), "InTime");
    let counter = |counter| stage.counter(counter);
    let all = WORKERS as u64;
    assert_eq!([Counter::Expired, Counter::Condemned, Counter::Reaped].map(counter), [all; 3]);
    assert!(watchdog.end().success());
}

#[test]
fn storm_after_storm_no_more_are_reaped_than_the_brake_lets() {
    soak::check(&storms::PART, 3);
}

#[test]
fn a_successor_keeps_the_brake() {
    let stage = Stage::new("storm-successor");
    let mut first = stage.watchdog(MAX_REAPS);
    let spared = storm(&stage, &mut first);
    assert_eq!(spared.len(), WORKERS - 3);
    first.kill();
    assert!(says_braked(&stage));
    let mut second = stage.watchdog(MAX_REAPS);
    check_spares(&stage, &mut second);
    assert!(second.end().success());
    // In order or not: an end is no release.
    let mut third = stage.watchdog(MAX_REAPS);
    check_spares(&stage, &mut third);
    hangwatch(&["release-brake", "--segment", stage.name()]);
    third.event(|event| event["event"] == "brake_released");
    check_reaps(&stage, &mut third);
}
