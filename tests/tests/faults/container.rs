//! The example in `examples/container`, without containers: a watchdog in a PID namespace of its own, as a
//! user without a name and without a home, that keeps its incident in the place that is named for it.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use hangwatch_tests::namespace::{Proc, below, refused};
use hangwatch_tests::{Watchdog, is_root, program, until};

const USER: u32 = 1000;

#[test]
fn a_watchdog_without_a_home_keeps_its_incident_where_it_is_told_to() {
    const TEST: &str = "a_watchdog_without_a_home_keeps_its_incident_where_it_is_told_to";
    if !is_root(TEST) {
        return;
    }
    if let Some(reason) = refused() {
        println!("skipped: {reason}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let incidents = dir.path().join("incidents");
    fs::create_dir(&incidents).unwrap();
    for (path, user) in [(dir.path(), 0), (&*incidents, USER)] {
        use std::os::unix::fs::PermissionsExt;
        chown(path, Some(user), Some(user)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let worker = program("stage-worker");
    // The worker's input stays open until it is killed.
    let hangs =
        format!("(echo attach; echo expires step 50; exec sleep 20) | {}", worker.display());
    let mut command: Command = below(Proc::Own, "setpriv".as_ref());
    command
        .args([&format!("--reuid={USER}"), &format!("--regid={USER}"), "--clear-groups", "--"])
        .arg(program("stage-watchdog"))
        .args([
            "run",
            "--log",
            "json",
            "--unprotected",
            "--evidence=scopes",
            "--",
            "sh",
            "-c",
            &hangs,
        ])
        .env("HOME", "/")
        .env("HANGWATCH_INCIDENTS", &incidents)
        .env_remove("XDG_STATE_HOME");
    let mut watchdog = Watchdog::spawn(command);
    let expired = watchdog.event(|event| event["event"] == "expired");
    assert_eq!(expired["outcome"], "reaped", "{expired}");
    let id = expired["incident"].as_str().unwrap().to_owned();
    let kept = incidents.join(id).join("incident.json");
    until("the incident is kept", || {
        fs::read_to_string(&kept).ok().filter(|text| text.contains("\"ending\""))
    });
    assert!(watchdog.events().iter().all(|event| event["event"] != "incident_lost"));
}
