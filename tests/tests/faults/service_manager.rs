//! The service manager: what it hears of a watchdog, through a socket of the test's, as systemd's; and
//! whether the unit it is given does what it says.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use hangwatch::Segment;
use hangwatch_tests::{BOUND, Stage, Watchdog, is_root, program};

use super::strangers::{GROUP, Programs, STRANGER};

/// The manager's end of the socket, and its directory.
struct Manager {
    socket: UnixDatagram,
    dir: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        Manager { socket, dir }
    }

    /// A watchdog from which it wants to hear at least this often.
    fn watchdog(
        &self,
        stage: &Stage,
        patience: Duration,
        environment: &[(&str, &str)],
    ) -> Watchdog {
        let path = self.dir.path().join("notify");
        let patience = patience.as_micros().to_string();
        let told = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", &*patience)];
        Watchdog::start(stage.name(), &[], &[&told[..], environment].concat())
    }

    /// The lines of the next message; `None` where none comes within `bound`.
    fn hear_within(&self, bound: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(bound)).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        let text = std::str::from_utf8(&message[..length]).unwrap();
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Hears messages until one has this line.
    fn hear(&self, line: &str) {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|last: &Vec<String>| last.iter().any(|said| said == line)) {
            let next = self.hear_within(BOUND);
            heard.push(next.unwrap_or_else(|| panic!("no {line}; heard {heard:#?}")));
        }
    }
}

#[test]
fn the_manager_hears_that_it_is_ready_well_and_ending() {
    let (stage, manager) = (Stage::new("manager"), Manager::new());
    let mut watchdog = manager.watchdog(&stage, Duration::from_millis(300), &[]);
    let first = manager.hear_within(BOUND).expect("it is told");
    let status = format!("STATUS=segment {}: 0 workers, 0 reaped", stage.name());
    assert_eq!((&*first[0], &first[first.len() - 1]), ("READY=1", &status));
    for _ in 0..3 {
        manager.hear("WATCHDOG=1");
    }
    assert_eq!(watchdog.end().code(), Some(0));
    manager.hear("STOPPING=1");
}

#[test]
fn the_manager_hears_no_more_of_a_watchdog_whose_tick_is_stuck() {
    let (stage, manager) = (Stage::new("manager-stuck"), Manager::new());
    let stuck = [("HANGWATCH_CRASH_AT", "ticked:15"), ("HANGWATCH_CRASH_BY", "hang")];
    let patience = Duration::from_millis(600);
    let mut watchdog = manager.watchdog(&stage, patience, &stuck);
    manager.hear("WATCHDOG=1");
    // Once the point is passed there is silence, of many times what it should say something within.
    let heard = (0..200).take_while(|_| manager.hear_within(patience * 5).is_some()).count();
    assert!(heard < 200, "it never fell silent");
    assert!(watchdog.has_ended().is_none(), "its process is well otherwise");
    watchdog.kill();
}

#[test]
fn a_command_is_not_given_what_is_the_watchdogs() {
    let manager = Manager::new();
    let path = manager.dir.path().join("notify");
    let output = Command::new(program("stage-watchdog"))
        .args(["run", "--unprotected", "--", "env"])
        .envs([("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "60000000")])
        .output()
        .unwrap();
    let environment = String::from_utf8(output.stdout).unwrap();
    assert!(environment.contains("HANGWATCH_SEGMENT="), "{environment}");
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG_USEC"));
    manager.hear("STOPPING=1");
}

#[test]
fn the_journal_is_given_priorities_and_no_times() {
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    let (mut journal, stderr) = std::io::pipe().unwrap();
    let stat = std::fs::metadata(format!("/proc/self/fd/{}", stderr.as_raw_fd())).unwrap();
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["run", "--unprotected", "--", "true"]).stderr(stderr);
    command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino()));
    assert!(command.status().unwrap().success());
    drop(command);
    let mut text = String::new();
    journal.read_to_string(&mut text).unwrap();
    assert!(text.lines().any(|line| line.starts_with("<6> INFO serving ")), "{text}");
    assert!(text.lines().all(|line| line.starts_with('<')), "{text}");
}

/// The unit as packaged.
const UNIT: &str = include_str!("../../../packaging/systemd/hangwatch@.service");

/// The capabilities the unit keeps, as setpriv(1) wants to hear of them.
fn kept_capabilities() -> String {
    let kept = UNIT.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=CAP_"));
    let kept = kept.expect("the unit keeps some").to_lowercase();
    format!("-all,+{}", kept.replace(" cap_", ",+"))
}

#[test]
fn with_the_units_capabilities_and_no_others_a_worker_of_another_user_is_reaped() {
    if !is_root("a watchdog with few capabilities") {
        return;
    }
    let programs = Programs::new();
    let name = format!("test-unit-{}", std::process::id());
    let mut command = Command::new("setpriv");
    command.args(["--no-new-privs", "--bounding-set", &kept_capabilities()]);
    command.arg(program("stage-watchdog")).args(["run", "--segment", &name, "--log", "json"]);
    command.args(["--evidence", "off"]);
    // The segment is given to a group that the watchdog is no member of.
    command.args(["--group", &GROUP.to_string()]);
    let mut watchdog = Watchdog::spawn(command);
    watchdog.event(|event| event["event"] == "serving");
    let (mut actor, answer) = programs.attach(&name, STRANGER, GROUP);
    assert!(answer.starts_with("ok "), "{answer}");
    actor.tell("expires step 50");
    assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reaped");
    actor.wait();
    watchdog.end();
    Segment::remove(&name).unwrap();
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let is_required =
        std::env::var_os("HANGWATCH_TEST_TOOLS").is_some_and(|value| value == "required");
    if !is_required && Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: there is no systemd-analyze; apt-get install systemd");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hangwatch@.service");
    let binary = program("stage-watchdog");
    std::fs::write(&file, UNIT.replace("/usr/bin/hangwatch", binary.to_str().unwrap())).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Of the machine's other units it may say what it likes.
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("hangwatch@")).collect();
    assert!(of_ours.is_empty(), "{of_ours:#?}");
}
