//! The binary as its users meet it: what they type, what it says, how it ends, what it leaves.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_mins(1);

fn hangwatch(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hangwatch"));
    command.args(words).stdin(Stdio::null()).env_remove("HANGWATCH_SEGMENT");
    command.env("HANGWATCH_LOG", "warn");
    command
}

/// Runs it to its end, and checks its exit code.
fn check(words: &[&str], code: i32) -> Output {
    let output = hangwatch(words).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    output
}

/// As `check`, and something that it says on standard error.
fn check_says(words: &[&str], code: i32, part: &str) {
    let output = check(words, code);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(part), "{words:?}: {text}");
}

fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < PATIENCE, "in vain waited until {what}");
        std::thread::yield_now();
    }
}

/// A segment of a test's own, gone at its end.
struct Name(String);

impl Name {
    fn new(test: &str) -> Self {
        Self(format!("test-binary-{test}-{}", std::process::id()))
    }

    fn file(&self) -> String {
        format!("/dev/shm/hangwatch.{}", self.0)
    }

    fn exists(&self) -> bool {
        Path::new(&self.file()).exists()
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.file());
    }
}

/// How often the segment's watchdogs have ticked.
fn ticks(name: &Name) -> u64 {
    let output = check(&["status", "--json", "--segment", &name.0], 0);
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    seen[0]["counters"]["ticks"].as_u64().unwrap()
}

#[test]
fn the_demo_reaps_who_hangs_and_nobody_else() {
    let output = check(&["demo", env!("CARGO_MANIFEST_DIR")], 0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Exactly the worker that hung was reaped"), "{text}");
}

#[test]
fn a_watchdog_outlives_a_child_it_did_not_start() {
    let name = Name::new("sidecar");
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "sleep 0.3 & exec \"$0\" \"$@\""])
        .args([env!("CARGO_BIN_EXE_hangwatch"), "run", "--segment", &name.0])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = shell.id();
    wait_until("it serves", || name.exists());
    wait_until("the child is dead", || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_ascii_whitespace().all(|child| {
            fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|it| it.contains(") Z "))
        })
    });
    let later = ticks(&name) + 10;
    wait_until("it has ticked on", || {
        assert!(shell.try_wait().unwrap().is_none(), "it ended with its sidecar");
        ticks(&name) >= later
    });
    shell.kill().unwrap();
    shell.wait().unwrap();
}

#[test]
fn what_cannot_be_started_says_why_and_ends_as_documented() {
    let both = |command: &str, code: i32, part: &str| {
        check_says(&["run", "--", command], code, part);
        check_says(&["exec", "--deadline", "9s", "--", command], code, part);
    };
    both("", 127, "not found");
    both("no-such-program-anywhere", 127, "PATH");
    both("/", 126, "is a directory");
    both("/dev/null", 126, "chmod +x");
    both("/dev/null/x", 126, "Not a directory");
}

#[test]
fn an_address_that_cannot_be_listened_at_is_refused_with_what_to_do() {
    let name = Name::new("listen");
    let says = |address: &str, more: &[&str], code: i32, part: &str| {
        let words = [&["run", "--segment", &name.0, "--listen", address], more].concat();
        check_says(&words, code, part);
        assert!(!name.exists(), "a segment was made for nothing");
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    says(&taken.local_addr().unwrap().to_string(), &[], 125, "ss -ltnp");
    says("0.0.0.0:9469", &[], 125, "--listen-anywhere");
    says("9469", &[], 2, "127.0.0.1:9469");
    says("192.0.2.1:9469", &["--listen-anywhere"], 125, "no address of this host");
    says(&format!("unix:/{}", "x".repeat(200)), &[], 2, "kernel takes 107");
    says("unix:/dev/null", &[], 125, "no socket");
    says("unix:/no/such/directory/s", &[], 125, "make the directory");
    // The command is not started either.
    check_says(&["run", "--listen", "unix:/dev/null", "--", "true"], 125, "no socket");
    check_says(&["run", "--listen-anywhere", "--", "true"], 2, "--listen");
}

#[test]
fn a_segment_in_use_is_not_removed_even_where_it_cannot_be_used() {
    let name = Name::new("in-use");
    let mut watchdog = hangwatch(&["run", "--segment", &name.0]).spawn().unwrap();
    wait_until("it serves", || name.exists());
    check_says(&["rm", &name.0], 125, "in use by its watchdog");
    // Of another version now, as far as anyone can tell; then cut short.
    let file = fs::OpenOptions::new().write(true).open(name.file()).unwrap();
    file.write_all_at(&[0; 8], 0).unwrap();
    check_says(&["rm", &name.0], 125, "in use by a watchdog or worker");
    // Killed before the page with its words is cut off.
    watchdog.kill().unwrap();
    watchdog.wait().unwrap();
    file.set_len(100).unwrap();
    check_says(&["status", "--segment", &name.0], 125, "hangwatch rm");
    check(&["rm", &name.0], 0);
    assert!(!name.exists());
    check_says(&["rm", &name.0], 125, "hangwatch status");
}

#[test]
fn a_status_of_all_is_silent_about_what_is_not_ours() {
    if !rustix::process::geteuid().is_root() {
        return; // who else could be another user?
    }
    let name = Name::new("others");
    let mut watchdog = hangwatch(&["run", "--segment", &name.0]).spawn().unwrap();
    wait_until("it serves", || name.exists());
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("hangwatch");
    fs::copy(env!("CARGO_BIN_EXE_hangwatch"), &copy).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let status = |words: &[&str]| {
        let mut command = Command::new(&copy);
        command.arg("status").args(words).uid(65534).gid(65534).env_remove("HANGWATCH_SEGMENT");
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    let all = status(&[]);
    assert!(!all.contains(&name.0), "{all}");
    let one = status(&["--segment", &name.0]);
    assert!(one.contains("permission denied"), "{one}");
    watchdog.kill().unwrap();
    watchdog.wait().unwrap();
}
