//! Helpers, permissions and disks that fail: the reap comes, and the incident or the log says what is
//! missing.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use hangwatch_core::wire::segment::Counter;
use hangwatch_incident::schema::Incident;
use hangwatch_process::proc::{State, standing};
use hangwatch_tests::fuse::Mute;
use hangwatch_tests::incidents::{Incidents, Script, missing};
use hangwatch_tests::{Stage, Watchdog, is_root, program, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A watchdog whose helpers are as `environment` makes them; a worker of it hangs and is reaped.
fn incident_with(test: &str, budget: &str, environment: &[(&str, &str)]) -> Incident {
    let (stage, incidents) = (Stage::new(test), Incidents::new());
    let options = incidents.options("full", &["--evidence-budget", budget]);
    let mut watchdog = Watchdog::start(stage.name(), &options, environment);
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    let incident = incidents.of_expiry(&mut watchdog, worker.pid());
    assert_eq!(worker.wait().signal(), Some(9));
    assert_eq!(incident.evidence.lanes[0].timers[0].scope, "hung", "what there is is kept");
    assert_eq!(incident.ending.as_ref().unwrap().outcome, "reaped");
    incident
}

fn check_missing(incident: &Incident, what: &str, why: &str) {
    let said = missing(incident, what);
    assert!(said.is_some_and(|said| said.contains(why)), "{:#?}", incident.evidence.missing);
}

#[test]
fn a_helper_that_hangs_costs_no_more_than_the_budget() {
    let script = Script::new("exec sleep 600");
    let environment = [("HANGWATCH_PROGRAM", script.path().to_str().unwrap().to_owned())];
    let environment: Vec<_> = environment.iter().map(|(key, value)| (*key, &value[..])).collect();
    let incident = incident_with("hangs", "300ms", &environment);
    for stage in ["process", "threads", "python", "native", "symbols"] {
        check_missing(&incident, stage, "too slow");
    }
}

/// Its deadline has passed, its reap has begun, and its evidence takes long: it is another program's
/// process by the time that the signal would be sent.
#[test]
fn who_execs_while_its_evidence_is_taken_is_not_signalled() {
    let (stage, incidents) = (Stage::new("execs"), Incidents::new());
    let script = Script::new("exec sleep 600");
    let program = script.path();
    let environment = [("HANGWATCH_PROGRAM", program.to_str().unwrap())];
    let options = incidents.options("full", &["--evidence-budget", "300ms"]);
    let mut watchdog = Watchdog::start(stage.name(), &options, &environment);
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    until("it is condemned", || (stage.counter(Counter::Condemned) == 1).then_some(()));
    worker.order("exec");
    let left = watchdog.event(|event| event["event"] == "left" && event["pid"] == worker.pid());
    assert_eq!(left["how"], "execd");
    assert!(worker.is_alive());
    watchdog.end();
    assert!(watchdog.events().iter().all(|event| event["event"] != "signalled"));
}

#[test]
fn what_is_reported_while_a_reap_waits_for_evidence_is_not_its_end() {
    let (stage, incidents, script) =
        (Stage::new("beside"), Incidents::new(), Script::new("exec sleep 600"));
    let environment = [("HANGWATCH_PROGRAM", script.path().to_str().unwrap().to_owned())];
    let environment: Vec<_> = environment.iter().map(|(key, value)| (*key, &value[..])).collect();
    let options = incidents.options("full", &["--evidence-budget", "2s"]);
    let mut watchdog = Watchdog::start(stage.name(), &options, &environment);
    let mut worker = stage.actor();
    worker.tell("notify told 300");
    worker.tell("expires hung 100");
    assert_eq!(watchdog.expiry_of(worker.pid())["outcome"], "reported");
    let reaped = watchdog.expiry_of(worker.pid());
    assert_eq!(reaped["outcome"], "reaped");
    let incident = incidents.of(&reaped);
    assert_eq!(incident.ending.as_ref().unwrap().outcome, "reaped");
    assert!(incident.decisions.iter().any(|decision| decision.what == "signalled"));
    assert_eq!(worker.wait().signal(), Some(9));
}

#[test]
fn a_helper_that_hangs_while_it_holds_the_worker_does_not_hold_up_the_reap() {
    let crash = [("HANGWATCH_CRASH_AT", "evidence-stopped"), ("HANGWATCH_CRASH_BY", "stop")];
    let incident = incident_with("holds", "5s", &crash);
    assert!(!incident.evidence.threads.is_empty(), "what it had told is kept");
    check_missing(&incident, "native", "too slow");
}

#[test]
fn a_helper_that_is_killed_is_missed() {
    let incident = incident_with("killed", "30s", &[("HANGWATCH_CRASH_AT", "evidence-stopped")]);
    assert!(!incident.evidence.threads.is_empty(), "what it had told is kept");
    check_missing(&incident, "native", "the helper failed");
}

#[test]
fn a_helper_that_cannot_be_started_is_missed() {
    let incident = incident_with("none", "30s", &[("HANGWATCH_PROGRAM", "/nonexistent/hangwatch")]);
    check_missing(&incident, "process", "/nonexistent/hangwatch");
}

#[test]
fn a_helper_that_talks_nonsense_is_missed() {
    let script = Script::new("echo nonsense; head -c 20000000 /dev/zero");
    let program = script.path();
    let environment = [("HANGWATCH_PROGRAM", program.to_str().unwrap())];
    let incident = incident_with("nonsense", "30s", &environment);
    check_missing(&incident, "native", "more than is kept");
}

#[test]
fn where_tracing_is_refused_the_incident_says_so() {
    if !is_root("where_tracing_is_refused_the_incident_says_so") {
        return;
    }
    // Root's workers may do what this helper may not: the kernel lets it see none of them.
    let own = program("stage-watchdog");
    let script =
        Script::new(&format!("exec setpriv --bounding-set=-sys_ptrace {} \"$@\"", own.display()));
    let program = script.path();
    let environment = [("HANGWATCH_PROGRAM", program.to_str().unwrap())];
    let incident = incident_with("refused", "30s", &environment);
    check_missing(&incident, "native", "CAP_SYS_PTRACE");
    assert!(!incident.evidence.threads.is_empty(), "anyone may know these");
}

#[test]
fn a_full_disk_holds_up_no_reap_and_the_log_says_so() {
    if !is_root("a_full_disk_holds_up_no_reap_and_the_log_says_so") {
        return;
    }
    let (stage, incidents) = (Stage::new("full-disk"), Incidents::new());
    let mut command = Command::new("unshare");
    // A disk of one page, in a mount namespace of the watchdog's own.
    let script = "mount -t tmpfs -o size=4k none \"$0\" && head -c 4096 /dev/zero > \"$0/filled\"; exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(incidents.path());
    command.arg(program("stage-watchdog"));
    let options = incidents.options("full", &["--evidence-budget", "30s"]);
    command.args(Watchdog::arguments(stage.name(), &options));
    let mut watchdog = Watchdog::spawn(command);
    watchdog.event(|event| event["event"] == "serving");
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    assert_eq!(watchdog.expiry_of(worker.pid())["outcome"], "reaped");
    assert_eq!(worker.wait().signal(), Some(9));
    // It may be said before the expiry is.
    let said = watchdog.event_at_any_time(|event| event["event"] == "incident_lost");
    assert!(said["error"].as_str().unwrap().contains("No space left"), "{said}");
}

/// The one child of a process with one thread that has any.
fn child_of(pid: Pid) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).unwrap();
    let lists = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")));
    let lists: String = lists.map(Result::unwrap).collect();
    let child = lists.split_whitespace().next().expect("it has one");
    Pid::from_raw(child.parse().unwrap()).unwrap()
}

