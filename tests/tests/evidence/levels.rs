//! How much is captured.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use hangwatch_tests::incidents::{Incidents, check_lateness_is_one, missing};
use hangwatch_tests::{Actor, Stage, program};

#[test]
fn off_keeps_nothing() {
    let (stage, incidents) = (Stage::new("off"), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("off", &[]));
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    assert!(watchdog.expiry_of(worker.pid())["incident"].is_null());
    watchdog.end();
    assert_eq!(incidents.all().len(), 0);
}

#[test]
fn scopes_are_told_without_a_helper() {
    let (stage, incidents) = (Stage::new("scopes"), Incidents::new());
    // Were there a helper, it would be missed.
    let environment = [("HANGWATCH_PROGRAM", "/nonexistent")];
    let options = incidents.options("scopes", &[]);
    let mut watchdog = hangwatch_tests::Watchdog::start(stage.name(), &options, &environment);
    let mut other = stage.actor();
    other.tell("expires elsewhere 60000");
    let mut worker = stage.actor();
    worker.tell("expires outer 60000");
    worker.tell("expires hung 100");
    let incident = incidents.of_expiry(&mut watchdog, worker.pid());
    assert_eq!(incident.evidence.missing, []);
    let lane = &incident.evidence.lanes[0];
    let open: Vec<&str> = lane.timers.iter().map(|timer| timer.scope.as_str()).collect();
    assert_eq!(open, ["hung", "outer"]);
    assert_eq!(lane.records.len(), 2);
    assert!(incident.evidence.threads.is_empty() && incident.evidence.process.is_none());
    assert_eq!(incident.others.len(), 1);
    assert_eq!(incident.others[0].worker.pid, Some(other.pid()));
    assert_eq!(incident.others[0].lanes[0].timers[0].scope, "elsewhere");
}

#[test]
fn who_is_only_reported_is_looked_at_without_being_stopped() {
    let (stage, incidents) = (Stage::new("reported"), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("full", &["--evidence-budget", "30s"]));
    let mut worker = stage.actor();
    worker.tell("notify late 100");
    let incident = incidents.of_expiry(&mut watchdog, worker.pid());
    assert_eq!(incident.ending.as_ref().unwrap().outcome, "reported");
    let whole = hangwatch_tests::until("all is captured", || {
        let event = serde_json::json!({ "incident": incident.id });
        Some(incidents.of(&event)).filter(|incident| !incident.evidence.threads.is_empty())
    });
    assert_eq!(whole.evidence.stopped_ns, None);
    assert!(missing(&whole, "native").unwrap().contains("not stopped"), "{:?}", whole.evidence);
    assert_eq!(worker.tell("release late"), "Reported");
}

#[test]
fn a_report_during_a_reap_does_not_end_its_incident() {
    let (stage, incidents) = (Stage::new("beside"), Incidents::new());
    let more = ["--signal", "TERM", "--grace", "1s"];
    let mut watchdog = stage.watchdog(&incidents.options("scopes", &more));
    let mut worker = stage.actor();
    worker.tell("ignore 15");
    worker.tell("expires hung 100");
    worker.tell("notify late 300");
    let is_expiry_of = |scope: &'static str| {
        move |event: &serde_json::Value| event["event"] == "expired" && event["scope"] == scope
    };
    let report = watchdog.event(is_expiry_of("late"));
    assert_eq!((&report["outcome"], &report["incident"]), (&"reported".into(), &().into()));
    let reaped = watchdog.event(is_expiry_of("hung"));
    let incident = incidents.of(&reaped);
    let ending = incident.ending.as_ref().unwrap();
    assert_eq!((ending.outcome.as_str(), ending.signal), ("reaped", 9));
    // TERM and KILL: the lateness is that of the first.
    check_lateness_is_one(&incident);
}

#[test]
fn what_looks_like_a_secret_is_not_told_and_nobody_else_may_read_the_rest() {
    let (stage, incidents) = (Stage::new("secrets"), Incidents::new());
    let more = ["--evidence-budget", "30s", "--redact", "sesame[0-9]+"];
    let mut watchdog = stage.watchdog(&incidents.options("full", &more));
    let environment = [("STAGE_TOKEN", "hunter2"), ("STAGE_NOTE", "open sesame7 please")];
    let mut worker = hangwatch_tests::Actor::start(stage.name(), &environment);
    worker.tell("attach");
    worker.tell("expires hung 100");
    let incident = incidents.of_expiry(&mut watchdog, worker.pid());
    let environment = &incident.evidence.process.as_ref().unwrap().environment;
    assert!(environment.contains(&"STAGE_TOKEN=[redacted]".to_owned()), "{environment:?}");
    assert!(environment.contains(&"STAGE_NOTE=open [redacted] please".to_owned()));
    let dir = incidents.path().join(&incident.id);
    let text = std::fs::read_to_string(dir.join("incident.json")).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("sesame7"), "{text}");
    for entry in std::fs::read_dir(&dir).unwrap() {
        let permissions = entry.unwrap().metadata().unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_log_says_no_more_of_a_command_than_an_incident_does() {
    let stage = Stage::new("log");
    let mut watchdog = stage.watchdog(&["--redact", "sesame[0-9]+"]);
    let mut command = Command::new(program("stage-worker"));
    command.arg("--note=API_KEY=hunter2 sesame7 x");
    let mut worker = Actor::spawn(stage.name(), command);
    worker.tell("attach");
    // What it calls itself is read while it works.
    let said = hangwatch_tests::until("its command is known", || {
        worker.tell("notify step 20");
        let said = watchdog.expiry_of(worker.pid())["command"].to_string();
        worker.tell("release step");
        said.contains("stage-worker").then_some(said)
    });
    assert!(said.contains("--note=API_KEY=[redacted] [redacted] x"), "{said}");
    let all = format!("{:?}", watchdog.events());
    assert!(!all.contains("hunter") && !all.contains("sesame"), "{all}");
}
