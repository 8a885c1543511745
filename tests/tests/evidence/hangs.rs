//! Real hangs, each with the line that hangs.

use std::os::unix::process::ExitStatusExt;

use hangwatch_incident::schema::Incident;
use hangwatch_tests::hang::line_of;
use hangwatch_tests::incidents::{Incidents, check_lateness_is_one, native, shows_line};
use hangwatch_tests::{Actor, Stage};
use rustix::process::Signal;

/// Long enough for a debug build on a busy machine; most need a fiftieth of it.
const BUDGET: [&str; 2] = ["--evidence-budget", "30s"];

/// Has a worker hang in the scope `exchange` and be reaped; its incident, in which only the stacks are
/// left to be checked.
fn incident_of(test: &str, how: &str) -> Incident {
    let (stage, incidents) = (Stage::new(test), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("full", &BUDGET));
    let mut worker = stage.actor();
    worker.tell("expires whole 60000");
    worker.order(&format!("hang {how} exchange 300"));
    check_reaped(&incidents.of_expiry(&mut watchdog, worker.pid()), &mut worker)
}

fn check_reaped(incident: &Incident, worker: &mut Actor) -> Incident {
    assert_eq!(worker.wait().signal(), Some(9));
    assert_eq!(incident.timers[0].scope, "exchange");
    assert_eq!(incident.worker.pid, Some(worker.pid()));
    let ending = incident.ending.as_ref().unwrap();
    assert_eq!((ending.outcome.as_str(), ending.signal), ("reaped", 9));
    assert_eq!(incident.evidence.missing, [], "nothing is missing");
    let decided: Vec<&str> = incident.decisions.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(decided, ["condemned", "signalled"]);
    check_lateness_is_one(incident);
    incident.clone()
}

#[test]
fn of_two_threads_that_deadlock_each_shows_the_line_it_waits_in() {
    let incident = incident_of("deadlock", "deadlock");
    let threads = &incident.evidence.threads;
    assert_eq!(threads.len(), 2, "{threads:#?}");
    assert!(shows_line(native(&threads[0]), line_of("deadlock")), "{:#?}", threads[0]);
    assert!(shows_line(native(&threads[1]), line_of("the other thread")), "{:#?}", threads[1]);
    assert_eq!(threads[1].name, "other");
    for thread in threads {
        let call = thread.system_call.as_deref().unwrap_or_default();
        assert!(call.starts_with("futex("), "{call}");
    }
    // What the segment says: both scopes, the innermost first, and the record of its acquire.
    let lane = &incident.evidence.lanes[0];
    let open: Vec<&str> = lane.timers.iter().map(|timer| timer.scope.as_str()).collect();
    assert_eq!(open, ["exchange", "whole"]);
    let last = lane.records.last().unwrap();
    assert_eq!((last.operation.as_str(), last.scope.as_str()), ("acquire", "exchange"));
}

#[test]
fn a_read_from_a_pipe_that_nobody_writes_is_seen_with_its_descriptor() {
    let incident = incident_of("pipe", "pipe");
    let thread = &incident.evidence.threads[0];
    assert!(shows_line(native(thread), line_of("pipe")), "{thread:#?}");
    let call = thread.system_call.as_deref().unwrap_or_default();
    assert!(call.starts_with("read(") && call.contains("pipe:["), "{call}");
    let process = incident.evidence.process.as_ref().unwrap();
    assert!(process.files.iter().any(|file| call.contains(&file.target)), "{:?}", process.files);
}

#[test]
fn an_endless_loop_is_seen_at_work() {
    let incident = incident_of("spin", "spin");
    let thread = &incident.evidence.threads[0];
    assert!(shows_line(native(thread), line_of("spin")), "{thread:#?}");
    assert_eq!((thread.state.as_str(), &thread.system_call), ("R", &None));
}

#[test]
fn a_stopped_process_is_seen_stopped() {
    let (stage, incidents) = (Stage::new("stopped"), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("full", &BUDGET));
    let mut worker = stage.actor();
    worker.tell("expires exchange 500");
    worker.signal(Signal::STOP);
    let incident = incidents.of_expiry(&mut watchdog, worker.pid());
    let incident = check_reaped(&incident, &mut worker);
    let thread = &incident.evidence.threads[0];
    assert_eq!(thread.state, "T");
    let frames = native(thread);
    assert!(frames.iter().any(|frame| frame.function.contains("serve")), "{thread:#?}");
}

/// A worker that is at work elsewhere for a minute, and three that wait for it in `exchange`.
fn barrier(stage: &Stage, incidents: &Incidents) -> (Actor, Vec<Actor>) {
    let fifo = incidents.path().join("barrier");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let mut hung = stage.actor();
    hung.order("hang spin load 60000");
    let mut waiting: Vec<Actor> = (0..3).map(|_| stage.actor()).collect();
    for worker in &mut waiting {
        worker.order(&format!("hang {} exchange 1500", fifo.display()));
    }
    (hung, waiting)
}

#[test]
fn of_four_workers_the_one_that_the_others_wait_for_is_the_suspect() {
    let (stage, incidents) = (Stage::new("barrier"), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("full", &BUDGET));
    let (mut hung, mut waiting) = barrier(&stage, &incidents);
    for _ in 0..waiting.len() {
        let ended = watchdog.event(|event| event["event"] == "expired");
        let worker = waiting.iter_mut().find(|worker| ended["pid"] == worker.pid()).unwrap();
        let incident = check_reaped(&incidents.of(&ended), worker);
        let thread = &incident.evidence.threads[0];
        assert!(shows_line(native(thread), line_of("fifo")), "{thread:#?}");
        // Whoever is reaped before takes its share of the picture along.
        if incident.others.len() == 3 {
            let suspect = incident.suspect.as_ref().unwrap();
            assert_eq!((suspect.pid, suspect.scope.as_str()), (Some(hung.pid()), "exchange"));
            let peer = incident.others.iter().find(|peer| peer.worker.pid == suspect.pid).unwrap();
            assert!(peer.doing.starts_with("in \"load\" for"), "{}", peer.doing);
        }
    }
    assert!(hung.is_alive());
}

#[test]
fn an_incident_tells_that_its_worker_was_reaped_for_the_others() {
    let (stage, incidents) = (Stage::new("reaped-first"), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("scopes", &["--cascade", "30s"]));
    let (hung, _waiting) = barrier(&stage, &incidents);
    let ended = watchdog.event(|event| event["event"] == "suspect");
    assert_eq!(ended["pid"], hung.pid());
    let incident = incidents.of(&ended);
    assert_eq!(incident.worker.pid, Some(hung.pid()));
    let whys: Vec<(&str, &str)> =
        incident.decisions.iter().map(|one| (one.what.as_str(), one.why.as_str())).collect();
    assert_eq!(
        whys[..2],
        [
            (
                "reaped_first",
                "all 3 other workers of its job were overdue in \"exchange\", and it was not there"
            ),
            (
                "condemned",
                "the other workers wait for it; the deadline of its \"load\" had not passed"
            ),
        ]
    );
    assert_eq!(incident.ending.as_ref().map(|ending| ending.outcome.as_str()), Some("reaped"));
}
