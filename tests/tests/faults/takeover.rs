//! One watchdog a segment: a standby takes over when the first is gone, a second is refused, another
//! binary goes on, another layout is refused.

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use std::sync::atomic::{AtomicU64, Ordering};

use hangwatch_core::wire::layout::{Geometry, LAYOUT_VERSION};
use hangwatch_core::wire::segment::{Counter, FIXED_WORDS, Fixed, Segment as Words};
use hangwatch_core::wire::time::Nanos;
use hangwatch_tests::{Actor, Stage, Watchdog, program, until};
use rustix::process::Signal;

/// How often a standby takes over where the time it takes is measured.
const TAKEOVERS: usize = 20;

fn is_serving(event: &serde_json::Value) -> bool {
    event["event"] == "serving"
}

#[test]
fn a_standby_takes_over_at_once_and_again_and_again() {
    let stage = Stage::new("standby");
    let mut actor = stage.actor();
    actor.tell("expires outer 3600000");
    let mut first = stage.watchdog(&[]);
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..TAKEOVERS {
        let mut standby = stage.watchdog(&["--standby"]);
        let from = Instant::now();
        first.kill();
        standby.event(is_serving);
        took.push(from.elapsed());
        first = standby;
    }
    took.sort_unstable();
    println!(
        "from a watchdog's kill to its standby's \"serving\", {TAKEOVERS} times: \
         median {:.1?}, longest {:.1?}",
        took[TAKEOVERS / 2],
        took[TAKEOVERS - 1]
    );
    assert_eq!(actor.tell("release outer"), "InTime");
    assert_eq!(stage.counter(Counter::Adopted), TAKEOVERS as u64 + 1);
    assert!(first.end().success());
}

#[test]
fn what_expires_while_the_first_is_dead_is_reaped_by_the_standby() {
    let stage = Stage::new("standby-reaps");
    let mut first = stage.watchdog(&[]);
    let mut standby = stage.watchdog(&["--standby"]);
    let (mut hung, mut fine) = (stage.actor(), stage.actor());
    fine.tell("expires fine 3600000");
    first.signal(Signal::STOP);
    hung.tell("expires hung 20");
    first.kill();
    assert_eq!(standby.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(hung.wait().signal(), Some(9));
    assert_eq!(fine.tell("release fine"), "InTime");
}

/// The first is stopped between its verdict and its signal; neither a second nor a standby acts in
/// its place, and the one signal is its own.
#[test]
fn two_watchdogs_never_act_on_one_segment_not_even_for_one_signal() {
    let stage = Stage::new("two");
    let stop = [("HANGWATCH_CRASH_AT", "signal"), ("HANGWATCH_CRASH_BY", "stop")];
    let mut first = Watchdog::start(stage.name(), &[], &stop);
    let mut hung = stage.actor();
    hung.tell("expires hung 50");
    until("the first stops", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", first.pid())).unwrap();
        stat.contains(") T ").then_some(())
    });
    let mut standby = stage.watchdog(&["--standby"]);
    for _ in 0..5 {
        let mut second = Watchdog::start_only(stage.name(), &[], &[]);
        let (status, said) = second.last_words();
        assert_eq!(status.code(), Some(125), "{said}");
        let served_by = format!("is served already, by process {}", first.pid());
        assert!(said.contains(&served_by), "{said}");
    }
    assert!(hung.is_alive(), "nobody but the first may signal");
    first.signal(Signal::CONT);
    assert_eq!(hung.wait().signal(), Some(9));
    first.event(|event| event["event"] == "signalled");
    first.event(|event| event["event"] == "expired" && event["outcome"] == "reaped");
    let acted = standby.events().iter().filter(|event| event["event"] != "standby").count();
    assert_eq!(acted, 0, "{:#?}", standby.events());
    assert!(first.end().success());
    standby.event(is_serving);
    assert_eq!(stage.counter(Counter::Condemned), 1);
}

