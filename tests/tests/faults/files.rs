//! The segment's file: no room for it, cut short, removed, replaced.

use std::process::Command;

use hangwatch_tests::{Stage, Watchdog, is_root, program, until};
use serde_json::Value;

fn finding(event: &Value, wanted: &str) -> bool {
    event["event"] == "file" && event["finding"] == wanted
}

/// In a mount namespace of its own, where /dev/shm has one megabyte.
#[test]
fn where_dev_shm_is_full_a_segment_is_refused_and_nothing_left_behind() {
    if !is_root("a full /dev/shm") {
        return;
    }
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm && cd /dev/shm || exit 99; \
                  timeout --signal KILL 60 \"$0\" run --segment full --lanes 256; status=$?; \
                  [ -z \"$(ls -A /dev/shm)\" ] || echo left behind: $(ls -A /dev/shm) >&2; \
                  exit $status";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(program("stage-watchdog"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.code() == Some(99) || said.contains("unshare:") {
        println!("skipped: no mount namespace of one's own here: {said}");
        return;
    }
    println!("{said}");
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("/dev/shm"), "it says where: {said}");
    assert!(said.contains("fewer lanes") || said.contains("larger"), "it says what to do: {said}");
    assert!(!said.contains("left behind"), "{said}");
}

#[test]
fn a_watchdog_whose_segment_is_cut_short_ends_with_a_clear_error() {
    // Within the header, between lanes, and within the last page.
    for length in [0, 100, 4096, 200_000] {
        let stage = Stage::new("truncated");
        let mut watchdog = stage.watchdog(&[]);
        until("it ticks", || {
            (stage.counter(hangwatch_core::wire::segment::Counter::Ticks) > 1).then_some(())
        });
        let file = std::fs::OpenOptions::new().write(true).open(stage.path()).unwrap();
        file.set_len(length).unwrap();
        let (status, _) = watchdog.last_words();
        assert_eq!(status.code(), Some(125), "{length}: it never dies of SIGBUS: {status}");
        assert!(watchdog.events().iter().any(|event| finding(event, "truncated")), "{length}");
        let ended = watchdog.events().iter().find(|event| event["event"] == "ended").unwrap();
        assert_eq!(ended["why"], "truncated");
    }
}

#[test]
fn a_removed_segment_is_said_and_its_workers_are_served_on() {
    let stage = Stage::new("removed");
    let mut watchdog = stage.watchdog(&[]);
    let (mut hung, mut fine) = (stage.actor(), stage.actor());
    fine.tell("expires fine 3600000");
    std::fs::remove_file(stage.path()).unwrap();
    watchdog.event(|event| finding(event, "removed"));
    hung.tell("expires hung 30");
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    // Another takes the name, and a watchdog of its own.
    let mut other = Watchdog::start(stage.name(), &["--lanes", "4"], &[]);
    watchdog.event(|event| finding(event, "replaced"));
    let mut hung = stage.actor();
    hung.tell("expires hung 30");
    assert_eq!(other.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(fine.tell("release fine"), "InTime");
    assert!(watchdog.end().success() && other.end().success());
}
