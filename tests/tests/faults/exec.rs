//! `hangwatch exec` itself is killed while it removes its command.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use hangwatch_tests::{program, until};
use rustix::process::{Pid, Signal, kill_process};

const SIGKILL: i32 = 9;

/// The processes that bear this mark in their environments: pid, state, and the command's name.
fn marked(mark: &str) -> Vec<(Pid, char, String)> {
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    let found = |pid: Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        environment.split(|&byte| byte == 0).find(|it| *it == mark.as_bytes())?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        Some((pid, rest.chars().next()?, name.to_owned()))
    };
    pids.filter_map(found).filter(|(_, state, _)| !matches!(state, 'Z' | 'X')).collect()
}

#[test]
fn nothing_stays_stopped_when_exec_is_killed_while_it_removes() {
    // When so many were stopped; asked to end, they are stopped twice.
    let killed = ["tree-stopping:1", "tree-stopping:5", "tree-stopping:13"];
    let asked = ["tree-stopping:1", "tree-stopping:5", "tree-stopped", "tree-stopping:20"];
    let killed = killed.map(|point| (point, "KILL"));
    for (point, signal) in killed.into_iter().chain(asked.map(|point| (point, "TERM"))) {
        let grace: &[&str] = if signal == "TERM" { &["--grace", "100ms"] } else { &[] };
        let mark = format!("HANGWATCH_TEST_MARK={}-{point}-{signal}", std::process::id());
        let (name, value) = mark.split_once('=').unwrap();
        let script = "trap '' TERM; i=0
            while [ $i -lt 12 ]; do setsid sleep 1000 & i=$((i + 1)); done; wait";
        let status = Command::new(program("stage-watchdog"))
            .args(["exec", "--evidence", "off", "--deadline", "1s", "--signal", signal])
            .args(grace)
            .args(["--", "sh", "-c", script])
            .env(name, value)
            .env("HANGWATCH_CRASH_AT", point)
            .env_remove("HANGWATCH_SEGMENT")
            .status()
            .unwrap();
        let case = format!("{point}, {signal}");
        assert_eq!(status.signal(), Some(SIGKILL), "{case}");
        until(&format!("{case}: nothing of it is stopped, and hangwatch is gone"), || {
            let left = marked(&mark);
            let is_bad = |(_, state, name): &(Pid, char, String)| {
                matches!(state, 'T' | 't') || name.contains("hangwatch")
            };
            (!left.iter().any(is_bad)).then_some(())
        });
        for (pid, ..) in marked(&mark) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
