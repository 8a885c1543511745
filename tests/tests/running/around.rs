//! `run -- CMD`: it watches until the last worker has left, a standby takes over when it is killed, and
//! orphans are waited for.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hangwatch::Segment;
use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::namespace::{Proc, below, refused};
use hangwatch_tests::{Actor, Watchdog, program, until};
use rustix::process::{Pid, Signal, kill_process_group};

use super::said;

/// How the command of a job ends.
const CODE: i32 = 7;

/// `run -- CMD` with a command that ends when it is told to.
struct Job {
    run: Watchdog,
    segment: String,
    dir: tempfile::TempDir,
}

impl Job {
    fn start(options: &[&str], environment: &[(&str, &str)]) -> Job {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(program("stage-watchdog"));
        command.args(["run", "--log", "json", "--unprotected", "--evidence", "off"]);
        command.args(options).envs(environment.iter().copied()).env_remove("HANGWATCH_SEGMENT");
        // It ends with its directory, too: that of a test that has ended.
        let script = ": >\"$0.begun\"; while [ -d \"${0%/*}\" ] && [ ! -e \"$0\" ]; do sleep 0.05; \
                      done; exit 7";
        command.args(["--", "/bin/sh", "-c", script]).arg(dir.path().join("end"));
        command.process_group(0);
        let mut run = Watchdog::spawn(command);
        let serving = run.event(|event| event["event"] == "serving");
        let segment = serving["segment"].as_str().unwrap().to_owned();
        let has_begun = || dir.path().join("end.begun").exists().then_some(());
        until("the command has begun", has_begun);
        Job { run, segment, dir }
    }

    fn end_command(&self) {
        fs::write(self.dir.path().join("end"), "").unwrap();
    }

    fn worker(&self) -> Actor {
        let mut actor = Actor::start(&self.segment, &[]);
        actor.tell("attach");
        actor
    }

    fn file(&self) -> PathBuf {
        format!("/dev/shm/hangwatch.{}", self.segment).into()
    }

    /// Whether a worker that hangs is reaped.
    fn check_is_watched(&mut self) {
        let mut hung = self.worker();
        hung.tell("expires hung 50");
        assert_eq!(self.run.expiry_of(hung.pid())["outcome"], "reaped");
        hung.wait();
    }

    /// Kills `run` and its whole process group, the command with it.
    fn kill_group(&mut self) {
        kill_process_group(self.run.pid(), Signal::KILL).unwrap();
        self.run.kill();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.end_command();
        // Gone, where the test went well.
        let _ = Segment::remove(&self.segment);
    }
}

fn is(event: &'static str) -> impl Fn(&serde_json::Value) -> bool {
    move |said| said["event"] == event
}

#[test]
fn run_serves_on_until_the_last_worker_has_left() {
    let mut job = Job::start(&[], &[]);
    let mut worker = job.worker();
    worker.tell("expires long 3600000");
    job.end_command();
    let said = job.run.event(is("workers_live_on"));
    assert_eq!(said["workers"], 1, "{said}");
    assert_eq!(said["pids"], worker.pid().to_string(), "{said}");
    job.check_is_watched();
    assert_eq!(worker.tell("release long"), "InTime");
    assert!(worker.end().success());
    assert_eq!(job.run.wait().code(), Some(CODE), "the command's own code");
    assert!(!job.file().exists());
}

/// A server that has no worker for a moment, because its only one was reaped.
#[test]
fn run_watches_on_while_a_process_of_the_job_may_start_workers_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("stage-watchdog"));
    command.args([
        "run",
        "--log",
        "json",
        "--unprotected",
        "--evidence",
        "off",
        "--",
        "/bin/sh",
        "-c",
    ]);
    // The command starts a server, and ends when there is a worker. The server starts the next worker
    // when it is told to.
    let server = "worker() { (echo attach; echo \"expires $1 $2\"; sleep 60) | \"$WORKER\" & }; \
                  worker first 1500; while [ -d \"$DIR\" ] && [ ! -e \"$DIR/next\" ]; do \
                  sleep 0.05; done; \
                  worker second 50; wait";
    command.arg(
        "setsid sh -c \"$SERVER\" & while [ -d \"$DIR\" ] && [ ! -e \"$DIR/end\" ]; do \
                 sleep 0.05; done",
    );
    command.env("SERVER", server).env("DIR", dir.path()).env("WORKER", program("stage-worker"));
    command.env_remove("HANGWATCH_SEGMENT");
    let mut run = Watchdog::spawn(command);
    run.event(is("admitted"));
    fs::write(dir.path().join("end"), "").unwrap();
    run.event(is("workers_live_on"));
    assert_eq!(run.event(is("expired"))["scope"], "first");
    run.event(is("left"));
    fs::write(dir.path().join("next"), "").unwrap();
    let second = run.event(is("expired"));
    assert_eq!((&second["scope"], &second["outcome"]), (&"second".into(), &"reaped".into()));
    run.signal(Signal::TERM); // the server waits for the pipes of its workers
    assert!(run.wait().success());
}

