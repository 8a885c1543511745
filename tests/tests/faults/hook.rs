//! `--on-expire`: a command that hears of each expiry, and cannot keep a reap waiting.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use hangwatch_tests::incidents::Incidents;
use hangwatch_tests::{Stage, Watchdog, until};
use serde_json::Value;

const SIGKILL: i32 = 9;

fn is_hook(pid: u32) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "hook" && event["pid"] == pid
}

/// A watchdog that runs this, and one worker that hangs under it: what the log says of the hook.
fn check(command: &str, options: &[&str], says: impl Fn(&Value)) {
    let stage = Stage::new("hook");
    let mut watchdog = stage.watchdog(&[&["--on-expire", command], options].concat());
    let mut actor = stage.actor();
    actor.tell("expires step 50");
    assert_eq!(actor.wait().signal(), Some(SIGKILL), "{command}");
    let event = watchdog.event(is_hook(actor.pid()));
    says(&event);
}

fn status(event: &Value) -> &str {
    event["status"].as_str().unwrap_or_else(|| panic!("{event}"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_hook_hears_of_an_expiry_by_json_and_by_its_environment() {
    let directory = tempfile::tempdir().unwrap();
    let (json, variables) = (directory.path().join("json"), directory.path().join("variables"));
    let stage = Stage::new("hears");
    let command = format!(
        "cat > {}; echo \"$HANGWATCH_PID $HANGWATCH_SCOPE [$HANGWATCH_RANK] $HANGWATCH_OUTCOME \
         $HANGWATCH_SEGMENT\" > {}; echo said >&2",
        json.display(),
        variables.display()
    );
    let mut watchdog = stage.watchdog(&["--on-expire", &command]);
    let mut actor = stage.actor();
    actor.tell("expires outer 60");
    actor.tell("expires step 60");
    let event = watchdog.event(is_hook(actor.pid()));
    assert_eq!((status(&event), &event["stderr"]), ("exited with 0", &"said".into()));
    let incident: Value = serde_json::from_str(&read(&json)).unwrap();
    assert_eq!(incident["version"], 1);
    assert_eq!(incident["worker"]["pid"], actor.pid());
    assert_eq!(incident["ending"]["outcome"], "reaped");
    let first = incident["timers"][0]["scope"].as_str().unwrap().to_owned();
    assert!(["outer", "step"].contains(&&*first), "{incident}");
    assert!(incident["timers"][0]["deadline"]["utc"].as_str().unwrap().ends_with('Z'));
    let expected = format!("{} {first} [] reaped {}\n", actor.pid(), stage.name());
    assert_eq!(read(&variables), expected);
}

/// What the hook of one worker that hangs is given: the incident, and the value of
/// `HANGWATCH_INCIDENT`.
fn given(kept_in: &Path, timer: &str) -> (Value, String) {
    let directory = tempfile::tempdir().unwrap();
    let (json, place) = (directory.path().join("json"), directory.path().join("place"));
    let command = format!(
        "cat > {}; printf %s \"$HANGWATCH_INCIDENT\" > {}; test -z \"$HANGWATCH_INCIDENT\" \
         || cat \"$HANGWATCH_INCIDENT/incident.json\" >&2",
        json.display(),
        place.display()
    );
    let stage = Stage::new("given");
    let kept_in = kept_in.to_str().unwrap();
    let evidence = ["--evidence", "full", "--evidence-budget", "30s", "--incidents", kept_in];
    let mut watchdog = stage.watchdog(&[&["--on-expire", &command], &evidence[..]].concat());
    let mut actor = stage.actor();
    actor.tell("expires outer 60000");
    actor.tell(&format!("{timer} step 60"));
    let event = watchdog.event(is_hook(actor.pid()));
    assert_eq!(status(&event), "exited with 0", "{event}");
    (serde_json::from_str(&read(&json)).unwrap(), read(&place))
}

#[test]
fn a_hook_is_given_what_was_captured_and_where_it_is_kept() {
    let incidents = Incidents::new();
    for (timer, outcome) in [("expires", "reaped"), ("notify", "reported")] {
        let (incident, place) = given(incidents.path(), timer);
        assert_eq!(incident["ending"]["outcome"], outcome, "{incident}");
        assert_eq!(incident["evidence"]["level"], "full");
        assert_ne!(incident["evidence"]["threads"][0]["tid"], Value::Null, "{incident}");
        let scopes = |it: &Value| it["scope"].as_str().unwrap().to_owned();
        let open = incident["evidence"]["lanes"][0]["timers"].as_array().unwrap();
        assert!(open.iter().map(scopes).any(|scope| scope == "outer"), "{incident}");
        let id = incident["id"].as_str().unwrap();
        assert_eq!(Path::new(&place), incidents.path().join(id));
        // By the time the hook runs, what is kept is what it is given.
        let kept: Value =
            serde_json::from_str(&read(&Path::new(&place).join("incident.json"))).unwrap();
        assert_eq!(kept, incident);
    }
}

#[test]
fn a_hook_is_told_what_is_known_where_nothing_can_be_kept() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let (incident, place) = given(file.path(), "expires");
    assert_eq!(incident["ending"]["outcome"], "reaped", "{incident}");
    assert_ne!(incident["evidence"]["threads"][0]["tid"], Value::Null, "{incident}");
    assert_eq!(place, "");
}

#[test]
fn whatever_a_hook_does_the_reap_is_not_kept_waiting() {
    check("exit 3", &[], |event| assert_eq!(status(event), "exited with 3"));
    check("kill -9 $$", &[], |event| assert_eq!(status(event), "died of signal 9"));
    check("exec 0<&-; echo closed >&2", &[], |event| {
        assert_eq!((status(event), &event["stderr"]), ("exited with 0", &"closed".into()));
    });
    check("/no/such/program", &[], |event| assert_eq!(status(event), "exited with 127"));
    // It says far more than is kept, on both.
    check("yes | head -c 3000000 >&2; yes | head -c 3000000", &[], |event| {
        assert_eq!(status(event), "exited with 0");
        let length = event["stderr"].as_str().unwrap().len();
        assert!((1..=4096).contains(&length), "{length}");
    });
    // A child of its that holds its standard error open is not waited for.
    check("sleep 5 & echo on >&2", &[], |event| assert_eq!(status(event), "exited with 0"));
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_that_descends_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let command = format!("sleep 600 & echo $! > {}; sleep 600", pids.display());
    check(&command, &["--on-expire-timeout", "1s"], |event| {
        assert_eq!(status(event), "timed out, killed");
    });
    let pid = read(&pids);
    until("its child is gone", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        let is_alive = stat.is_ok_and(|stat| !stat.contains(") Z "));
        (!is_alive).then_some(())
    });
}

#[test]
fn hooks_of_several_workers_run_beside_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage::new("beside");
    // Each goes on once all three have come.
    let command = format!(
        "touch {0}/$HANGWATCH_PID; while [ $(ls {0} | wc -l) -lt 3 ]; do sleep 0.01; done",
        directory.path().display()
    );
    let mut watchdog: Watchdog = stage.watchdog(&["--on-expire", &command]);
    let mut actors: Vec<_> = (0..3).map(|_| stage.actor()).collect();
    for actor in &mut actors {
        actor.tell("expires step 50");
    }
    for _ in &actors {
        let event = watchdog.event(|event| event["event"] == "hook");
        assert_eq!(status(&event), "exited with 0", "{event}");
    }
}

/// A watchdog that is told to end runs what it has heard of, and ends.
#[test]
fn a_watchdog_that_ends_has_its_hooks_run() {
    let directory = tempfile::tempdir().unwrap();
    let done = directory.path().join("done");
    let stage = Stage::new("ends");
    let command = format!("cat > {}", done.display());
    let mut watchdog = stage.watchdog(&["--on-expire", &command]);
    let mut actor = stage.actor();
    actor.tell("notify step 50");
    watchdog.expiry_of(actor.pid());
    assert!(watchdog.end().success());
    assert!(read(&done).contains("\"reported\""));
}