#[test]
fn a_disk_that_never_answers_holds_up_neither_a_reap_nor_the_end() {
    // Dropped last: were it held by the disk, it could not be killed.
    let mut watchdog;
    let Some(mute) = Mute::mount("a_disk_that_never_answers_holds_up_neither_a_reap_nor_the_end")
    else {
        return;
    };
    let stage = Stage::new("mute-disk");
    let dir = mute.file().join("incidents");
    let options = ["--evidence", "scopes", "--incidents", dir.to_str().unwrap()];
    watchdog = stage.watchdog(&options);
    let mut incidents = Vec::new();
    for scope in ["first", "second"] {
        let mut worker = stage.actor();
        worker.tell(&format!("expires {scope} 100"));
        let ended = watchdog.expiry_of(worker.pid());
        assert_eq!(ended["outcome"], "reaped");
        assert_eq!(worker.wait().signal(), Some(9));
        incidents.push(ended["incident"].as_str().unwrap().to_owned());
    }
    hangwatch_tests::until("the disk is asked", || mute.is_asked().then_some(()));
    // Its writer cannot even be killed.
    let writer = child_of(watchdog.pid());
    let pidfd = pidfd_open(writer, PidfdFlags::empty()).unwrap();
    kill_process(writer, Signal::KILL).unwrap();
    hangwatch_tests::until("the writer is held", || {
        (standing(writer).unwrap()?.state == State::Uninterruptible).then_some(())
    });
    // Told to end, it ends, though its writer cannot; and what is not written is in its log.
    watchdog.signal(Signal::TERM);
    assert!(watchdog.wait().success());
    for id in incidents {
        let lost = watchdog.event_at_any_time(|event| {
            event["event"] == "incident_lost" && event["incident"] == id.as_str()
        });
        assert!(lost["error"].as_str().unwrap().contains("did not answer"), "{lost}");
    }
    let mut ends = [PollFd::new(&pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(poll(&mut ends, Some(&at_once)).unwrap(), 0, "it is held still");
    drop(mute);
    assert_eq!(poll(&mut ends, None).unwrap(), 1, "its disk has failed: it ends");
}

#[test]
fn a_helper_that_cannot_begin_loses_no_incident_and_holds_up_no_successor() {
    // Dropped last: the program that is being started is held by its disk until it is gone.
    let mut watchdog;
    let Some(mute) =
        Mute::mount("a_helper_that_cannot_begin_loses_no_incident_and_holds_up_no_successor")
    else {
        return;
    };
    let (stage, incidents) = (Stage::new("mute-helper"), Incidents::new());
    let options = incidents.options("full", &["--evidence-budget", "300ms"]);
    let program = mute.file();
    let environment = [("HANGWATCH_PROGRAM", program.to_str().unwrap())];
    watchdog = Watchdog::start(stage.name(), &options, &environment);
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    assert_eq!(watchdog.expiry_of(worker.pid())["outcome"], "reaped");
    assert_eq!(worker.wait().signal(), Some(9));
    hangwatch_tests::until("the disk is asked", || mute.is_asked().then_some(()));
    // Nobody waits for it: its own incident, and those that come after it, are complete and kept.
    let mut second = stage.actor();
    second.tell("expires second 100");
    let incident = incidents.of_expiry(&mut watchdog, second.pid());
    assert_eq!(second.wait().signal(), Some(9));
    assert_eq!(incident.evidence.lanes[0].timers[0].scope, "second", "what there is is kept");
    check_missing(&incident, "native", "too slow");
    assert_eq!(incidents.all().len(), 2);
    let mut successor = stage.watchdog(&["--standby"]);
    watchdog.signal(Signal::TERM);
    successor.event(|event| event["event"] == "serving");
    assert!(watchdog.wait().success());
}
