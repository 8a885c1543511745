//! A command under `exec`: evidence of it and of what descends from it, and its end on time whatever
//! becomes of the evidence.

use std::path::Path;
use std::process::{Command, Stdio};

use hangwatch_incident::schema::Incident;
use hangwatch_tests::fuse::Mute;
use hangwatch_tests::incidents::{Incidents, Script, check_lateness_is_one, missing, native};
use hangwatch_tests::program;
use serde_json::Value;

/// A shell that waits for a child, and an orphan of its.
const SCRIPT: &str = "sleep 1000 & (setsid env -i sleep 1001 &); wait";

/// What became of a command under `exec`: its exit code, and the lines of the log.
fn exec(options: &[&str], helper: Option<&Path>) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["exec", "--deadline", "300ms", "--log", "json"]).args(options);
    command.args(["--", "/bin/sh", "-c", SCRIPT]);
    command.env_remove("HANGWATCH_LOG").env_remove("HANGWATCH_SEGMENT");
    if let Some(helper) = helper {
        command.env("HANGWATCH_PROGRAM", helper);
    }
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into()));
    (output.status.code(), lines.collect())
}

/// Its one line, of a removal of exactly the three processes of [`SCRIPT`]: no helper is among them.
fn removal((code, log): (Option<i32>, Vec<Value>)) -> Value {
    assert_eq!(code, Some(124), "{log:#?}");
    let lines: Vec<&Value> = log.iter().filter(|line| line["outcome"] == "reaped").collect();
    assert_eq!(lines.len(), 1, "{log:#?}");
    assert_eq!(lines[0]["processes"], 3, "{log:#?}");
    lines[0].clone()
}

fn check_is_whole(incident: &Incident, line: &Value) {
    assert_eq!(Value::from(incident.worker.pid), line["pid"]);
    assert_eq!(incident.timers[0].scope, "sh");
    let ending = incident.ending.as_ref().unwrap();
    assert_eq!((&*ending.outcome, ending.signal), ("reaped", 9));
    check_lateness_is_one(incident);
    let late_ms = line["late_ms"].as_f64().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "the log has three decimals")]
    let kept_ms = ending.late_ns as f64 / 1e6;
    assert!((late_ms - kept_ms).abs() < 0.001, "{late_ms} {kept_ms}");
}

#[test]
fn a_command_leaves_an_incident_with_all_that_descends_from_it() {
    let incidents = Incidents::new();
    let options = incidents.options("full", &["--evidence-budget", "60s"]);
    let line = removal(exec(&options, None));
    let incident = incidents.of(&line);
    check_is_whole(&incident, &line);
    assert_eq!(incidents.all().len(), 1, "of exec itself there is none");
    assert!(!native(&incident.evidence.threads[0]).is_empty(), "{:#?}", incident.evidence);
    let mut commands: Vec<&[String]> =
        incident.descendants.iter().map(|below| &below.worker.command[..]).collect();
    commands.sort_unstable();
    assert_eq!(commands, [["sleep", "1000"], ["sleep", "1001"]]);
    for below in &incident.descendants {
        let call = below.evidence.threads[0].system_call.as_deref().unwrap_or_default();
        assert!(call.contains("nanosleep"), "{below:#?}");
    }
}

#[test]
fn a_command_that_is_only_reported_is_not_stopped() {
    let incidents = Incidents::new();
    let more = ["--evidence-budget", "60s", "--signal", "none"];
    let options = incidents.options("full", &more);
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["exec", "--deadline", "300ms", "--log", "json"]).args(options);
    let output = command.args(["--", "sleep", "2"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let line = String::from_utf8(output.stderr).unwrap();
    let incident = incidents.of(&serde_json::from_str(line.lines().next().unwrap()).unwrap());
    assert_eq!(incident.ending.as_ref().unwrap().outcome, "reported");
    assert_eq!(incident.evidence.stopped_ns, None);
    assert!(missing(&incident, "native").unwrap().contains("not stopped"), "{incident:#?}");
}

#[test]
fn a_helper_that_hangs_keeps_no_command_beyond_the_budget() {
    let (incidents, script) = (Incidents::new(), Script::new("exec sleep 600"));
    let options = incidents.options("full", &["--evidence-budget", "300ms"]);
    let line = removal(exec(&options, Some(&script.path())));
    let incident = incidents.of(&line);
    check_is_whole(&incident, &line);
    assert!(missing(&incident, "threads").unwrap().contains("too slow"), "{incident:#?}");
    assert_eq!(incident.descendants.len(), 2);
}

#[test]
fn a_command_that_outlives_its_first_signal_was_ended_by_sigkill() {
    let incidents = Incidents::new();
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["exec", "--deadline", "300ms", "--signal", "TERM", "--grace", "100ms"]);
    command.args(["--log", "json"]).args(incidents.options("scopes", &[]));
    command.args(["--", "/bin/sh", "-c", "trap '' TERM; sleep 1000 & wait; wait"]);
    command.env_remove("HANGWATCH_LOG").env_remove("HANGWATCH_SEGMENT");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    let incident = incidents.of(&line);
    let ending = incident.ending.as_ref().unwrap();
    assert_eq!((&*ending.outcome, ending.signal), ("reaped", 9));
    let sent: Vec<&str> =
        incident.decisions.iter().filter(|it| it.what == "signalled").map(|it| &*it.why).collect();
    let [first, last] = sent[..] else { panic!("{sent:?}") };
    assert!(first.starts_with("SIGTERM was sent to 2 processes, "), "{first}");
    assert!(last.starts_with("SIGKILL was sent, "), "{last}");
    check_lateness_is_one(&incident);
}

