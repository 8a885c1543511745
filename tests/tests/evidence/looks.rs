//! What a worker is left as by who looked at it: as it was.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};

use hangwatch_process::proc::{State, standing};
use hangwatch_tests::tracer::Tracer;
use hangwatch_tests::{Stage, Watchdog, program, until};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process};

/// A process that does nothing; gone with its test.
struct Quiet(Child);

impl Quiet {
    fn start() -> Quiet {
        let quiet = Quiet(Command::new("sleep").arg("600").spawn().unwrap());
        quiet.awaits(State::Sleeping);
        quiet
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// Waits until it stands so and nobody traces it.
    fn awaits(&self, state: State) {
        until("it stands as it did", || {
            let stands = standing(self.pid()).unwrap()?;
            (stands.state == state && stands.tracer.is_none()).then_some(())
        });
    }

    /// Has a helper look at it.
    fn looked_at(&self, environment: &[(&str, &str)]) -> Output {
        looker(self.pid()).envs(environment.iter().copied()).output().unwrap()
    }
}

/// A helper that looks at a process.
fn looker(pid: Pid) -> Command {
    let pidfd: OwnedFd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["evidence-helper", "--budget", "30s", "--pid"]);
    command.arg(pid.as_raw_pid().to_string()).stdin(Stdio::from(pidfd)).stdout(Stdio::piped());
    command
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check_stacks(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("\"native\"") && text.contains("nanosleep"), "{text}");
    assert!(text.trim_end().ends_with("{\"finished\":\"symbols\"}"), "{text}");
}

#[test]
fn who_was_at_work_goes_on() {
    let quiet = Quiet::start();
    check_stacks(&quiet.looked_at(&[]));
    quiet.awaits(State::Sleeping);
}

#[test]
fn who_was_stopped_stays_stopped() {
    let quiet = Quiet::start();
    kill_process(quiet.pid(), Signal::STOP).unwrap();
    quiet.awaits(State::Stopped);
    check_stacks(&quiet.looked_at(&[]));
    quiet.awaits(State::Stopped);
    kill_process(quiet.pid(), Signal::CONT).unwrap();
    quiet.awaits(State::Sleeping);
}

#[test]
fn a_helper_killed_while_it_holds_the_worker_lets_it_go() {
    for stopped in [false, true] {
        let quiet = Quiet::start();
        if stopped {
            kill_process(quiet.pid(), Signal::STOP).unwrap();
            quiet.awaits(State::Stopped);
        }
        let output = quiet.looked_at(&[("HANGWATCH_CRASH_AT", "evidence-stopped")]);
        assert!(!output.status.success(), "{output:?}");
        quiet.awaits(if stopped { State::Stopped } else { State::Sleeping });
    }
}

/// It cannot be told from a debugger that calls itself the same: while it holds the worker, nobody
/// signals that.
#[test]
fn a_worker_that_a_helper_of_another_watchdog_has_let_go_is_reaped() {
    let stage = Stage::new("two-dogs");
    let mut watchdog = stage.watchdog(&[]);
    let mut worker = stage.actor();
    worker.tell("expires step 1500");
    // It holds the worker, and will for good.
    let pid = Pid::from_raw(worker.pid().cast_signed()).unwrap();
    let mut looker = looker(pid)
        .envs([("HANGWATCH_CRASH_AT", "evidence-stopped"), ("HANGWATCH_CRASH_BY", "stop")])
        .spawn()
        .unwrap();
    until("it is held", || standing(pid).unwrap()?.tracer);
    let said = first_said(&mut watchdog, worker.pid());
    assert_eq!(said["hold"], "traced", "{said}");
    looker.kill().unwrap();
    looker.wait().unwrap();
    assert_eq!(watchdog.expiry_of(worker.pid())["outcome"], "reaped");
    assert_eq!(worker.wait().signal(), Some(9));
}

#[test]
fn a_tracer_that_only_calls_itself_a_helper_is_a_debugger() {
    let stage = Stage::new("named");
    let mut watchdog = stage.watchdog(&[]);
    let mut worker = stage.actor();
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == worker.pid());
    rustix::thread::set_name(c"hangwatch-look").unwrap();
    let Some(tracer) = Tracer::seize("a named tracer", worker.pid()) else { return };
    worker.tell("expires step 300");
    let said = first_said(&mut watchdog, worker.pid());
    assert_eq!(said["hold"], "traced", "{said}");
    assert_eq!(worker.tell("release step"), "InTime");
    drop(tracer);
    assert!(worker.end().success());
}

/// What is said first about an overdue worker.
fn first_said(watchdog: &mut Watchdog, pid: u32) -> serde_json::Value {
    watchdog.event(|event| {
        matches!(event["event"].as_str(), Some("held" | "expired")) && event["pid"] == pid
    })
}

#[test]
fn a_helper_wants_the_handle_of_the_process_it_is_told_of() {
    let (quiet, other) = (Quiet::start(), Quiet::start());
    let pidfd = rustix::process::pidfd_open(other.pid(), PidfdFlags::empty()).unwrap();
    let pid = quiet.pid().as_raw_pid().to_string();
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["evidence-helper", "--budget", "30s", "--pid", &pid]);
    let output = command.stdin(Stdio::from(pidfd)).output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}
