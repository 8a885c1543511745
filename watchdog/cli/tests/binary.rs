//! The binary as its users meet it: what they type, what it says, how it ends, what it leaves.

mod command;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command::{check, check_says, hangwatch};

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_mins(1);

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
    let kept = tempfile::tempdir().unwrap();
    let place = kept.path().to_str().unwrap();
    // In a debug build, on a machine with other work, names and lines take their time.
    let patient = ["--incidents", place, "--evidence-budget", "60s"];
    let output = check(&[&["demo", env!("CARGO_MANIFEST_DIR")], &patient[..]].concat(), 0);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Only the worker that hung was killed"), "{text}");
    // It says why, marks the line of its own that hangs, and what it says goes on from there.
    assert!(text.contains("  > hangwatch_cli::commands::demo::worker::deadlock\n"), "{text}");
    let told = text.lines().find_map(|line| line.trim().split_once("hangwatch show ")).unwrap().1;
    let story = check(&[&["show"], &told.split(' ').collect::<Vec<_>>()[..]].concat(), 0);
    let story = String::from_utf8_lossy(&story.stdout);
    assert!(!story.contains("The suspect is"), "nobody waits for it: {story}");
    assert!(story.contains("Rank 1 hung in \"exchange\""), "{story}");
    check_is_as_in_the_guide(&text);
}

/// Whether the guide shows what the demo prints, numbers and paths aside.
fn check_is_as_in_the_guide(printed: &str) {
    let guide = include_str!("../../../docs/guide/start.md");
    let shown = guide.split("```text\n").find(|block| block.starts_with("WORKER")).unwrap();
    let shown = shown.split("```").next().unwrap();
    // Of what the compiler has inlined there is no path.
    let place = regex::Regex::new(" --incidents .*|[^ ]*(/|::)").unwrap();
    let number = regex::Regex::new("[0-9][0-9.:TZ]*(us|ms|s)?").unwrap();
    let form = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        number.replace_all(&place.replace_all(&words.join(" "), ""), "0").into_owned()
    };
    let forms: Vec<String> = printed.lines().map(form).collect();
    let is_told = |line: &String| line != "..." && !line.starts_with("The whole incident");
    for line in shown.lines().map(form).filter(is_told) {
        assert!(forms.contains(&line), "the guide shows {line:?}, which is not in:\n{printed}");
    }
}

#[test]
fn a_watchdog_outlives_a_child_it_did_not_start() {
    let name = Name::new("sidecar");
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "sleep 0.3 & exec \"$0\" \"$@\""])
        .args([env!("CARGO_BIN_EXE_hangwatch"), "run", "--evidence", "off", "--segment", &name.0])
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
        check_says(&["run", "--evidence", "off", "--", command], code, part);
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
    says("0.0.0.0:9469", &[], 2, "--listen-anywhere");
    says("9469", &[], 2, "127.0.0.1:9469");
    says("192.0.2.1:9469", &["--listen-anywhere"], 125, "not an address of this host");
    says(&format!("unix:/{}", "x".repeat(200)), &[], 2, "the kernel allows 107");
    says("unix:/dev/null", &[], 125, "not a socket");
    says("unix:/no/such/directory/s", &[], 125, "make the directory");
    // The command is not started either.
    check_says(&["run", "--listen", "unix:/dev/null", "--", "true"], 125, "not a socket");
    check_says(&["run", "--listen-anywhere", "--", "true"], 2, "set listen, too");
}

