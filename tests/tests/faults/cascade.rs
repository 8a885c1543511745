//! Workers that wait for one: it is reaped before them, and they may go on.

use std::os::unix::process::ExitStatusExt;

use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::{Actor, Stage, Watchdog, until};
use serde_json::Value;

const SIGKILL: i32 = 9;
/// Longer than any test takes: who is held back for so long is let go by what the test does.
const LONG: &[&str] = &["--cascade", "10m"];

fn is_decision(pid: u32, decision: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "cascade" && event["pid"] == pid && event["decision"] == decision
}

fn wait_for_admission(watchdog: &mut Watchdog, actors: &[Actor]) {
    for _ in actors {
        watchdog.event(|event| event["event"] == "admitted");
    }
}

/// A rank each, all of one job, admitted.
fn ranks(stage: &Stage, watchdog: &mut Watchdog, count: usize) -> Vec<Actor> {
    let start = |rank: usize| {
        let labels = [("HANGWATCH_JOB", "train"), ("RANK", &*rank.to_string())];
        let mut actor = Actor::start(stage.name(), &labels);
        actor.tell("attach");
        actor
    };
    let actors: Vec<Actor> = (0..count).map(start).collect();
    wait_for_admission(watchdog, &actors);
    actors
}

/// All but the last wait for it, which waits for nothing or has an hour of its own left.
fn check_suspect_first(orders: &[&str], timer: &str) {
    let stage = Stage::new("suspect");
    let mut watchdog = stage.watchdog(LONG);
    let mut actors = ranks(&stage, &mut watchdog, 4);
    let mut suspect = actors.pop().unwrap();
    orders.iter().for_each(|order| drop(suspect.tell(order)));
    for actor in &mut actors {
        actor.tell("expires barrier 300");
    }
    let end = watchdog.event(|event| event["event"] == "suspect");
    assert_eq!(suspect.wait().signal(), Some(SIGKILL));
    assert_eq!((&end["pid"], &end["rank"]), (&suspect.pid().into(), &3.into()), "{end}");
    assert_eq!((&end["scope"], &end["outcome"]), (&"barrier".into(), &"reaped".into()), "{end}");
    assert!(end["message"].as_str().unwrap().contains(timer), "{end}");
    for actor in &mut actors {
        assert_eq!(actor.tell("release barrier"), "InTime");
        assert!(actor.end().success());
    }
    let events = watchdog.events();
    assert!(events.iter().any(|event| event["decision"] == "suspect_first"), "{events:#?}");
    assert!(!events.iter().any(|event| event["event"] == "expired"), "{events:#?}");
    assert_eq!(stage.counter(Counter::Reaped), 1);
}

#[test]
fn the_one_that_three_wait_for_is_reaped_first_and_they_go_on() {
    check_suspect_first(&[], "no timer armed");
    check_suspect_first(&["expires load 3600000"], "\"load\" was condemned");
}

/// Nothing but a note in its lane tells of a suspect that has no timer.
#[test]
fn a_suspect_that_a_dead_watchdog_has_stopped_is_reaped_or_runs_again() {
    for (options, is_reaped) in
        [(&["--reap", "tree"][..], true), (&["--reap", "tree", "--notify-only"][..], false)]
    {
        let stage = Stage::new("stopped-suspect");
        let crash = [("HANGWATCH_CRASH_AT", "descendants-stopped")];
        let first = [LONG, &["--reap", "tree"]].concat();
        let mut first = Watchdog::start(stage.name(), &first, &crash);
        let mut actors = ranks(&stage, &mut first, 4);
        let mut suspect = actors.pop().unwrap();
        for actor in &mut actors {
            actor.tell("expires barrier 300");
        }
        assert_eq!(first.wait().signal(), Some(SIGKILL));
        assert!(suspect.is_alive());
        let mut second = stage.watchdog(&[LONG, options].concat());
        if is_reaped {
            let end = second.event(|event| event["event"] == "suspect");
            assert_eq!((&end["pid"], &end["scope"]), (&suspect.pid().into(), &"barrier".into()));
            assert_eq!(suspect.wait().signal(), Some(SIGKILL));
        } else {
            second.event(|event| event["event"] == "resumed" && event["pid"] == suspect.pid());
            suspect.tell("expires its 3600000");
            assert_eq!(suspect.tell("release its"), "InTime");
        }
    }
}

