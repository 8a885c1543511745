//! `hangwatch exec` itself is killed while it removes its command.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use hangwatch_tests::{is_root, program, until};
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

#[test]
fn what_proc_hides_is_named_and_not_called_removed() {
    const USER: u32 = 4021;
    if !is_root("a set-user-ID program and a /proc that hides it") {
        return;
    }
    // Where set-user-ID programs are run and any user finds them.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let copy = |from: &std::path::Path, name: &str, mode| {
        let to = dir.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
        to.to_str().unwrap().to_owned()
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = copy(&program("stage-watchdog"), "hangwatch", 0o755);
    let hidden = copy("/usr/bin/sleep".as_ref(), "hidden", 0o4755);
    let root = copy("/usr/bin/setpriv".as_ref(), "as-root", 0o4755);
    // The user whose program it is may signal it as long as its real user is that one.
    let as_root = format!("{root} --reuid 0 --clear-groups {hidden}");
    let child = |program: &str| format!("{program} 600 & sleep 600; :");
    let daemon = |program: &str| format!("(setsid {program} 600 &); sleep 600");
    let itself = |program: &str| format!("exec {program} 600");
    let scripts = [&hidden, &as_root].map(|it| [child(it), daemon(it), itself(it)]);
    for hide in ["1", "2"] {
        for (script_of_command, is_left) in scripts[0]
            .iter()
            .map(|script| (script, false))
            .chain(scripts[1].iter().map(|script| (script, true)))
        {
            let command = ["sh", "-c", script_of_command];
            let user = USER.to_string();
            let script = format!(r#"mount -t proc -o hidepid={hide} proc /proc && exec "$@""#);
            let output = Command::new("unshare")
                .args(["--mount", "sh", "-c", &script, "sh", "setpriv", "--reuid", &user])
                .args(["--regid", &user, "--clear-groups", &own, "exec", "--evidence", "off"])
                .args(["--deadline", "1s", "--"])
                .args(command)
                .env("HANGWATCH_LOG", "warn")
                .env_remove("HANGWATCH_SEGMENT")
                .stdout(std::process::Stdio::null())
                .stderr(fs::File::create(dir.path().join("log")).unwrap())
                .status()
                .unwrap();
            let log = fs::read_to_string(dir.path().join("log")).unwrap();
            let left: Vec<Pid> = fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
                .filter(|pid| {
                    let program = fs::read_link(format!("/proc/{pid}/exe"));
                    program.is_ok_and(|program| program == std::path::Path::new(&hidden))
                })
                .collect();
            for &pid in &left {
                let _ = kill_process(pid, Signal::KILL);
            }
            let case = format!("hidepid={hide} {command:?}: {left:?}, {log}");
            assert_eq!(output.code(), Some(124), "{case}");
            assert_eq!(left.len(), usize::from(is_left), "{case}");
            assert_eq!(log.contains("was killed"), !is_left, "{case}");
            let is_named = |pid| log.contains(&format!("pid {pid} (hidden by /proc)"));
            assert!(!is_left || log.contains("still alive") && left.iter().all(is_named), "{case}");
        }
    }
}