#[test]
fn a_check_of_the_settings_runs_nothing_and_shows_where_each_comes_from() {
    let name = Name::new("check");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("segment = \"{}\"\nlanes = 8\n", name.0)).unwrap();
    let path = file.path().to_str().unwrap();
    let output = hangwatch(&["run", "--config", path, "--timers=4", "--check"])
        .env("HANGWATCH_GRACE", "5s")
        .env("HANGWATCH_GRAZE", "5s")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!name.exists());
    let text = String::from_utf8(output.stdout).unwrap();
    let says = |setting: &str, origin: &str| {
        let line = text.lines().find(|line| line.starts_with(setting)).expect(setting);
        assert!(line.ends_with(&format!("# {origin}")), "{line}");
    };
    says("lanes = 8 ", &format!("{path}:2"));
    says("timers = 4 ", "command line");
    says("grace = \"5s\" ", "HANGWATCH_GRACE");
    says("# signal = \"KILL\" ", "default");
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(complaint.contains("HANGWATCH_GRAZE is not a setting of run"), "{complaint}");
    // A segment that is there already, of another size.
    let mut watchdog = hangwatch(&["run", "--segment", &name.0, "--lanes", "4"]).spawn().unwrap();
    wait_until("it serves", || name.exists());
    check_says(&["run", "--config", path, "--check"], 125, "has 4 lanes, not 8");
    for missing in ["--config", "--deadlines"] {
        let words = ["run", "--segment", &name.0, missing, "/no/such/file", "--check"];
        check_says(&words, 2, "No such file");
    }
    watchdog.kill().unwrap();
    watchdog.wait().unwrap();
    fs::write(file.path(), "segment = 5\nlanes = 0\n").unwrap();
    check_says(&["run", "--config", path, "--check"], 2, &format!("{path}:2: lanes"));
    // The command gets none of what was meant for its watchdog.
    let mut command = hangwatch(&["run", "--", "env"]);
    command.env("HANGWATCH_GRACE", "5s").env("HANGWATCH_MAX_REAP", "3");
    let output = command.output().unwrap();
    let log = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(log.contains("did you mean HANGWATCH_MAX_REAPS?"), "{log}");
    let environment = String::from_utf8(output.stdout).unwrap();
    assert!(environment.contains("HANGWATCH_SEGMENT=run-"), "{environment}");
    assert!(!environment.contains("HANGWATCH_GRACE"), "{environment}");
}

#[test]
fn a_segment_in_use_is_not_removed_even_where_it_cannot_be_used() {
    let name = Name::new("in-use");
    let mut watchdog =
        hangwatch(&["run", "--evidence", "off", "--segment", &name.0]).spawn().unwrap();
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
    let mut watchdog =
        hangwatch(&["run", "--evidence", "off", "--segment", &name.0]).spawn().unwrap();
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

#[test]
fn a_command_has_the_limits_that_hangwatch_was_given() {
    let script = "ulimit -Sn 200 && ulimit -Hn 300 && exec \"$0\" \"$@\"";
    let asks = "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj";
    for words in [&["run"][..], &["exec", "--deadline", "1m"]] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_hangwatch")]).args(words);
        let output = command.args(["--", "/bin/sh", "-c", asks]).output().unwrap();
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, format!("200\n300\n{own}"), "{words:?}");
    }
}

/// Ends what a test has started, whatever becomes of the test.
struct Reaped(std::process::Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Reaped {
    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    fn code(&mut self) -> Option<i32> {
        let mut code = None;
        wait_until("it ends", || {
            code = self.0.try_wait().unwrap().map(|status| status.code());
            code.is_some()
        });
        code.unwrap()
    }
}

/// `exec` whose deadline has passed, with an hour of grace, over a script that says so in `$DIR/term`.
fn in_grace(dir: &Path, script: &str) -> Reaped {
    let said = r#"trap ': > "$DIR/term"' TERM;"#;
    let words = ["exec", "--deadline", "100ms", "--signal", "TERM", "--grace", "1h"];
    let words = [&words[..], &["--evidence", "off", "--"]].concat();
    let mut command = hangwatch(&words);
    command.args(["/bin/sh", "-c", &format!("{said} {script}")]).env("DIR", dir);
    let exec = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_until("the deadline has passed", || dir.join("term").exists());
    exec
}

#[test]
fn a_signal_during_the_grace_reaches_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"trap ': > "$DIR/usr1"; exit 7' USR1; while :; do sleep 0.05; done"#;
    let mut exec = in_grace(dir.path(), script);
    exec.signal(rustix::process::Signal::USR1);
    assert_eq!(exec.code(), Some(124));
    assert!(dir.path().join("usr1").exists());
}