#[test]
fn those_who_do_not_go_on_are_reaped_when_the_cascade_is_over() {
    let stage = Stage::new("over");
    let mut watchdog = stage.watchdog(&["--cascade", "500ms"]);
    let mut actors = ranks(&stage, &mut watchdog, 4);
    for actor in &mut actors[..3] {
        actor.tell("expires barrier 300");
    }
    watchdog.event(|event| event["event"] == "suspect");
    for actor in &actors[..3] {
        watchdog.event(|event| event["event"] == "expired");
        assert!(actor.pid() != 0);
    }
    for actor in &mut actors {
        assert_eq!(actor.wait().signal(), Some(SIGKILL));
    }
    let late = |event: &Value| event["late_ms"].as_f64().filter(|_| event["event"] == "expired");
    let late: Vec<f64> = watchdog.events().iter().filter_map(late).collect();
    assert!(late.len() == 3 && late.iter().all(|late| *late >= 500.0), "{late:?}");
}

#[test]
fn a_suspect_that_comes_in_late_ends_the_wait_and_nobody_is_reaped() {
    let stage = Stage::new("comes-in");
    let mut watchdog = stage.watchdog(LONG);
    let mut actors = ranks(&stage, &mut watchdog, 3);
    actors[0].tell("expires barrier 100");
    actors[1].tell("expires barrier 3600000");
    let first = actors[0].pid();
    watchdog.event(is_decision(first, "held_back"));
    actors[2].tell("expires barrier 3600000");
    for actor in &mut actors {
        assert_eq!(actor.tell("release barrier"), "InTime");
        assert!(actor.end().success());
    }
    assert_eq!(stage.counter(Counter::Expired), 0);
}

#[test]
fn where_two_are_missing_all_are_reaped_as_usual_and_the_log_says_why() {
    let stage = Stage::new("two-missing");
    let mut watchdog = stage.watchdog(LONG);
    let mut actors = ranks(&stage, &mut watchdog, 5);
    for actor in &mut actors[..3] {
        actor.tell("expires barrier 300");
    }
    for actor in &mut actors[..3] {
        assert_eq!(actor.wait().signal(), Some(SIGKILL));
    }
    let told = watchdog.event(is_decision(actors[0].pid(), "as_usual"));
    assert!(told["message"].as_str().unwrap().contains("2 workers of its job are not"), "{told}");
    assert!(actors[3].is_alive() && actors[4].is_alive());
}

#[test]
fn a_report_names_the_suspect_and_reaps_at_the_deadline() {
    let stage = Stage::new("report");
    let mut watchdog = stage.watchdog(&["--cascade-policy", "report"]);
    let mut actors = ranks(&stage, &mut watchdog, 4);
    for actor in &mut actors[..3] {
        actor.tell("expires barrier 300");
    }
    let told = watchdog.event(|event| event["decision"] == "suspect_told");
    assert_eq!((&told["suspect_pid"], &told["suspect_rank"]), (&actors[3].pid().into(), &3.into()));
    for actor in &mut actors[..3] {
        assert_eq!(actor.wait().signal(), Some(SIGKILL));
    }
    assert!(actors[3].is_alive());
}

/// The first watchdog dies when it holds one back, or has just named the suspect; its successor names
/// no other, and lets those who waited go on.
#[test]
fn a_watchdog_killed_while_it_holds_back_is_succeeded_without_a_second_kill() {
    for point in ["suspected", "signal", "signalled"] {
        let stage = Stage::new("held-killed");
        let crash = [("HANGWATCH_CRASH_AT", point), ("HANGWATCH_CRASH_BY", "kill")];
        let mut first = Watchdog::start(stage.name(), LONG, &crash);
        let mut actors = ranks(&stage, &mut first, 4);
        for actor in &mut actors[..3] {
            actor.tell("expires barrier 300");
        }
        assert_eq!(first.wait().signal(), Some(SIGKILL), "{point}");
        // One has gone on meanwhile: it must not be taken for the one they wait for.
        if point == "signalled" {
            assert_eq!(actors[3].wait().signal(), Some(SIGKILL));
            assert_eq!(actors[0].tell("release barrier"), "InTime");
        }
        let mut second = stage.watchdog(LONG);
        let left = usize::from(point == "signalled");
        if left == 0 {
            assert_eq!(actors[3].wait().signal(), Some(SIGKILL), "{point}");
        }
        let from = stage.counter(Counter::Ticks);
        until("the second looks", || (stage.counter(Counter::Ticks) > from + 5).then_some(()));
        for actor in &mut actors[left..3] {
            assert_eq!(actor.tell("release barrier"), "InTime", "{point}");
        }
        for actor in &mut actors[..3] {
            assert!(actor.end().success(), "{point}");
        }
        let expired = second.events().iter().filter(|event| event["event"] == "expired").count();
        assert_eq!(expired, 0, "{point}: {:#?}", second.events());
    }
}
