//! Removal of real commands with their descendants, and signals passed on to a command.
//!
//! A tree belongs to a whole process (its children, its signals), so each test runs alone
//! in a process of its own: see [`alone`].

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hangwatch_process::child::{Child, Event, Until};
use hangwatch_process::relay::{PASSED_ON, Relay};
use hangwatch_process::tree::Tree;
use hangwatch_process::tree::removal::Removal;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions};
use tempfile::TempDir;

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_mins(1);
const INNER: &str = "HANGWATCH_TEST_INNER";

/// This test binary, with the default dispositions: who runs the tests may ignore signals, as nohup does,
/// and what is ignored is not passed on.
fn this_binary() -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(env::current_exe().unwrap());
    command
}

/// Runs the test's body in a process of its own, in which it is the only test.
fn alone(name: &str, body: impl FnOnce()) {
    if env::var_os(INNER).is_some() {
        return body();
    }
    let output =
        this_binary().args(["--exact", name, "--nocapture"]).env(INNER, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < PATIENCE, "in vain waited until {what}");
        std::thread::yield_now();
    }
}

/// A shell script with a directory of its own, `$DIR`, in which `up NAME PID` leaves word.
struct Script {
    dir: TempDir,
}

impl Script {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn command(&self, body: &str) -> Command {
        let up = r#"up() { echo "$2" > "$DIR/$1.part"; mv "$DIR/$1.part" "$DIR/$1"; }"#;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{up}\n{body}")]).env("DIR", self.dir.path());
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until all of these are up.
    fn wait_for(&self, names: &[&str]) {
        for name in names {
            wait_until(name, || self.file(name).exists());
        }
    }