#[test]
fn a_signal_ends_the_grace_of_what_a_command_has_left() {
    let dir = tempfile::tempdir().unwrap();
    // Deaf, and with a child that is deaf as well: only the parent ends by itself.
    let script = r#"(trap '' TERM INT; echo $$ > "$DIR/child"; sleep 1000) &
                    while ! test -e "$DIR/term"; do sleep 0.05; done"#;
    let mut exec = in_grace(dir.path(), script);
    let pid = exec.0.id();
    wait_until("the command has ended and was reaped", || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        // What is left is adopted.
        let of = |child: &str, file: &str| fs::read_to_string(format!("/proc/{child}/{file}"));
        // The guard has the same command line as exec itself.
        let is_guard =
            |child: &str| of(child, "comm").is_ok_and(|it| it.starts_with("hangwatch-guar"));
        let has_ended = |child: &str| of(child, "cmdline").is_ok_and(|it| !it.contains("term"));
        children.split_ascii_whitespace().all(|child| is_guard(child) || has_ended(child))
    });
    exec.signal(rustix::process::Signal::TERM);
    assert_eq!(exec.code(), Some(124));
}

#[test]
fn what_a_killed_command_left_behind_is_removed_and_nothing_that_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let start = |words: &[&str]| {
        let said = dir.path().join("name");
        let _ = fs::remove_file(&said);
        let script = r#"echo $$ $HANGWATCH_SEGMENT > "$DIR/part"; mv "$DIR/part" "$DIR/name"
                        exec sleep 1000"#;
        let mut command = hangwatch(words);
        command.args(["--", "/bin/sh", "-c", script]).env("DIR", dir.path()).stderr(Stdio::null());
        let child = Reaped(command.spawn().unwrap());
        wait_until("it runs", || said.exists());
        let text = fs::read_to_string(&said).unwrap();
        let (pid, name) = text.trim().split_once(' ').unwrap();
        (child, Orphan(pid.parse().unwrap()), format!("/dev/shm/hangwatch.{name}"))
    };
    let exists = |file: &String| Path::new(file).exists();
    let (mut killed, _orphan, left) = start(&["exec", "--deadline", "1h"]);
    let (_living, _command, kept) = start(&["run"]);
    // One that is there to stay, and serves nobody at the moment.
    let name = Name::new("to-stay");
    let mut watchdog = Reaped(hangwatch(&["run", "--segment", &name.0]).spawn().unwrap());
    wait_until("it serves", || name.exists());
    watchdog.0.kill().unwrap();
    watchdog.0.wait().unwrap();
    check(&["rm", "--stale"], 0);
    assert!(
        exists(&left) && exists(&kept) && name.exists(),
        "their makers live, or want them kept"
    );
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    check(&["exec", "--deadline", "1m", "--", "true"], 0);
    assert!(!exists(&left), "the next one has removed it");
    let (mut killed, _orphan, left) = start(&["run", "--no-standby"]);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    let output = check(&["rm", "--stale"], 0);
    let said = String::from_utf8(output.stdout).unwrap();
    // Any other command of this user may have removed it first, and says so.
    let is_named = said.contains(left.strip_prefix("/dev/shm/hangwatch.").unwrap());
    assert!(is_named || said.contains("nothing to remove"), "{said}");
    assert!(!exists(&left) && exists(&kept) && name.exists());
}

/// A process that outlived who started it.
struct Orphan(i32);

impl Drop for Orphan {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

#[test]
fn a_command_is_told_to_let_its_watchdog_look_unless_it_was_told_otherwise() {
    for (said, told) in [(None, "watchdog\n"), (Some("nobody"), "nobody\n")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hangwatch"));
        command.env_remove("HANGWATCH_PTRACER").envs(said.map(|said| ("HANGWATCH_PTRACER", said)));
        command.args([
            "run",
            "--evidence",
            "off",
            "--",
            "/bin/sh",
            "-c",
            "echo $HANGWATCH_PTRACER",
        ]);
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), told);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("PTRACER"), "{output:?}");
    }
}
