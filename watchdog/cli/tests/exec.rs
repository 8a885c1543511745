//! `hangwatch exec` as its users meet it: its deadline, the signals it gets, what it leaves behind.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_mins(3);
const PROGRAM: &str = env!("CARGO_BIN_EXE_hangwatch");
const OFF: [&str; 2] = ["--evidence", "off"];

fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let started = Instant::now();
    while !met() {
        assert!(started.elapsed() < PATIENCE, "in vain waited until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory in which a script leaves word: `up NAME` writes the script's pid, `$DIR` is its path.
struct Words(TempDir);

impl Words {
    fn new() -> Words {
        Words(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    fn pid(&self, name: &str) -> Pid {
        wait_until(name, || self.has(name));
        Pid::from_raw(fs::read_to_string(self.file(name)).unwrap().trim().parse().unwrap()).unwrap()
    }

    /// `hangwatch WORDS -- bash -c SCRIPT`, begun by `env` with these options.
    fn command(&self, env: &[&str], words: &[&str], script: &str) -> Command {
        let up = r#"up() { echo $BASHPID > "$DIR/$1.part"; mv "$DIR/$1.part" "$DIR/$1"; };"#;
        let mut command = Command::new("env");
        command.arg("--default-signal").args(env).arg(PROGRAM).args(words);
        command.args(["--", "bash", "-c", &format!("{up} {script}")]);
        command.env("DIR", self.0.path()).env("HANGWATCH_LOG", "warn");
        command.env_remove("HANGWATCH_SEGMENT");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn exec(&self, deadline: &str, options: &[&str], script: &str) -> Started {
        let words = [&["exec", "--deadline", deadline], &OFF[..], options].concat();
        Started(self.command(&[], &words, script).spawn().unwrap())
    }
}

/// A process that is killed with the test.
struct Started(Child);

impl Started {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        let mut end = None;
        wait_until("it ends", || {
            end = self.0.try_wait().unwrap();
            end.is_some()
        });
        end.unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that is not ours; killed with the test.
struct Other(Pid);

impl Other {
    fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }

    fn wait_until_dead(&self) {
        wait_until("it is dead", || !self.is_alive());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if self.is_alive() {
            let _ = kill_process(self.0, Signal::KILL);
        }
    }
}

#[test]
fn signals_blocked_at_the_start_are_taken() {
    let unblocks = "import os, signal, time\nsignal.pthread_sigmask(signal.SIG_SETMASK, [])
open(os.environ['DIR'] + '/up', 'w').close()\ntime.sleep(1000)";
    for words in [&["exec", "--deadline", "1h"][..], &["run"]] {
        let words = [words, &OFF].concat();
        let (dir, blocked) = (Words::new(), ["--block-signal=TERM"]);
        let script = format!("exec python3 -c \"{unblocks}\"");
        let mut started = Started(dir.command(&blocked, &words, &script).spawn().unwrap());
        wait_until("it runs", || dir.has("up"));
        started.signal(Signal::TERM);
        assert_eq!(started.end().signal(), Some(15), "{words:?}");
    }
}

/// The two signals that the C library keeps for itself and lets nobody restore.
const C_LIBRARY: u64 = 0b11 << 31;

#[test]
fn a_command_begins_with_the_signals_hangwatch_was_started_with() {
    let asks = ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"];
    let origins = [&["--default-signal"][..], &["--ignore-signal=PIPE,TTIN,CHLD,HUP,RTMIN+2"]];
    let origins = origins.into_iter().chain([&["--block-signal=USR1,TERM"][..]]);
    for origin in origins {
        let output = |words: &[&str]| {
            let mut command = Command::new("env");
            command.args(origin).args(words).args(asks).env("HANGWATCH_LOG", "warn");
            let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let masks = text.lines().map(|line| line.split_once('\t').unwrap().1);
            let masks = masks.map(|mask| u64::from_str_radix(mask, 16).unwrap() & !C_LIBRARY);
            masks.collect::<Vec<u64>>()
        };
        let (program, plain) = (PROGRAM, output(&["env"]));
        assert_eq!(output(&[program, "exec", "--deadline", "1h", "--"]), plain, "{origin:?}");
        assert_eq!(output(&[program, "run", "--evidence", "off", "--"]), plain, "{origin:?}");
    }
}

#[test]
fn an_exit_code_is_passed_through_where_sigchld_was_ignored() {
    for words in [&["exec", "--deadline", "1h"][..], &["run"]] {
        let words = [words, &OFF].concat();
        let status = Words::new().command(&["--ignore-signal=CHLD"], &words, "exit 3").status();
        assert_eq!(status.unwrap().code(), Some(3), "{words:?}");
    }
}

#[test]
fn hangwatch_dies_of_the_signal_the_command_died_of() {
    for words in [&["exec", "--deadline", "1h"][..], &["run"]] {
        for (name, number) in [("INT", 2), ("SEGV", 11), ("KILL", 9)] {
            let words = [words, &OFF].concat();
            let script = format!("ulimit -c 0; kill -{name} $$");
            let status = Words::new().command(&[], &words, &script).status().unwrap();
            assert_eq!(status.signal(), Some(number), "{words:?}");
            assert!(!status.core_dumped());
        }
    }
}

#[test]
fn a_signal_of_any_kind_reaches_the_command_and_not_its_children() {
    let names = [
        "ALRM", "VTALRM", "PROF", "XCPU", "XFSZ", "IO", "USR1", "STKFLT", "RTMIN", "RTMIN+3",
        "RTMAX",
    ];
    for name in names {
        let dir = Words::new();
        let script = format!("(up child; exec sleep 1000) & trap 'exit 42' {name}; up a; wait");
        let mut exec = dir.exec("1h", &[], &script);
        let child = Other(dir.pid("child"));
        dir.pid("a");
        let send = format!("kill -s {name} {}", exec.pid());
        assert!(Command::new("bash").args(["-c", &send]).status().unwrap().success());
        assert_eq!(exec.end().code(), Some(42), "{name}");
        assert!(child.is_alive(), "{name}");
    }
}

#[test]
fn a_signal_that_ends_the_command_reaches_all_it_has_started() {
    let dir = Words::new();
    let script = "(trap 'exit 0' TERM; up deaf; while :; do sleep 0.05; done) &
        setsid bash -c 'echo $$ > $DIR/part; mv $DIR/part $DIR/away; exec sleep 1000' & up a; wait";
    let mut exec = dir.exec("1h", &[], script);
    let (child, away) = (Other(dir.pid("deaf")), Other(dir.pid("away")));
    dir.pid("a");
    exec.signal(Signal::TERM);
    assert_eq!(exec.end().signal(), Some(15));
    assert!(!child.is_alive() && !away.is_alive(), "it ends after all of them");
}

const LEAVES_ONE: &str = "(trap '' TERM; up deaf; exec sleep 1000) & up a; wait";

#[test]
fn what_a_command_that_was_told_to_end_leaves_keeps_its_deadline() {
    let dir = Words::new();
    let mut exec = dir.exec("5s", &[], LEAVES_ONE);
    let (deaf, command) = (Other(dir.pid("deaf")), Other(dir.pid("a")));
    exec.signal(Signal::TERM);
    command.wait_until_dead();
    assert_eq!(exec.end().code(), Some(124));
    assert!(!deaf.is_alive());
}

#[test]
fn a_second_signal_removes_what_a_command_has_left() {
    let dir = Words::new();
    let mut exec = dir.exec("1h", &[], LEAVES_ONE);
    let (deaf, command) = (Other(dir.pid("deaf")), Other(dir.pid("a")));
    exec.signal(Signal::TERM);
    // Dead and waited for.
    wait_until("it is gone", || !Path::new(&format!("/proc/{}", command.0)).exists());
    exec.signal(Signal::TERM);
    assert_eq!(exec.end().signal(), Some(15), "as the command did");
    assert!(!deaf.is_alive());
}

#[test]
fn a_tree_is_signalled_and_removed_however_deep_it_is() {
    /// Starts itself, each the child of the one before it. The deepest one does not end as it is told, and
    /// is removed by the second signal. (Each is a program of its own: the kernel takes the longer for a
    /// fork or an end the more forks there have been since the last exec.)
    const CHAIN: &str = r#"if [ $1 = 0 ]; then trap '' TERM; echo $$ > "$DIR/part"; mv "$DIR/part" "$DIR/deaf"; exec sleep 1000; fi
sh "$0" $(($1 - 1)) & wait
"#;
    let dir = Words::new();
    fs::write(dir.file("chain"), CHAIN).unwrap();
    let mut exec = dir.exec("1h", &[], r#"exec sh "$DIR/chain" 600"#);
    let deaf = Other(dir.pid("deaf"));
    let first = format!("/proc/{0}/task/{0}/children", exec.pid());
    exec.signal(Signal::TERM);
    wait_until("only the deaf one is left", || {
        let list = fs::read_to_string(&first).expect("it goes on as long as one is left");
        let is_guard = |pid: &&str| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "hangwatch-guard"
        };
        list.split_ascii_whitespace().filter(|pid| !is_guard(pid)).eq([deaf.0.to_string()])
    });
    exec.signal(Signal::TERM);
    exec.end(); // as the command did: of the signal, or by itself when what it had waited for was dead
    assert!(!deaf.is_alive());
}

#[test]
fn a_standard_descriptor_that_is_closed_stays_closed_for_the_command() {
    for words in [&["exec", "--deadline", "1h"][..], &["run", "--evidence", "off"]] {
        let dir = Words::new();
        let closed = |number: usize| {
            let script = format!("[ ! -e /proc/$$/fd/{number} ]");
            let command = dir.command(&[], words, &script);
            let shell = Command::new("sh")
                .args(["-c", &format!("exec \"$@\" {number}>&-"), "sh", "env"])
                .args(command.get_args())
                .env("DIR", dir.0.path())
                .env_remove("HANGWATCH_SEGMENT")
                .status();
            shell.unwrap().code()
        };
        assert_eq!([0, 1, 2].map(closed), [Some(0); 3], "{words:?}");
    }
}

#[test]
fn a_command_dies_with_exec() {
    let dir = Words::new();
    let mut exec = dir.exec("1h", &[], "trap '' TERM INT HUP; up a; while :; do sleep 1; done");
    let command = Other(dir.pid("a"));
    exec.signal(Signal::KILL);
    exec.end();
    command.wait_until_dead();
}

#[test]
fn a_cleanup_in_the_grace_is_not_signalled() {
    let dir = Words::new();
    let script = r#"trap 'sleep 1; echo $? > "$DIR/cleaned"' TERM; sleep 1000 & up a; wait"#;
    let options = ["--signal", "TERM", "--grace", "1m"];
    let mut exec = dir.exec("500ms", &options, script);
    assert_eq!(exec.end().code(), Some(124));
    assert_eq!(fs::read_to_string(dir.file("cleaned")).unwrap(), "0\n");
}

#[test]
fn time_in_which_everything_stood_still_is_credited() {
    const DEADLINE: Duration = Duration::from_secs(6);
    let dir = Words::new();
    let script = r#"up a; until test -e "$DIR/go"; do sleep 0.05; done; exit 7"#;
    let words = [&["exec", "--deadline", "6s"], &OFF[..]].concat();
    let mut command = dir.command(&[], &words, script);
    let mut exec = Started(command.process_group(0).spawn().unwrap());
    dir.pid("a");
    kill_process_group(exec.pid(), Signal::STOP).unwrap();
    std::thread::sleep(DEADLINE); // the fault itself
    fs::write(dir.file("go"), "").unwrap();
    kill_process_group(exec.pid(), Signal::CONT).unwrap();
    assert_eq!(exec.end().code(), Some(7));
}

/// Runs its arguments in the background of a terminal, and prints how they ended.
const BACKGROUND: &str = r"
import os, pty, subprocess, sys
pid, fd = pty.fork()
if pid == 0:
    end = subprocess.Popen(sys.argv[1:], preexec_fn=lambda: os.setpgid(0, 0)).wait()
    print('ended with', end, flush=True)
    os._exit(0)
text = b''
try:
    while piece := os.read(fd, 4096):
        text += piece
except OSError:
    pass
print(text.decode(errors='replace'))
";

#[test]
fn a_command_in_the_background_is_removed_at_its_deadline() {
    for command in [&["cat"][..], &["stty", "-echo"]] {
        let words = [&["exec", "--deadline", "1s"], &OFF[..], &["--"], command].concat();
        let mut python = Command::new("python3");
        python.args(["-c", BACKGROUND, "env", "--default-signal"]);
        let output = python.arg(PROGRAM).args(&words).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("ended with 124"), "{text}");
    }
}

#[test]
fn a_full_standard_error_holds_up_neither_the_deadline_nor_the_end() {
    let dir = Words::new();
    let (mut read, mut write) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&write, true).unwrap();
    while write.write(b"y\n").is_ok() {}
    rustix::io::ioctl_fionbio(&write, false).unwrap();
    let words = ["exec", "--incidents", dir.0.path().to_str().unwrap(), "--deadline", "1s"];
    let mut command = dir.command(&[], &words, "up a; exec yes >&2");
    let mut exec = Started(command.stderr(write).spawn().unwrap());
    drop(command);
    let yes = Other(dir.pid("a"));
    assert_eq!(exec.end().code(), Some(124));
    assert!(!yes.is_alive());
    let mut first = [0; 2];
    read.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"y\n", "nobody has read it");
}

#[test]
fn what_may_not_be_signalled_is_named_and_not_called_removed() {
    if !rustix::process::geteuid().is_root() {
        return; // nobody else can make a set-user-ID program
    }
    let dir = Words::new();
    let (own, root) = (dir.file("hangwatch"), dir.file("as-root"));
    fs::copy(PROGRAM, &own).unwrap();
    fs::copy("/usr/bin/setpriv", &root).unwrap();
    fs::set_permissions(dir.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o4755)).unwrap();
    let script = r#"echo $$ > "$DIR/part"; mv "$DIR/part" "$DIR/left"; exec sleep 1000"#;
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(own);
    command.args(["exec", "--evidence", "off", "--deadline", "2s", "--", "sh", "-c"]);
    command.args([r#""$DIR/as-root" --reuid 0 --clear-groups sh -c "$SCRIPT"; :"#]);
    command.env("DIR", dir.0.path()).env("SCRIPT", script).env("HANGWATCH_LOG", "warn");
    // Not a pipe: what is left keeps it open.
    let errors = fs::File::create(dir.file("errors")).unwrap();
    command.stdin(Stdio::null()).stderr(errors).status().unwrap();
    if !dir.has("left") {
        return; // no set-user-ID programs in temporary directories here
    }
    let left = Other(dir.pid("left"));
    assert!(left.is_alive());
    let log = fs::read_to_string(dir.file("errors")).unwrap();
    let line = log.lines().find(|line| line.contains("the deadline passed")).unwrap();
    assert!(!line.contains("was killed") && line.contains("still alive"), "{log}");
    assert!(line.contains(&format!("pid {} (sleep)", left.0)), "{log}");
    assert!(line.contains("outcome=\"failed\""), "{log}");
}

#[test]
fn a_log_filter_of_the_commands_is_no_error() {
    for words in [&["exec", "--deadline", "1h"][..], &["run"]] {
        let words = [words, &OFF].concat();
        let script = r#"test "$RUST_LOG" = my_app=loud && exit 3"#;
        let mut command = Words::new().command(&["RUST_LOG=my_app=loud"], &words, script);
        assert_eq!(command.env_remove("HANGWATCH_LOG").status().unwrap().code(), Some(3));
    }
}