    fn pid(&self, name: &str) -> Pid {
        let text = fs::read_to_string(self.file(name)).unwrap();
        Pid::from_raw(text.trim().parse().unwrap()).unwrap()
    }
}

/// Neither living nor dead children of any kind are left to this process, and since it is
/// a subreaper, no descendants.
fn assert_no_descendants() {
    assert_eq!(rustix::process::wait(WaitOptions::NOHANG).unwrap_err(), Errno::CHILD);
}

fn check_removal(script: &str, up: &[&str], signal: Signal, grace: Duration) -> Removal {
    let files = Script::new();
    let mut tree = Tree::spawn(&mut files.command(script)).unwrap();
    files.wait_for(up);
    let removal = tree.kill_all(signal, grace).unwrap();
    assert_eq!(removal.survivors, []);
    assert_no_descendants();
    removal
}

#[test]
fn daemons_and_new_sessions_do_not_get_away() {
    alone("daemons_and_new_sessions_do_not_get_away", || {
        let script = r#"
            (setsid sh -c 'echo $$ > $DIR/a; exec sleep 1000' &)
            (nohup sh -c 'echo $$ > $DIR/b; sleep 1000 & wait' >/dev/null 2>&1 &)
            setsid sh -c '(setsid sh -c "echo \$\$ > $DIR/c; exec sleep 1000" &); exit 0'
            (env -i DIR=$DIR setsid sh -c 'echo $$ > $DIR/d; exec sleep 1000' &)
            up e $$
            exec sleep 1000"#;
        let up = ["a", "b", "c", "d", "e"];
        let removal = check_removal(script, &up, Signal::KILL, Duration::ZERO);
        assert_eq!(removal.status.unwrap().signal(), Some(9));
        assert!(removal.signalled >= 5, "{removal:?}");
    });
}

#[test]
fn descendants_of_a_command_that_has_ended_are_removed() {
    alone("descendants_of_a_command_that_has_ended_are_removed", || {
        let files = Script::new();
        let relay = Relay::install(&PASSED_ON).unwrap();
        let script = "setsid sleep 1000 & up a $!; exit 3";
        let mut tree = Tree::spawn(&mut files.command(script)).unwrap();
        let Event::Ended(status) = tree.wait(&relay, Until::default()).unwrap() else {
            panic!("nothing else ends this wait")
        };
        assert_eq!(status.code(), Some(3));
        let removal = tree.kill_all(Signal::KILL, Duration::ZERO).unwrap();
        assert_eq!(removal.status, Some(status));
        assert_eq!((removal.signalled, removal.survivors.len()), (1, 0));
        assert_no_descendants();
    });
}

#[test]
fn who_ignores_the_signal_is_killed_after_the_grace() {
    alone("who_ignores_the_signal_is_killed_after_the_grace", || {
        let script = "trap '' TERM; sleep 1000 & up a $$; while :; do wait; done";
        let removal = check_removal(script, &["a"], Signal::TERM, Duration::from_millis(50));
        assert_eq!(removal.status.unwrap().signal(), Some(9));
    });
}

#[test]
fn who_heeds_the_signal_ends_by_itself_within_the_grace() {
    alone("who_heeds_the_signal_ends_by_itself_within_the_grace", || {
        let script = "trap 'exit 7' TERM; up a $$; while :; do sleep 0.01; done";
        let removal = check_removal(script, &["a"], Signal::TERM, Duration::MAX);
        assert_eq!(removal.status.unwrap().code(), Some(7));
    });
}

#[test]
fn a_stopped_process_gets_to_heed_the_signal() {
    alone("a_stopped_process_gets_to_heed_the_signal", || {
        let files = Script::new();
        let script = "trap 'exit 7' TERM; up a $$; kill -STOP $$; while :; do sleep 0.01; done";
        let mut tree = Tree::spawn(&mut files.command(script)).unwrap();
        files.wait_for(&["a"]);
        let stat = format!("/proc/{}/stat", tree.pid());
        wait_until("it is stopped", || fs::read_to_string(&stat).unwrap().contains(") T "));
        let removal = tree.kill_all(Signal::TERM, PATIENCE).unwrap();
        assert_eq!(removal.status.unwrap().code(), Some(7));
        assert_no_descendants();
    });
}

#[test]
fn a_chain_of_forks_is_outrun() {
    alone("a_chain_of_forks_is_outrun", || {
        // Each link starts the next and ends: whoever is looked at is already gone.
        let script = r#"
            printf '#!/bin/sh\n"$0" &\n' > "$DIR/link"; chmod +x "$DIR/link"
            "$DIR/link" & "$DIR/link" & "$DIR/link" &
            up a $$; exec sleep 1000"#;
        for _ in 0..5 {
            check_removal(script, &["a"], Signal::KILL, Duration::ZERO);
        }
    });
}

#[test]
fn a_process_that_replaces_what_is_killed_is_outrun() {
    alone("a_process_that_replaces_what_is_killed_is_outrun", || {
        let script = r"
            keeper() { while :; do setsid sleep 1000 & wait $!; done; }
            keeper & keeper & keeper & up a $$; keeper";
        check_removal(script, &["a"], Signal::KILL, Duration::ZERO);
        check_removal(script, &["a"], Signal::TERM, Duration::from_millis(20));
    });
}

#[test]
fn many_processes_are_removed() {
    alone("many_processes_are_removed", || {
        let script = r"
            i=0; while [ $i -lt 300 ]; do sleep 1000 & i=$((i + 1)); done
            up a $$; wait";
        let removal = check_removal(script, &["a"], Signal::KILL, Duration::ZERO);
        assert_eq!(removal.signalled, 301);
    });
}

#[test]
fn a_process_without_descriptors_left_removes_the_tree_all_the_same() {
    alone("a_process_without_descriptors_left_removes_the_tree_all_the_same", || {
        let script = Script::new();
        let body =
            "(setsid sleep 1000 >/dev/null 2>&1 & up daemon $!); up root $$; exec sleep 1000";
        let mut tree = Tree::spawn(&mut script.command(body)).unwrap();
        script.wait_for(&["daemon", "root"]);
        let few = Rlimit { current: Some(64), maximum: Some(64) };
        rustix::process::setrlimit(Resource::Nofile, few).unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        let taken: Vec<_> = std::iter::from_fn(|| null.try_clone().ok()).collect();
        let removal = tree.kill_all(Signal::KILL, Duration::ZERO).unwrap();
        assert!(!taken.is_empty() && removal.survivors.is_empty(), "{removal:?}");
        assert_no_descendants();
    });
}

#[test]
fn children_from_before_and_their_orphans_are_left_alone() {
    alone("children_from_before_and_their_orphans_are_left_alone", || {
        let other = Script::new();
        let before = "mkfifo $DIR/go; up other $$; read go < $DIR/go
            (setsid sleep 1000 & up orphan $!); up sent $$; exec sleep 1000";
        let mut before = other.command(before).stdin(Stdio::null()).spawn().unwrap();
        other.wait_for(&["other"]);

        let files = Script::new();
        let script = "(setsid sleep 1000 & up daemon $!); up a $$; exec sleep 1000";
        let mut tree = Tree::spawn(&mut files.command(script)).unwrap();
        files.wait_for(&["a", "daemon"]);
        let mut after = Command::new("sleep").arg("1000").spawn().unwrap();
        tree.leave_alone(Pid::from_child(&after)).unwrap();
        // An orphan of the other child becomes ours only now, with the tree in place.
        fs::File::options().write(true).open(other.file("go")).unwrap().write_all(b"\n").unwrap();
        other.wait_for(&["orphan", "sent"]);

        let removal = tree.kill_all(Signal::KILL, Duration::ZERO).unwrap();
        assert_eq!((removal.signalled, removal.survivors), (2, vec![]));
        assert!(before.try_wait().unwrap().is_none());
        assert!(after.try_wait().unwrap().is_none());
        rustix::process::test_kill_process(other.pid("orphan")).unwrap();

        for pid in [other.pid("orphan"), Pid::from_child(&before), Pid::from_child(&after)] {
            rustix::process::kill_process(pid, Signal::KILL).unwrap();
            rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap();
        }
        assert_no_descendants();
    });
}

#[test]
fn a_daemon_without_environment_is_removed_though_there_were_children_before() {
    let name = "a_daemon_without_environment_is_removed_though_there_were_children_before";
    alone(name, || {
        let mut before = Command::new("sleep").arg("1000").spawn().unwrap();
        let files = Script::new();
        let script = r#"setsid -f env -i sh -c 'echo $$ > '"$DIR"'/it && mv '"$DIR"'/it '"$DIR"'/daemon
            exec sleep 1000'; up a $$; exec sleep 1000"#;
        let mut tree = Tree::spawn(&mut files.command(script)).unwrap();
        files.wait_for(&["a", "daemon"]);
        let removal = tree.kill_all(Signal::KILL, Duration::ZERO).unwrap();
        assert_eq!(removal.survivors, vec![]);
        let gone = rustix::process::test_kill_process(files.pid("daemon"));
        assert_eq!(gone, Err(Errno::SRCH));
        assert!(before.try_wait().unwrap().is_none());
        before.kill().unwrap();
        before.wait().unwrap();
        assert_no_descendants();
    });
}

#[test]
fn a_wait_ends_at_its_instant_and_when_woken() {
    alone("a_wait_ends_at_its_instant_and_when_woken", || {
        let relay = Relay::install(&PASSED_ON).unwrap();
        let mut tree = Tree::spawn(Command::new("sleep").arg("1000")).unwrap();
        let at = Instant::now() + Duration::from_millis(20);
        let until = Until { instant: Some(at), wake: None };
        assert_eq!(tree.wait(&relay, until).unwrap(), Event::TimedOut);
        assert!(Instant::now() >= at);
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"x").unwrap();
        let until = Until { instant: None, wake: Some(read.as_fd()) };
        assert_eq!(tree.wait(&relay, until).unwrap(), Event::Woken);
        tree.kill_all(Signal::KILL, Duration::ZERO).unwrap();
        assert_no_descendants();
    });
}