#[test]
fn a_signal_ends_run_after_its_command_and_it_says_whom_it_leaves() {
    let mut job = Job::start(&[], &[]);
    let mut worker = job.worker();
    job.end_command();
    job.run.event(is("workers_live_on"));
    job.run.signal(Signal::TERM);
    let said = job.run.event(is("workers_left"));
    assert_eq!(said["pids"], worker.pid().to_string(), "{said}");
    assert_eq!(job.run.wait().code(), Some(CODE));
    assert!(worker.is_alive());
}

#[test]
fn run_that_leaves_workers_keeps_their_segment_for_another_watchdog() {
    let mut job = Job::start(&["--leave-workers"], &[]);
    let mut hung = job.worker();
    hung.tell("expires hung 3000");
    job.end_command();
    assert_eq!(job.run.event(is("workers_left"))["workers"], 1);
    assert_eq!(job.run.wait().code(), Some(CODE));
    let status = said_of(&job.segment);
    assert!(status.contains("NO WATCHDOG"), "{status}");
    let mut next = Watchdog::start(&job.segment, &[], &[]);
    assert_eq!(next.expiry_of(hung.pid())["outcome"], "reaped");
    assert!(next.end().success());
}

fn said_of(segment: &str) -> String {
    said(&["status", "--segment", segment])
}

#[test]
fn a_standby_takes_over_when_run_and_its_process_group_are_killed() {
    let mut job = Job::start(&[], &[]);
    let mut worker = job.worker();
    worker.tell("expires long 3600000");
    job.kill_group();
    let said = job.run.event(is("took_over"));
    assert_eq!(said["workers"], 1, "{said}");
    assert_eq!(said["run"], job.run.pid().as_raw_pid(), "{said}");
    job.run.event(is("serving"));
    // Nobody takes it for a segment that died with its maker.
    super::hangwatch(&["rm", "--stale"]);
    assert!(job.file().exists());
    job.check_is_watched();
    assert!(worker.end().success());
    until("the standby has removed the segment", || (!job.file().exists()).then_some(()));
    job.run.last_words(); // it ended: its end of the log is closed
}

/// SIGHUP may come before it serves or after.
#[test]
fn a_standby_that_took_over_reads_its_settings_again() {
    let settings = tempfile::NamedTempFile::new().unwrap();
    fs::write(settings.path(), "notify-only = true\n").unwrap();
    let mut job = Job::start(&["--config", settings.path().to_str().unwrap()], &[]);
    let standby = children_of(job.run.pid()).into_iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.starts_with("hangwatch-stand"))
    });
    let standby = Pid::from_raw(standby.expect("it has a standby").parse().unwrap()).unwrap();
    job.run.kill();
    job.run.event(is("serving"));
    let mut reread = |settings_say: &str, changed: &str| {
        fs::write(settings.path(), settings_say).unwrap();
        rustix::process::kill_process(standby, Signal::HUP).unwrap();
        assert_eq!(job.run.event(is("reloaded"))["changed"], changed);
    };
    reread("notify-only = true\nmax-reaps = 7\n", "max-reaps");
    reread("max-reaps = 7\n", "notify-only");
    job.check_is_watched();
    job.end_command();
    until("the standby has removed the segment", || (!job.file().exists()).then_some(()));
}

#[test]
fn a_standby_watches_as_long_as_the_command_lives() {
    let mut job = Job::start(&[], &[]);
    job.run.kill();
    job.run.event(is("took_over"));
    job.run.event(is("serving"));
    job.check_is_watched();
    assert!(job.file().exists(), "the command may start further workers");
    job.end_command();
    until("the standby has removed the segment", || (!job.file().exists()).then_some(()));
}

#[test]
fn a_standby_takes_over_when_a_thread_of_run_panics() {
    let panics = [("HANGWATCH_CRASH_AT", "ticked:40"), ("HANGWATCH_CRASH_BY", "panic")];
    let mut job = Job::start(&[], &panics);
    assert_eq!(job.run.wait().code(), Some(123));
    job.run.event(is("took_over"));
    job.run.event(is("serving"));
}

#[test]
fn without_a_standby_nobody_takes_over() {
    let mut job = Job::start(&["--no-standby"], &[]);
    assert_eq!(children_of(job.run.pid()).len(), 1, "the command alone");
    job.run.kill();
    super::hangwatch(&["rm", "--stale"]);
    assert!(!job.file().exists(), "it died with its maker");
}

#[test]
fn a_standby_ends_with_run_and_holds_no_pipe_open() {
    let output = Command::new(program("stage-watchdog"))
        .args(["run", "--unprotected", "--evidence", "off", "--", "true"])
        .output() // ends when nobody has its pipes any more
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("standby"), "{said}");
}

