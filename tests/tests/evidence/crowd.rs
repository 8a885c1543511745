//! Many workers expire in one tick: every one is reaped, none left stopped, and memory is bounded.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use hangwatch::CreateOptions;
use hangwatch_tests::incidents::Incidents;
use hangwatch_tests::{Actor, Stage};

const WORKERS: usize = 64;
/// The most that the watchdog may ever have had in memory, KiB: each incident takes some hundred.
const MEMORY_KIB: u64 = 256 << 10;

#[test]
fn of_many_that_expire_at_once_each_is_reaped_and_has_its_incident() {
    let geometry = Stage::geometry(WORKERS as u32 + 8);
    let stage = Stage::with("crowd", CreateOptions { geometry, ..CreateOptions::default() });
    let incidents = Incidents::new();
    let mut watchdog = stage.watchdog(&incidents.options("full", &["--evidence-budget", "2s"]));
    let mut workers: Vec<Actor> = (0..WORKERS).map(|_| stage.actor()).collect();
    for worker in &mut workers {
        worker.tell("expires start 60000");
    }
    // All at the same time, within the millisecond that a deadline is told in.
    let due_at = Instant::now() + Duration::from_secs(2);
    for worker in &mut workers {
        let left = due_at.saturating_duration_since(Instant::now());
        worker.tell(&format!("expires crowd {}", left.as_millis().max(1)));
    }
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
