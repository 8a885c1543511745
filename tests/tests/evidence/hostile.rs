//! Workers and users who would have a root watchdog's helper or writer do what they may not do themselves.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};

use hangwatch_evidence::piece::Gathered;
use hangwatch_process::proc::{State, standing};
use hangwatch_tests::incidents::Incidents;
use hangwatch_tests::{Stage, is_root, program, until};
use rustix::process::{Pid, PidfdFlags};

/// A user who has nothing.
const USER: u32 = 12_345;

/// A process, gone with its test.
struct Gone(Child);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A helper that looks at a process, with further options.
fn helper(target: &Child, options: &[&str]) -> Command {
    let pidfd: OwnedFd =
        rustix::process::pidfd_open(Pid::from_child(target), PidfdFlags::empty()).unwrap();
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["evidence-helper", "--budget", "60s", "--pid", &target.id().to_string()]);
    command.args(options).stdin(Stdio::from(pidfd)).stdout(Stdio::piped());
    command
}

/// What a helper tells.
fn told(mut helper: Command) -> Gathered {
    let output = helper.output().unwrap();
    let mut gathered = Gathered::default();
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        gathered.take(serde_json::from_slice(line).unwrap());
    }
    gathered
}

fn why(gathered: &Gathered, what: &str) -> String {
    let missing = &gathered.evidence.missing;
    let whys = missing.iter().filter(|missing| missing.what == what).map(|missing| &*missing.why);
    whys.collect::<Vec<_>>().join("; ")
}

/// A Python program of [`USER`]'s that has said that it is about to hang.
fn python(code: &str, argument: &str) -> Option<Gone> {
    // One that every user may run: what PATH names may be in somebody's home.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", code, argument]).uid(USER).gid(USER).stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        println!("skipped: there is no /usr/bin/python3");
        return None;
    };
    let stdout = child.stdout.take().unwrap();
    let python = Gone(child);
    assert_eq!(BufReader::new(stdout).lines().next().unwrap().unwrap(), "hangs");
    Some(python)
}

#[test]
fn the_helper_is_the_workers_user_before_it_parses_anything() {
    if !is_root("the_helper_is_the_workers_user_before_it_parses_anything") {
        return;
    }
    let target = Gone(Command::new("sleep").arg("600").uid(USER).gid(USER).spawn().unwrap());
    let mut command = helper(&target.0, &[]);
    command.env("HANGWATCH_CRASH_AT", "evidence-stopped").env("HANGWATCH_CRASH_BY", "stop");
    let helper_at_work = Gone(command.spawn().unwrap());
    let pid = Pid::from_child(&helper_at_work.0);
    until("it has stopped the worker", || {
        (standing(pid).unwrap()?.state == State::Stopped).then_some(())
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let user = USER.to_string();
    assert!(field("Uid:").iter().all(|uid| *uid == user), "{status}");
    assert!(field("Gid:").iter().all(|gid| *gid == user), "{status}");
    for capabilities in ["CapPrm:", "CapEff:", "CapInh:"] {
        assert!(field(capabilities)[0].chars().all(|digit| digit == '0'), "{status}");
    }
    drop(helper_at_work);
    // And it is enough: stacks, with names.
    let gathered = told(helper(&target.0, &[]));
    assert!(gathered.is_complete() && gathered.evidence.missing.is_empty(), "{gathered:?}");
    let frames = gathered.evidence.threads[0].native.as_ref().unwrap();
    assert!(frames.iter().any(|frame| frame.function.contains("sleep")), "{frames:?}");
}

#[test]
fn a_python_worker_of_another_user_has_its_stack() {
    if !is_root("a_python_worker_of_another_user_has_its_stack") {
        return;
    }
    let code =
        "import time\ndef hung():\n    print('hangs', flush=True)\n    time.sleep(600)\nhung()";
    let Some(target) = python(code, "") else { return };
    let gathered = told(helper(&target.0, &[]));
    assert!(gathered.is_complete() && gathered.evidence.missing.is_empty(), "{gathered:?}");
    let stack = gathered.evidence.threads[0].python.as_ref().unwrap();
    assert!(stack.iter().any(|frame| frame.function == "hung"), "{stack:?}");
}

#[test]
fn a_worker_that_hides_its_memory_has_no_python_stack_and_its_incident_says_so() {
    if !is_root("a_worker_that_hides_its_memory_has_no_python_stack_and_its_incident_says_so") {
        return;
    }
    let code = "import ctypes, time\nctypes.CDLL(None).prctl(4, 0)\nprint('hangs', flush=True)\ntime.sleep(600)";
    let Some(target) = python(code, "") else { return };
    let gathered = told(helper(&target.0, &[]));
    assert!(why(&gathered, "python").contains("not dumpable"), "{:?}", gathered.evidence.missing);
    // Root has copied its stack before it became the worker's user.
    let frames = gathered.evidence.threads[0].native.as_ref().unwrap();
    assert!(frames.iter().any(|frame| frame.function.contains("sleep")), "{frames:?}");
    let state = standing(Pid::from_child(&target.0)).unwrap().unwrap().state;
    assert_eq!(state, State::Sleeping, "it is let go");
}

#[test]
fn a_mapped_file_whose_name_is_a_fifo_by_now_is_not_opened() {
    if !is_root("a_mapped_file_whose_name_is_a_fifo_by_now_is_not_opened") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(USER), None).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let library = dir.path().join("libpython3.9.so");
    let code = "import mmap, os, sys, time\n\
        name = sys.argv[1]\n\
        open(name, 'wb').write(b'\\x7fELF' + bytes(8188))\n\
        file = open(name, 'r+b')\n\
        code = mmap.mmap(file.fileno(), 8192, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)\n\
        os.unlink(name)\n\
        os.mkfifo(name + ' (deleted)')\n\
        print('hangs', flush=True)\n\
        time.sleep(600)";
    let Some(target) = python(code, library.to_str().unwrap()) else { return };
    let gathered = told(helper(&target.0, &[]));
    let said = why(&gathered, "python");
    assert!(said.contains("libpython3.9.so (deleted) is no regular file"), "{said}");
    assert!(gathered.is_complete(), "all else is there: {gathered:?}");
    let frames = gathered.evidence.threads[0].native.as_ref().unwrap();
    assert!(frames.iter().any(|frame| frame.function.contains("sleep")), "{frames:?}");
}

#[test]
fn a_helper_with_too_little_memory_says_so() {
    let target = Gone(Command::new("sleep").arg("600").spawn().unwrap());
    let gathered = told(helper(&target.0, &["--memory", "1048576"]));
    for what in ["process", "threads", "python", "native", "symbols"] {
        let said = why(&gathered, what);
        assert!(said.starts_with("not captured: memory bound"), "{what}: {said}");
    }
}

#[test]
fn incidents_are_not_kept_where_another_user_could_replace_them() {
    if !is_root("incidents_are_not_kept_where_another_user_could_replace_them") {
        return;
    }
    let (stage, incidents) = (Stage::new("planted"), Incidents::new());
    chown(incidents.path(), Some(USER), None).unwrap();
    let mut watchdog = stage.watchdog(&incidents.options("scopes", &[]));
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    assert_eq!(watchdog.expiry_of(worker.pid())["outcome"], "reaped");
    assert_eq!(worker.wait().signal(), Some(9));
    let said = watchdog.event_at_any_time(|event| event["event"] == "incident_lost");
    let error = said["error"].as_str().unwrap();
    assert!(error.contains("12345") && error.contains("--incidents"), "{error}");
    assert_eq!(incidents.all().len(), 0);
}