#[test]
fn a_standby_keeps_nothing_of_runs_but_its_log() {
    let job = Job::start(&[], &[]);
    let standby = until("the standby is there", || {
        children_of(job.run.pid()).into_iter().find(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|it| it == "hangwatch-stand\n")
        })
    });
    let target = |fd: u32| fs::read_link(format!("/proc/{standby}/fd/{fd}")).unwrap();
    assert_eq!(
        (target(0), target(1)),
        (Path::new("/dev/null").into(), Path::new("/dev/null").into())
    );
    let own = Pid::from_raw(standby.parse().unwrap()).unwrap();
    assert_eq!(rustix::process::getsid(Some(own)).unwrap(), own, "a session of its own");
}

#[test]
fn a_signal_that_asks_for_no_end_ends_a_watchdog_with_a_word() {
    for signal in [Signal::ALARM, Signal::USR1, Signal::XCPU] {
        let stage = hangwatch_tests::Stage::new("signalled");
        let mut watchdog = stage.watchdog(&[]);
        watchdog.signal(signal);
        assert_eq!(watchdog.event(is("signal"))["signal"], signal.as_raw());
        assert_eq!(watchdog.wait().signal(), Some(signal.as_raw()), "a shell shows 128 + N");
    }
}

#[test]
fn a_watchdog_whose_tick_is_stuck_ends_all_the_same_when_it_is_told_to() {
    let stage = hangwatch_tests::Stage::new("stuck");
    let stuck = [("HANGWATCH_CRASH_AT", "ticked:5"), ("HANGWATCH_CRASH_BY", "hang")];
    let mut watchdog = Watchdog::start(stage.name(), &[], &stuck);
    until("the tick is stuck", || (stage.counter(Counter::Ticks) >= 4).then_some(()));
    watchdog.signal(Signal::TERM);
    let said = watchdog.event(is("left_behind"));
    assert!(said.to_string().contains("tick"), "{said}");
    assert_eq!(watchdog.wait().code(), Some(125));
}

/// The children of a process, of whatever thread.
fn children_of(pid: Pid) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Makes orphans and counts the zombies, until there are none or it has waited for long.
const ORPHANS: &str = "for i in 1 2 3 4 5 6 7 8; do sh -c 'sleep 0.2 &'; done; sleep 1
for i in $(seq 300); do zombies=$(cat /proc/[0-9]*/status 2>&1 | grep -c '^State:.Z')
[ $zombies = 0 ] && break; sleep 0.1; done; echo $zombies";

#[test]
fn run_as_pid_1_leaves_no_orphan_a_zombie() {
    if let Some(reason) = refused() {
        println!("skipped: {reason}");
        return;
    }
    let mut command = below(Proc::Own, &program("stage-watchdog"));
    command.args(["run", "--unprotected", "--evidence", "off", "--", "/bin/sh", "-c", ORPHANS]);
    let output = command.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{output:?}");
}

#[test]
fn a_command_without_workers_is_told_that_nothing_was_watched() {
    let told = |options: &[&str]| {
        let mut command = Command::new(program("stage-watchdog"));
        command.args(["run", "--unprotected", "--evidence", "off"]).args(options);
        let done = command.args(["--", "true"]).env_remove("HANGWATCH_SEGMENT").output().unwrap();
        assert!(done.status.success());
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let plain = told(&[]);
    assert!(plain.contains("nothing was watched") && plain.contains("--auto"), "{plain}");
    let auto = told(&["--auto", "--auto-alone", "90s"]);
    assert!(auto.contains("1m 30s for the work between"), "{auto}");
    assert!(auto.contains("init_process_group"), "{auto}");
}

#[test]
fn the_python_package_is_told_what_to_guard() {
    let told = |options: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(program("stage-watchdog"));
        command.args(["run", "--unprotected", "--evidence", "off"]).args(options);
        command.args(["--", "sh", "-c", "env | grep ^HANGWATCH_AUTO | sort"]);
        command.env_remove("HANGWATCH_SEGMENT").envs(environment.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let torch = "HANGWATCH_AUTO=torch\nHANGWATCH_AUTO_ALONE=90s\nHANGWATCH_AUTO_SAID=1\n\
                 HANGWATCH_AUTO_TOGETHER=600s\n";
    assert_eq!(told(&["--auto", "--auto-alone", "90s"], &[]), torch);
    assert_eq!(told(&[], &[("HANGWATCH_AUTO", "1"), ("HANGWATCH_AUTO_ALONE", "1m30s")]), torch);
    assert_eq!(told(&["--auto=off"], &[("HANGWATCH_AUTO", "1")]), "");
    assert_eq!(told(&[], &[]), "");
}
