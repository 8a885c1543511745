//! What the listener tells of a watchdog that is stuck, stands by or is stopped, and of whom it reaps.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use hangwatch_tests::{Actor, Stage, Watchdog, until};
use rustix::process::Signal;

/// A Unix socket to listen at, in a directory of its own.
struct Socket(tempfile::TempDir);

impl Socket {
    fn new() -> Socket {
        Socket(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("s")
    }

    /// A watchdog that listens there.
    fn watchdog(&self, stage: &Stage, options: &[&str], environment: &[(&str, &str)]) -> Watchdog {
        let listen = format!("--listen=unix:{}", self.path().display());
        let options = [&[listen.as_str()], options].concat();
        Watchdog::start(stage.name(), &options, environment)
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.path()).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn is_green(&self) -> bool {
        self.get("/healthz").is_some_and(|(status, _)| status == 200)
    }

    /// Waits until it is red, for a reason that says this.
    fn until_red(&self, part: &str) {
        until(&format!("it is red: {part}"), || {
            let (status, why) = self.get("/healthz")?;
            (status == 503 && why.contains(part)).then_some(())
        });
    }

    fn until_green(&self) {
        until("it is green", || self.is_green().then_some(()));
    }
}

#[test]
fn a_watchdog_whose_tick_is_stuck_is_red_and_never_green_again() {
    let (stage, socket) = (Stage::new("stuck-tick"), Socket::new());
    // Long before it is stuck, it has been green: every tick passes the point.
    let stuck = [("HANGWATCH_CRASH_AT", "ticked:50"), ("HANGWATCH_CRASH_BY", "hang")];
    let mut watchdog = socket.watchdog(&stage, &[], &stuck);
    socket.until_green();
    socket.until_red("stuck");
    for _ in 0..100 {
        assert!(!socket.is_green(), "no tick has run since");
    }
    // The listener tells of it all the same.
    let (status, page) = socket.get("/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(page.contains("hangwatch_healthy{") && page.contains("} 0\n"), "{page}");
    assert!(watchdog.has_ended().is_none());
    watchdog.kill();
}

#[test]
fn a_watchdog_that_was_stopped_is_red_until_it_ticks_in_time_again() {
    let (stage, socket) = (Stage::new("stopped-tick"), Socket::new());
    let mut watchdog = socket.watchdog(&stage, &[], &[]);
    socket.until_green();
    watchdog.signal(Signal::STOP);
    std::thread::sleep(std::time::Duration::from_millis(700)); // the stop itself, not a wait for it
    watchdog.signal(Signal::CONT);
    watchdog.event(|event| event["event"] == "stalled");
    socket.until_green();
    watchdog.end();
}

#[test]
fn a_braked_watchdog_is_red_until_its_brake_is_released() {
    let (stage, socket) = (Stage::new("braked-health"), Socket::new());
    let mut watchdog = socket.watchdog(&stage, &["--max-reaps", "1"], &[]);
    let mut workers = [stage.actor(), stage.actor()];
    for worker in &mut workers {
        worker.tell("expires storm 30");
    }
    watchdog.event(|event| event["event"] == "braked");
    socket.until_red("release-brake");
    drop(workers);
    let braked = stage.segment.words().watchdog().limited();
    braked.store(
        hangwatch_core::wire::segment::LIMITER_RELEASE_ASKED,
        hangwatch_core::atomic::Ordering::Relaxed,
    );
    stage.segment.ring();
    socket.until_green();
    watchdog.end();
}

#[test]
fn a_standby_is_red_until_it_has_taken_over() {
    let (stage, first, second) = (Stage::new("standby-health"), Socket::new(), Socket::new());
    let mut watchdog = first.watchdog(&stage, &[], &[]);
    let mut standby = second.watchdog(&stage, &["--standby"], &[]);
    first.until_green();
    second.until_red("standing by");
    watchdog.kill();
    second.until_green();
    assert!(first.path().exists(), "whoever is killed leaves its socket");
    // Taken over by the next who listens there, for nobody answers.
    let mut third = first.watchdog(&stage, &["--standby"], &[]);
    first.until_red("standing by");
    standby.end();
    first.until_green();
    third.end();
    assert!(!first.path().exists() && !second.path().exists());
}

#[test]
fn a_reaped_worker_is_told_with_its_host_its_job_its_rank_and_its_scope() {
    let (stage, socket) = (Stage::new("told-rank"), Socket::new());
    let mut watchdog = socket.watchdog(&stage, &["--host", "node7"], &[]);
    let place = [("RANK", "3"), ("HANGWATCH_JOB", "train")];
    let mut worker = Actor::start(stage.name(), &place);
    worker.tell("attach");
    worker.tell("expires exchange 30");
    watchdog.expiry_of(worker.pid());
    let labels = "outcome=\"reaped\",job_name=\"train\",rank=\"3\",scope=\"exchange\"";
    let sample = format!(
        "hangwatch_expiries_total{{host=\"node7\",segment=\"{}\",{labels}}} 1",
        stage.name()
    );
    until("the expiry is told", || socket.get("/metrics")?.1.contains(&sample).then_some(()));
    watchdog.end();
}

#[test]
fn an_overdue_worker_that_is_not_signalled_is_told_as_overdue() {
    let (stage, socket) = (Stage::new("told-overdue"), Socket::new());
    let mut watchdog = socket.watchdog(&stage, &["--notify-only"], &[]);
    let mut worker = Actor::start(stage.name(), &[("RANK", "5")]);
    worker.tell("attach");
    worker.tell("expires gather 30");
    let labels = "job_name=\"\",rank=\"5\",scope=\"gather\"} ";
    until("it is overdue", || {
        let page = socket.get("/metrics")?.1;
        let of = |name: &str| {
            let line = page.lines().find(|line| line.starts_with(name) && line.contains(labels))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let longest = of("hangwatch_overdue_seconds{")?;
        (of("hangwatch_overdue{") == Some(1.0) && longest > 0.0).then_some(())
    });
    watchdog.end();
}
