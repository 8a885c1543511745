//! Settings that change while deadlines run.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use hangwatch_tests::{Actor, Stage, Watchdog, program};
use rustix::process::Signal;
use serde_json::Value;

/// A file of settings, and the watchdog that follows it.
struct Configured {
    file: tempfile::NamedTempFile,
    watchdog: Watchdog,
}

impl Configured {
    fn new(stage: &Stage, settings: &str) -> Configured {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), settings).unwrap();
        let watchdog = stage.watchdog(&["--config", file.path().to_str().unwrap()]);
        Configured { file, watchdog }
    }

    /// As [`Configured::new`], of one that waits for another's end.
    fn standby(stage: &Stage, settings: &str) -> Configured {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), settings).unwrap();
        let options = ["--standby", "--config", file.path().to_str().unwrap()];
        let watchdog = stage.watchdog(&options);
        Configured { file, watchdog }
    }

    /// Changes the file and has it read; the first of these events that comes of it.
    fn change(&mut self, settings: &str, event: &str) -> Value {
        fs::write(self.file.path(), settings).unwrap();
        self.watchdog.signal(Signal::HUP);
        self.watchdog.event(|said| said["event"] == event)
    }

    /// How an expiry ends that comes now.
    fn outcome(&mut self, worker: &mut Actor) -> String {
        worker.tell("expires probe 20");
        self.watchdog.expiry_of(worker.pid())["outcome"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_policy_read_again_holds_for_timers_armed_before_and_loses_none() {
    let stage = Stage::new("reload");
    let mut configured = Configured::new(&stage, "notify-only = true\n");
    let (mut waiting, mut worker) = (stage.actor(), stage.actor());
    waiting.tell("expires waits 600000");
    worker.tell("expires late 3000");
    assert_eq!(configured.outcome(&mut worker), "reported");
    let lanes = stage.lanes_in_use();
    let armed: Vec<Vec<u64>> = lanes.iter().map(|lane| stage.words_of(*lane)).collect();

    let said = configured.change("notify-only = false\nsignal = \"TERM\"\n", "reloaded");
    assert_eq!(said["changed"], "signal notify-only");
    let now: Vec<Vec<u64>> = lanes.iter().map(|lane| stage.words_of(*lane)).collect();
    assert_eq!(armed, now, "no timer is touched");
    let expiry = configured.watchdog.expiry_of(worker.pid());
    assert_eq!((&expiry["scope"], &expiry["outcome"]), (&"late".into(), &"reaped".into()));
    assert_eq!(worker.wait().signal(), Some(15), "by the policy that came after its acquire");
    assert!(waiting.is_alive());
    assert!(configured.watchdog.end().success());
}

/// As under `nohup`, and as a shell starts what it puts into the background.
#[test]
fn settings_are_read_again_also_where_sighup_was_ignored_at_the_start() {
    let stage = Stage::new("reload-nohup");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "notify-only = true\n").unwrap();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program("stage-watchdog"));
    let options = ["--config", file.path().to_str().unwrap()];
    command.args(Watchdog::arguments(stage.name(), &options));
    let mut watchdog = Watchdog::spawn(command);
    watchdog.event(|event| event["event"] == "serving");
    let mut configured = Configured { file, watchdog };
    let said = configured.change("notify-only = false\n", "reloaded");
    assert_eq!(said["changed"], "notify-only");
    assert!(configured.watchdog.end().success());
}

#[test]
fn a_file_with_a_mistake_changes_nothing_and_is_told_with_its_line() {
    let stage = Stage::new("reload-bad");
    let mut configured = Configured::new(&stage, "notify-only = true\n");
    let mut worker = stage.actor();
    let bad = "notify-only = false\n\nmax-reap = 3\ngrace = \"5M\"\n";
    let problems = configured.change(bad, "reload_failed")["problems"].to_string();
    assert!(
        problems.contains(":3: ") && problems.contains("did you mean max-reaps?"),
        "{problems}"
    );
    assert!(problems.contains(":4: ") && problems.contains("m for minutes"), "{problems}");
    assert_eq!(configured.outcome(&mut worker), "reported");
    // What takes a restart is named, and the rest taken.
    let said = configured.change("notify-only = false\nlanes = 3\n", "reload_partly");
    assert_eq!((&said["setting"], &said["is"]), (&"lanes".into(), &"3".into()));
    configured.watchdog.event(|said| said["event"] == "reloaded");
    assert_eq!(configured.outcome(&mut worker), "reaped");
    fs::remove_file(configured.file.path()).unwrap();
    configured.watchdog.signal(Signal::HUP);
    let said = configured.watchdog.event(|said| said["event"] == "reload_failed");
    assert!(said["problems"].to_string().contains("cannot be read"), "{said}");
    assert!(configured.watchdog.end().success());
}

#[test]
fn how_held_workers_are_treated_can_change_while_they_are_held() {
    let stage = Stage::new("reload-held");
    let mut configured = Configured::new(&stage, "stopped = \"report\"\n");
    let mut worker = stage.actor();
    worker.tell("expires stopped 300");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(worker.pid().cast_signed()).unwrap(),
        Signal::STOP,
    )
    .unwrap();
    configured.watchdog.event(|said| said["event"] == "held");
    assert!(worker.is_alive());
    let said = configured.change("stopped = \"reap\"\n", "reloaded");
    assert_eq!(said["changed"], "stopped");
    assert_eq!(configured.watchdog.expiry_of(worker.pid())["outcome"], "reaped");
    assert_eq!(worker.wait().signal(), Some(9));
}

#[test]
fn a_standby_takes_over_with_the_settings_it_read_last() {
    let stage = Stage::new("reload-standby");
    let mut first = stage.watchdog(&[]);
    let mut standby = Configured::standby(&stage, "notify-only = true\n");
    for most in 1..=20 {
        standby.change(&format!("notify-only = true\nmax-reaps = {most}\n"), "reloaded");
    }
    standby.change("notify-only = false\nstopped = \"report\"\n", "reloaded");
    first.kill();
    standby.watchdog.event(|said| said["event"] == "serving");
    let (mut worker, mut stopped) = (stage.actor(), stage.actor());
    assert_eq!(standby.outcome(&mut worker), "reaped");
    assert_eq!(worker.wait().signal(), Some(9));
    stopped.tell("expires stopped 300");
    let pid = rustix::process::Pid::from_raw(stopped.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    let held =
        standby.watchdog.event(|said| said["pid"] == stopped.pid() && said["event"] != "admitted");
    assert_eq!((&held["event"], &held["hold"]), (&"held".into(), &"stopped".into()));
}