/// The helper lets the command go, and ends when that has.
#[test]
fn a_command_that_ends_while_evidence_is_taken_has_ended_by_itself() {
    let (incidents, directory) = (Incidents::new(), tempfile::tempdir().unwrap());
    let (go, pid) = (directory.path().join("go"), directory.path().join("pid"));
    let script = Script::new(&format!(
        "touch {}; until grep -q '^State:.Z' /proc/$(cat {})/status; do sleep 0.01; done",
        go.display(),
        pid.display()
    ));
    let waits =
        format!("echo $$ > {}; until [ -e {} ]; do sleep 0.01; done", pid.display(), go.display());
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["exec", "--deadline", "300ms", "--log", "json"]);
    command.args(incidents.options("full", &["--evidence-budget", "60s"]));
    command.args(["--", "/bin/sh", "-c", &waits]).env("HANGWATCH_PROGRAM", script.path());
    command.env_remove("HANGWATCH_LOG").env_remove("HANGWATCH_SEGMENT");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(124), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!((&line["outcome"], &line["signal"]), (&"exited".into(), &Value::Null), "{log}");
    let incident = incidents.of(&line);
    let ending = incident.ending.as_ref().unwrap();
    assert_eq!((&*ending.outcome, ending.signal), ("exited", 0));
    assert!(incident.decisions.iter().all(|decision| decision.what != "signalled"));
}

#[test]
fn a_command_whose_incident_cannot_be_kept_is_removed_and_the_log_says_why() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let place = file.path().to_str().unwrap();
    let (code, log) = exec(&["--evidence", "scopes", "--incidents", place], None);
    let lost = log.iter().find(|line| line["event"] == "incident_lost");
    let why = lost.unwrap_or_else(|| panic!("{log:#?}"))["error"].as_str().unwrap();
    assert!(why.contains("Not a directory"), "{why}");
    assert_eq!(removal((code, log))["incident"], Value::Null);
}

#[test]
fn scopes_and_off_take_no_helper() {
    let (incidents, script) = (Incidents::new(), Script::new("exec sleep 600"));
    let line = removal(exec(&incidents.options("scopes", &[]), Some(&script.path())));
    let incident = incidents.of(&line);
    check_is_whole(&incident, &line);
    assert_eq!((&*incident.evidence.level, incident.evidence.missing.len()), ("scopes", 0));
    let none = Incidents::new();
    let line = removal(exec(&none.options("off", &[]), Some(&script.path())));
    assert_eq!((&line["incident"], none.all().len()), (&Value::Null, 0));
}

#[test]
fn a_disk_that_never_answers_holds_up_neither_the_removal_nor_the_end() {
    let Some(mute) =
        Mute::mount("a_disk_that_never_answers_holds_up_neither_the_removal_nor_the_end")
    else {
        return;
    };
    let dir = mute.file().join("incidents");
    let options = ["--evidence", "scopes", "--incidents", dir.to_str().unwrap()];
    let (code, log) = exec(&options, None);
    assert!(mute.is_asked(), "the disk was to be written to");
    let lost = log.iter().find(|line| line["event"] == "incident_lost");
    let why = lost.unwrap_or_else(|| panic!("{log:#?}"))["error"].as_str().unwrap();
    assert!(why.contains("does not answer"), "{why}");
    assert_eq!(removal((code, log))["incident"], Value::Null);
}

#[test]
fn a_program_on_a_disk_that_never_answers_has_a_deadline_all_the_same() {
    let Some(mute) =
        Mute::mount("a_program_on_a_disk_that_never_answers_has_a_deadline_all_the_same")
    else {
        return;
    };
    let mut command = Command::new(program("stage-watchdog"));
    command.args(["exec", "--evidence", "off", "--deadline", "300ms", "--log", "json", "--"]);
    command.arg(mute.file()).env_remove("HANGWATCH_LOG").env_remove("HANGWATCH_SEGMENT");
    // Not a pipe: the command that is left keeps it open.
    let errors = tempfile::NamedTempFile::new().unwrap();
    command.stdin(Stdio::null()).stderr(errors.reopen().unwrap());
    assert_eq!(command.status().unwrap().code(), Some(124));
    assert!(mute.is_asked(), "the disk was to be read");
    let log = std::fs::read_to_string(errors.path()).unwrap();
    let line: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    // The request was read and is never answered: the kernel does not let go of who waits for it.
    assert_eq!(line["outcome"], "unkillable", "{log}");
    let left = line["left"].as_str().unwrap();
    assert!(left.contains(&format!("pid {} ", line["pid"])), "{log}");
}