#[test]
fn a_new_binary_goes_on_with_the_workers_of_the_old_one_unnoticed() {
    let stage = Stage::new("upgrade");
    let mut old = stage.watchdog(&[]);
    let (mut hung, mut fine) = (stage.actor(), stage.actor());
    fine.tell("expires fine 3600000");
    fine.tell("beat heart 3600000");
    hung.tell("expires hung 1500");
    let directory = tempfile::tempdir().unwrap();
    let binary = directory.path().join("hangwatch-of-tomorrow");
    std::fs::copy(program("stage-watchdog"), &binary).unwrap();
    let mut command = std::process::Command::new(&binary);
    command.args(Watchdog::arguments(stage.name(), &["--standby"]));
    let mut new = Watchdog::spawn(command);
    new.event(|event| event["event"] == "standby");
    fine.tell("pairs 1000");
    assert!(old.end().success());
    new.event(is_serving);
    fine.tell("pairs 1000");
    fine.tell("kick heart");
    assert_eq!(new.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(hung.wait().signal(), Some(9));
    assert_eq!(fine.tell("release fine"), "InTime");
    assert_eq!(stage.counter(Counter::Stalls), 0, "an upgrade is no stall");
}

#[test]
fn another_layout_version_is_refused_and_the_old_watchdog_unharmed() {
    const VERSION_AT: u64 = 8;
    let stage = Stage::new("version");
    let mut old = stage.watchdog(&[]);
    let (mut hung, mut fine) = (stage.actor(), stage.actor());
    fine.tell("expires fine 3600000");
    let bytes = std::fs::OpenOptions::new().write(true).open(stage.path()).unwrap();
    bytes.write_all_at(&(LAYOUT_VERSION + 1).to_ne_bytes(), VERSION_AT).unwrap();
    for options in [&[][..], &["--standby"]] {
        let (status, said) = Watchdog::start_only(stage.name(), options, &[]).last_words();
        assert_eq!(status.code(), Some(125), "{said}");
        let is_clear = said.contains(&format!("layout version is {}", LAYOUT_VERSION + 1))
            && said.contains("end its users and make it anew");
        assert!(is_clear, "{said}");
    }
    hung.tell("expires hung 50");
    assert_eq!(old.expiry_of(hung.pid())["outcome"], "reaped");
    assert_eq!(hung.wait().signal(), Some(9));
    assert_eq!(fine.tell("release fine"), "InTime");
    assert!(old.end().success());
    // Its name is given back as it was found.
    bytes.write_all_at(&LAYOUT_VERSION.to_ne_bytes(), VERSION_AT).unwrap();
}

/// Whoever may write the segment can make the checksum hold.
#[test]
fn a_header_that_was_rewritten_is_refused_by_watchdogs_and_workers() {
    let stage = Stage::new("header");
    let good = *stage.segment.words().fixed();
    let file = std::fs::OpenOptions::new().write(true).open(stage.path()).unwrap();
    let write = |fixed: Fixed| {
        let words: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default)
            .take(fixed.geometry.check().unwrap().words())
            .collect();
        Words::format(&words, fixed).unwrap();
        for (index, word) in words[..FIXED_WORDS].iter().enumerate() {
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            file.write_all_at(&bytes, index as u64 * 8).unwrap();
        }
    };
    let length = file.metadata().unwrap().len();
    let larger = Geometry { lanes: good.geometry.lanes * 2, ..good.geometry };
    let larger_length = larger.check().unwrap().bytes() as u64;
    for (fixed, length, expected) in [
        (Fixed { max_interval_ns: 0, ..good }, length, "0 ns between two ticks"),
        (Fixed { max_interval_ns: u64::MAX, ..good }, length, "ns between two ticks"),
        (Fixed { created_at: Nanos(u64::MAX), ..good }, length, "made in the future"),
        (Fixed { boot_id: [0, 0], ..good }, length, "boot"),
        (Fixed { geometry: larger, ..good }, length, "its geometry asks for"),
        (Fixed { geometry: larger, ..good }, larger_length, "are allocated"),
    ] {
        write(fixed);
        file.set_len(length).unwrap();
        let (status, said) = Watchdog::start_only(stage.name(), &[], &[]).last_words();
        assert_eq!(status.code(), Some(125), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        let mut actor = Actor::start(stage.name(), &[]);
        actor.order("attach");
        let answer = actor.answer().expect("it is alive");
        assert!(answer.starts_with("no ") && answer.contains(expected), "{expected}: {answer}");
        assert!(actor.end().success());
    }
    write(good);
    file.set_len(length).unwrap();
    assert!(stage.watchdog(&[]).end().success());
}

/// A file that is wholly allocated and a header that fits it: only its maker knows that it was smaller.
#[test]
fn a_segment_that_was_made_larger_is_refused_by_watchdogs_and_workers() {
    let stage = Stage::new("larger");
    if !keeps_attributes(&stage.path()) {
        println!("skipped: the file system keeps no extended attributes");
        return;
    }
    let good = *stage.segment.words().fixed();
    let geometry = Geometry { lanes: good.geometry.lanes * 4, ..good.geometry };
    let file = std::fs::OpenOptions::new().write(true).open(stage.path()).unwrap();
    let length = geometry.check().unwrap().bytes();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length as u64).unwrap();
    let words: Vec<AtomicU64> =
        std::iter::repeat_with(AtomicU64::default).take(length / 8).collect();
    Words::format(&words, Fixed { geometry, ..good }).unwrap();
    for (index, word) in words[..FIXED_WORDS].iter().enumerate() {
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        file.write_all_at(&bytes, index as u64 * 8).unwrap();
    }
    let expected = format!("was made with {}", good.geometry.check().unwrap().bytes());
    let (status, said) = Watchdog::start_only(stage.name(), &[], &[]).last_words();
    assert_eq!(status.code(), Some(125), "{said}");
    assert!(said.contains(&expected), "{said}");
    let mut actor = Actor::start(stage.name(), &[]);
    actor.order("attach");
    let answer = actor.answer().expect("it is alive");
    assert!(answer.starts_with("no ") && answer.contains(&expected), "{answer}");
    assert!(actor.end().success());
}

fn keeps_attributes(path: &str) -> bool {
    let mut value = [0; 8];
    ["trusted.hangwatch.bytes", "user.hangwatch.bytes"]
        .iter()
        .any(|name| rustix::fs::getxattr(path, *name, &mut value).is_ok())
}

/// Whoever made it anew in its place may have kept the length that it has.
#[test]
fn no_watchdog_serves_a_segment_larger_than_it_would_make() {
    let geometry = Geometry { lanes: 300, ..Geometry::default() };
    let options = hangwatch::CreateOptions { geometry, ..Default::default() };
    let stage = Stage::with("too-large", options);
    for options in [&[][..], &["--standby"], &["--timers", "64"]] {
        let (status, said) = Watchdog::start_only(stage.name(), options, &[]).last_words();
        assert_eq!(status.code(), Some(125), "{said}");
        assert!(said.contains("300 lanes of 64 timers, 4096 scopes"), "{said}");
        assert!(said.contains("--lanes"), "{said}");
    }
    assert!(stage.watchdog(&["--lanes", "300"]).end().success());
}