#[test]
fn orphans_are_reaped_while_the_command_runs() {
    alone("orphans_are_reaped_while_the_command_runs", || {
        let files = Script::new();
        let relay = Relay::install(&PASSED_ON).unwrap();
        // The command ends when its orphan's pid is free again.
        let script = r#"(sh -c : & up orphan $!)
            read pid < "$DIR/orphan"
            while [ -e "/proc/$pid" ]; do sleep 0.01; done"#;
        let mut tree = Tree::spawn(&mut files.command(script)).unwrap();
        let until = Until { instant: Some(Instant::now() + PATIENCE), wake: None };
        let event = tree.wait(&relay, until).unwrap();
        assert!(matches!(event, Event::Ended(status) if status.success()), "{event:?}");
    });
}

#[test]
fn signals_are_passed_on_to_the_command() {
    alone("signals_are_passed_on_to_the_command", || {
        let relay = Relay::install(&PASSED_ON).unwrap();
        for (signal, name) in [
            (Signal::INT, "INT"),
            (Signal::TERM, "TERM"),
            (Signal::HUP, "HUP"),
            (Signal::QUIT, "QUIT"),
            (Signal::USR1, "USR1"),
            (Signal::USR2, "USR2"),
            (Signal::WINCH, "WINCH"),
            (Signal::ALARM, "ALRM"),
            (Signal::VTALARM, "VTALRM"),
            (Signal::PROF, "PROF"),
            (Signal::XCPU, "XCPU"),
            (Signal::IO, "IO"),
            (Signal::POWER, "PWR"),
        ] {
            let files = Script::new();
            let script = format!("trap 'exit 42' {name}; up a $$; while :; do sleep 0.01; done");
            let mut child = Child::start(&mut files.command(&script)).unwrap();
            files.wait_for(&["a"]);
            rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
            let event = child.wait(&relay, Until::default()).unwrap();
            assert!(matches!(event, Event::Ended(status) if status.code() == Some(42)), "{name}");
        }
        assert_no_descendants();
    });
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let name = "an_ignored_signal_stays_ignored";
    if env::var_os(INNER).is_none() {
        // The shell ignores HUP, and so does all that it starts, as with nohup.
        let exe = env::current_exe().unwrap();
        let output = Command::new("sh")
            .args(["-c", r#"trap "" HUP; exec "$0" --exact "$1" --nocapture"#])
            .args([exe.as_path(), Path::new(name)])
            .env(INNER, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let relay = Relay::install(&PASSED_ON).unwrap();
    let mut child = Child::start(Command::new("sh").args(["-c", "kill -HUP $$; exit 5"])).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), Signal::HUP).unwrap();
    let event = child.wait(&relay, Until::default()).unwrap();
    assert!(matches!(event, Event::Ended(status) if status.code() == Some(5)), "{event:?}");
}

/// Runs its arguments on a terminal of their own, presses Ctrl-C when they say "ready",
/// and prints what they said.
const TERMINAL: &str = r"
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
text, pressed = b'', False
while True:
    try:
        piece = os.read(fd, 4096)
    except OSError:
        break
    if not piece:
        break
    text += piece
    if b'ready' in text and not pressed:
        os.write(fd, b'\x03')
        pressed = True
print(text.decode(errors='replace'))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn ctrl_c_reaches_the_command_once() {
    let name = "ctrl_c_reaches_the_command_once";
    if env::var_os(INNER).is_none() {
        let output = Command::new("python3")
            .args(["-c", TERMINAL, "env", "--default-signal"])
            .arg(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INNER, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
        return;
    }
    let files = Script::new();
    let relay = Relay::install(&PASSED_ON).unwrap();
    // Counts INT until TERM asks for the count.
    let script = r#"n=0; trap 'n=$((n + 1))' INT; trap 'exit $n' TERM
        echo ready; while :; do [ $n -gt 0 ] && : > "$DIR/pressed"; sleep 0.01; done"#;
    let mut child = Child::start(&mut files.command(script)).unwrap();
    // Only after the command has acted on the terminal's INT, or the two would merge.
    wait_until("Ctrl-C has arrived", || files.file("pressed").exists());
    let soon = Instant::now() + Duration::from_millis(5);
    let until = Until { instant: Some(soon), wake: None };
    assert_eq!(child.wait(&relay, until).unwrap(), Event::TimedOut);
    child.signal(Signal::TERM).unwrap();
    let event = child.wait(&relay, Until::default()).unwrap();
    assert!(matches!(event, Event::Ended(status) if status.code() == Some(1)), "{event:?}");
}
