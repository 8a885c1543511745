//! Many workers expire in one tick: every one is reaped, none left stopped, memory is bounded, and all
//! have a turn at being looked at.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use hangwatch::CreateOptions;
use hangwatch_tests::incidents::{Incidents, Script, missing};
use hangwatch_tests::{Actor, Stage, Watchdog};

const WORKERS: usize = 64;
/// More than may be looked at at once, on any machine.
const SOME: usize = 12;
/// The most that the watchdog may ever have had in memory, KiB: each incident takes some hundred.
const MEMORY_KIB: u64 = 256 << 10;

/// Workers that all run out of time in `crowd` at once.
fn crowd(stage: &Stage, count: usize) -> Vec<Actor> {
    let mut workers: Vec<Actor> = (0..count).map(|_| stage.actor()).collect();
    for worker in &mut workers {
        worker.tell("expires start 60000");
    }
    // All at the same time, within the millisecond that a deadline is told in.
    let due_at = Instant::now() + Duration::from_secs(2);
    for worker in &mut workers {
        let left = due_at.saturating_duration_since(Instant::now());
        worker.tell(&format!("expires crowd {}", left.as_millis().max(1)));
    }
    workers
}

#[test]
fn of_many_that_expire_at_once_each_is_reaped_and_has_its_incident() {
    let geometry = Stage::geometry(WORKERS as u32 + 8);
    let stage = Stage::with("crowd", CreateOptions { geometry, ..CreateOptions::default() });
    let incidents = Incidents::new();
    // A helper built for tests takes half a second, and on a busy machine a multiple of that.
    let mut watchdog = stage.watchdog(&incidents.options("full", &["--evidence-budget", "10s"]));
    let mut workers = crowd(&stage, WORKERS);
    let mut with_stacks = 0;
    for _ in 0..WORKERS {
        let ended = watchdog.event(|event| event["event"] == "expired");
        assert_eq!(ended["outcome"], "reaped", "{ended}");
        let incident = incidents.of(&ended);
        assert_eq!(incident.timers[0].scope, "crowd");
        let has_stacks = incident.evidence.threads.iter().any(|thread| thread.native.is_some());
        with_stacks += usize::from(has_stacks);
        assert!(has_stacks || !incident.evidence.missing.is_empty(), "or it says why not");
    }
    for worker in &mut workers {
        assert_eq!(worker.wait().signal(), Some(9));
    }
    assert!(with_stacks > 0, "some were captured in the time");
    assert_eq!(incidents.all().len(), WORKERS);
    let status = std::fs::read_to_string(format!("/proc/{}/status", watchdog.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[test]
fn who_has_told_its_stacks_makes_room_for_those_who_wait() {
    // A helper that never comes to an end with its names.
    let script = Script::new("echo '{\"finished\":\"native\"}'; exec sleep 600");
    let program = script.path();
    let (stage, incidents) = (Stage::new("turns"), Incidents::new());
    let options = incidents.options("full", &["--evidence-budget", "6s"]);
    let environment = [("HANGWATCH_PROGRAM", program.to_str().unwrap())];
    let mut watchdog = Watchdog::start(stage.name(), &options, &environment);
    let mut workers = crowd(&stage, SOME);
    let mut made_room = 0;
    for _ in 0..SOME {
        let ended = watchdog.event(|event| event["event"] == "expired");
        assert_eq!(ended["outcome"], "reaped", "{ended}");
        let incident = incidents.of(&ended);
        assert_eq!(missing(&incident, "native"), None, "{:#?}", incident.evidence.missing);
        let why = missing(&incident, "symbols").unwrap();
        made_room += usize::from(why == "too slow: others waited for their stacks");
    }
    assert!(made_room > 0 && made_room < SOME, "{made_room} made room");
    for worker in &mut workers {
        assert_eq!(worker.wait().signal(), Some(9));
    }
}
