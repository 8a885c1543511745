//! Time that stood still: for the watchdog alone, and for the watchdog and its workers together.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use hangwatch::sys::clock::monotonic_ns;
use hangwatch_tests::freezer::Freezer;
use hangwatch_tests::{Actor, Stage, Watchdog};
use rustix::process::Signal;
use serde_json::Value;

/// How long things stand still: the fault itself, no synchronisation.
const STALL: Duration = Duration::from_millis(2_500);
/// Beyond what a busy machine may make the watchdog late by itself.
const LONG_MS: f64 = 2_000.0;

fn is_long_stall(event: &Value) -> bool {
    event["event"] == "stalled" && event["late_ms"].as_f64().unwrap() > LONG_MS
}

/// The watchdog has looked at everything since: it has found and reaped one who hangs from now on.
fn has_looked(stage: &Stage, watchdog: &mut Watchdog) {
    let mut probe = stage.actor();
    probe.tell("expires probe 30");
    assert_eq!(watchdog.expiry_of(probe.pid())["outcome"], "reaped");
}

/// What makes a set of processes stand still.
enum Means {
    Signals,
    Freezer(Freezer),
}

impl Means {
    fn stop(&mut self, watchdog: &Watchdog, workers: &[&mut Actor]) {
        match self {
            Means::Signals => {
                for worker in workers {
                    worker.signal(Signal::STOP);
                }
                watchdog.signal(Signal::STOP);
            }
            Means::Freezer(freezer) => {
                for worker in workers {
                    freezer.take(worker.pid());
                }
                freezer.take(watchdog.pid().as_raw_pid().unsigned_abs());
                freezer.freeze();
            }
        }
    }

    fn go_on(&self, watchdog: &Watchdog, workers: &[&mut Actor]) {
        match self {
            Means::Signals => {
                watchdog.signal(Signal::CONT);
                for worker in workers {
                    worker.signal(Signal::CONT);
                }
            }
            Means::Freezer(freezer) => freezer.thaw(),
        }
    }
}

/// All stand still past their deadlines.
fn check_machine_stall(test: &str, mut means: Means) {
    let stage = Stage::new(test);
    let mut watchdog = stage.watchdog(&[]);
    let (mut hung, mut fine, mut late) = (stage.actor(), stage.actor(), stage.actor());
    hung.tell("expires hung 1000");
    fine.tell("expires fine 1200");
    // Due long before the end of the stall, and again soon after.
    late.tell("expires late 2000");
    let from = Instant::now();
    means.stop(&watchdog, &[&mut hung, &mut fine, &mut late]);
    std::thread::sleep(STALL.saturating_sub(from.elapsed()));
    let resumed_at_ns = monotonic_ns();
    means.go_on(&watchdog, &[&mut hung, &mut fine, &mut late]);
    let stalled = watchdog.event(is_long_stall);
    println!("{test}: {stalled}");
    assert!(stalled["message"].as_str().unwrap().contains("extended by the delay"), "it says why");
    has_looked(&stage, &mut watchdog);
    assert_eq!(fine.tell("release fine"), "InTime", "nobody is killed for a stall");
    assert_eq!(late.tell("release late"), "InTime", "nobody is killed for a stall");
    let expiry = watchdog.expiry_of(hung.pid());
    assert_eq!(expiry["outcome"], "reaped", "who is really hung is");
    // Its allowance, less what passed of it before the stall; twice credited, it would be longer.
    let left_ns = 500_000_000..STALL.as_nanos() as u64;
    let had_ns = expiry["deadline_ns"].as_u64().unwrap() - resumed_at_ns;
    assert!(left_ns.contains(&had_ns), "{had_ns} ns: {expiry}");
    assert_eq!(hung.wait().signal(), Some(9));
    let long = watchdog.events().iter().filter(|event| is_long_stall(event)).count();
    assert_eq!(long, 1, "credited once");
    assert!(fine.is_alive() && late.is_alive());
    assert!(watchdog.end().success());
}

#[test]
fn nobody_is_killed_for_a_machine_that_stood_still_by_signals() {
    check_machine_stall("stall-signals", Means::Signals);
}

#[test]
fn nobody_is_killed_for_a_machine_that_stood_still_in_the_freezer() {
    let Some(freezer) = Freezer::new("stall-freezer") else { return };
    check_machine_stall("stall-freezer", Means::Freezer(freezer));
}

/// The first is killed as soon as it has credited the stall, and before it has done anything by it.
#[test]
fn a_successor_honours_the_credit_of_a_stall() {
    let stage = Stage::new("stall-successor");
    let at = [("HANGWATCH_CRASH_AT", "stall-credited")];
    let mut first = Watchdog::start(stage.name(), &[], &at);
    let (mut hung, mut fine) = (stage.actor(), stage.actor());
    hung.tell("expires hung 2000");
    fine.tell("expires fine 2000");
    let mut means = Means::Signals;
    means.stop(&first, &[&mut hung, &mut fine]);
    std::thread::sleep(STALL);
    let resumed_at_ns = monotonic_ns();
    means.go_on(&first, &[&mut hung, &mut fine]);
    assert_eq!(first.wait().signal(), Some(9), "killed at its credit");
    let mut second = stage.watchdog(&[]);
    has_looked(&stage, &mut second);
    assert_eq!(fine.tell("release fine"), "InTime");
    let expiry = second.expiry_of(hung.pid());
    assert!(expiry["deadline_ns"].as_u64().unwrap() > resumed_at_ns, "{expiry}");
    assert_eq!(hung.wait().signal(), Some(9), "who is really hung is reaped");
    assert!(fine.is_alive());
}

/// The watchdog stands still for seconds; workers do not notice, and nobody is killed for it.
#[test]
fn a_watchdog_that_stood_still_holds_nobody_up_and_kills_nobody_for_it() {
    let stage = Stage::new("stopped-watchdog");
    let mut watchdog = stage.watchdog(&[]);
    let (mut busy, mut hung, mut fine) = (stage.actor(), stage.actor(), stage.actor());
    busy.tell("pairs 100000");
    fine.tell("expires fine 1500");
    hung.tell("expires hung 1500");
    watchdog.signal(Signal::STOP);
    let from = Instant::now();
    let mut pairs = 100_000;
    // Whole rings lap, many times over, and nobody reads them.
    while from.elapsed() < STALL {
        busy.tell("pairs 100000");
        pairs += 100_000;
    }
    busy.tell("toil 2");
    watchdog.signal(Signal::CONT);
    let stalled = watchdog.event(is_long_stall);
    println!("{pairs} pairs meanwhile; {stalled}");
    has_looked(&stage, &mut watchdog);
    assert_eq!(fine.tell("release fine"), "InTime", "overdue by the watchdog's own fault only");
    let toiled: u64 = busy.tell("rest").parse().unwrap();
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(hung.wait().signal(), Some(9));
    assert!(busy.end().success() && fine.end().success());
    hangwatch_tests::until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
    let counts = stage.counts();
    assert_eq!(counts.acquired, pairs + toiled + 3);
    assert_eq!((counts.released(), counts.condemned), (pairs + toiled + 1, 2), "none is missing");
}
