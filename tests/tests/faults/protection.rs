//! The watchdog's own weaknesses: a bug in it, protections that are refused. And the first of two
//! stages: a warning.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use hangwatch::sys::clock::monotonic_ns;
use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::{Stage, Watchdog, is_root, program};

/// A user that nobody else is.
const LIMITED: u32 = 4_101;

/// A watchdog that fails at `point`, by `means`, and a standby.
fn check_failure(point: &str, means: &str, code: Option<i32>) {
    let stage = Stage::new("failing");
    let environment = [("HANGWATCH_CRASH_AT", point), ("HANGWATCH_CRASH_BY", means)];
    let mut first = Watchdog::start(stage.name(), &[], &environment);
    // On a busy machine the first may be gone before it waits.
    let mut standby = Watchdog::start_only(stage.name(), &["--standby"], &[]);
    let (mut hung, mut fine) = (stage.actor(), stage.actor());
    fine.tell("expires fine 3600000");
    hung.tell("expires hung 50");
    let (status, said) = first.last_words();
    assert_eq!(status.code(), code, "{point}: {status}: {said}");
    if code.is_some() {
        let mut events = first.events().iter();
        let told = events.find(|event| event["event"] == "panicked").expect("it is said");
        let text = told["message_text"].as_str().unwrap();
        assert!(text.contains(point.split(':').next().unwrap()), "{told}");
    }
    standby.event(|event| event["event"] == "serving");
    assert_eq!(hung.wait().signal(), Some(9), "{point}");
    assert_eq!(fine.tell("release fine"), "InTime");
    assert_eq!(stage.counter(Counter::Condemned), 1);
}

#[test]
fn a_panic_ends_the_watchdog_with_123_and_a_standby_takes_over() {
    for point in ["ticked:2", "attestor", "verdict", "sleep:3", "condemned"] {
        check_failure(point, "panic", Some(123));
    }
}

#[test]
fn an_abort_ends_the_watchdog_and_a_standby_takes_over() {
    check_failure("verdict", "abort", None);
}

/// As a user who may do nothing, with no memory to lock.
#[test]
fn protections_that_are_refused_are_said_once_and_are_not_fatal() {
    if !is_root("to run as another user") {
        return;
    }
    let name = format!("test-refused-{}", std::process::id());
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -l 4 && ulimit -r 0 && exec \"$0\" \"$@\""])
        .arg(program("stage-watchdog"))
        .args([
            "run",
            "--segment",
            &name,
            "--lanes",
            "4",
            "--log",
            "json",
            "--realtime",
            "50",
            "--evidence",
            "off",
        ])
        .uid(65_534)
        .gid(65_534);
    let mut watchdog = Watchdog::spawn(command);
    watchdog.event(|event| event["event"] == "serving");
    let status = watchdog.end();
    let _ = watchdog.last_words();
    std::fs::remove_file(format!("/dev/shm/hangwatch.{name}")).unwrap();
    assert!(status.success());
    for refused in ["memory is not locked", "the OOM score is not lowered", "no real-time priority"]
    {
        let said = watchdog.events().iter().filter(|event| {
            event["event"] == "unprotected" && event["error"].as_str().unwrap().contains(refused)
        });
        assert_eq!(said.count(), 1, "{refused}: {:#?}", watchdog.events());
    }
}

/// However many threads and processes a user may have: the command runs and is watched, or it does not
/// run.
#[test]
fn no_command_runs_unwatched_for_want_of_a_thread() {
    if !is_root("to run as another user") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(LIMITED), None).unwrap();
    let binary = directory.path().join("hangwatch");
    std::fs::copy(program("stage-watchdog"), &binary).unwrap();
    let (mut ran, mut refused) = (0, 0);
    for threads in 1..24 {
        let mark = directory.path().join(format!("ran-{threads}"));
        let mut command = Command::new("prlimit");
        command
            .arg(format!("--nproc={threads}"))
            .arg(&binary)
            .args(["run", "--lanes", "4", "--log", "json", "--unprotected", "--"])
            .args(["sh", "-c", ": > \"$0\""])
            .arg(&mark)
            .uid(LIMITED)
            .gid(LIMITED);
        let mut watchdog = Watchdog::spawn(command);
        let (status, said) = watchdog.last_words();
        let serves = watchdog.events().iter().any(|event| event["event"] == "serving");
        if mark.exists() {
            assert!(serves && status.success(), "{threads}: {status}, {said}");
            ran += 1;
        } else {
            assert_eq!(status.code(), Some(125), "{threads}: {said}");
            assert!(said.contains("limit"), "{threads}: {said}");
            refused += 1;
        }
    }
    assert!(ran > 0 && refused > 3, "{ran} ran, {refused} did not");
}

#[test]
fn a_warning_comes_once_at_its_fraction_and_touches_nobody() {
    let stage = Stage::new("warning");
    let mut watchdog = stage.watchdog(&["--warn-at", "0.5"]);
    let (mut slow, mut quick, mut hung) = (stage.actor(), stage.actor(), stage.actor());
    slow.tell("expires slow 4000");
    quick.tell("expires quick 3600000");
    let is_of =
        |event: &serde_json::Value, pid: u32| event["event"] == "warning" && event["pid"] == pid;
    let warning = watchdog.event(|event| is_of(event, slow.pid()));
    let now_ns = monotonic_ns();
    let half_ns = warning["deadline_ns"].as_u64().unwrap() - 2_000_000_000;
    println!("warned {} us after half the allowance", (now_ns - half_ns) / 1000);
    assert!(now_ns >= half_ns, "not before half of it has passed");
    assert!(warning["scope"] == "slow" && warning["allowance_ms"].as_f64().unwrap() >= 4000.0);
    // Time passes, and it is not warned of again.
    hung.tell("expires hung 200");
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(slow.tell("release slow"), "InTime", "untouched");
    assert_eq!(quick.tell("release quick"), "InTime");
    let warned = |pid| watchdog.events().iter().filter(|event| is_of(event, pid)).count();
    let mut warned = warned;
    assert_eq!((warned(slow.pid()), warned(quick.pid()), warned(hung.pid())), (1, 0, 1));
    assert_eq!(hung.wait().signal(), Some(9));
}
