//! torch's error files: the watchdog writes what a killed worker of `torchrun` cannot.

use std::fs;
use std::path::Path;

use hangwatch_server::events::What;
use hangwatch_server::{ErrorFiles, ServerOptions};
use serde_json::Value;

use crate::stage::{Actor, Stage, until};

const VARIABLE: &str = "TORCHELASTIC_ERROR_FILE";
const SIGKILL: i32 = 9;

/// Makes the worker hang, and waits for its death.
fn hang(mut worker: Actor) {
    worker.say("expires outer 60000");
    worker.say("expires forward 50");
    assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
}

/// Returns what was logged about the error file: the path, and why there is none.
fn told(stage: &Stage) -> (String, Option<String>) {
    stage.event(|what| match what {
        What::ErrorFile { path, error, .. } => Some((path.display().to_string(), error.clone())),
        _ => None,
    })
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn error_file_exists_when_the_killed_worker_is_dead() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..8 {
        let path = dir.path().join(format!("{round}.json"));
        let stage = Stage::new("error-file");
        let _server = stage.serve(ServerOptions::default());
        let worker = stage.worker_with(VARIABLE, &path);
        let pid = worker.pid();
        hang(worker);
        let message = &read(&path)["message"];
        let expected = format!("hangwatch: pid {pid} hung in \"forward\" and was removed");
        assert_eq!(message["message"], expected);
        let story = message["extraInfo"]["py_callstack"].as_str().unwrap();
        assert!(story.starts_with(&expected) && story.contains("had 50ms"), "{story}");
        let timestamp: u64 = message["extraInfo"]["timestamp"].as_str().unwrap().parse().unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(timestamp < written, "{timestamp} is not before {written}");
        assert_eq!(told(&stage), (path.display().to_string(), None));
    }
}

#[test]
fn file_written_by_the_worker_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("error.json");
    fs::write(&path, "its own").unwrap();
    let stage = Stage::new("error-own");
    let _server = stage.serve(ServerOptions::default());
    hang(stage.worker_with(VARIABLE, &path));
    let (_, error) = told(&stage);
    assert!(error.unwrap().contains("left as it is"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "its own");
}

#[test]
fn worker_without_a_writable_error_file_is_killed_anyway() {
    let stage = Stage::new("error-none");
    let _server = stage.serve(ServerOptions::default());
    hang(stage.worker_with(VARIABLE, "/proc/none/error.json"));
    let (path, error) = told(&stage);
    assert_eq!(path, "/proc/none/error.json");
    assert!(error.unwrap().contains("cannot be opened"));
}

#[test]
fn no_error_file_is_written_if_switched_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("error.json");
    let stage = Stage::new("error-off");
    let options = ServerOptions { error_files: ErrorFiles::Leave, ..ServerOptions::default() };
    let server = stage.serve(options);
    hang(stage.worker_with(VARIABLE, &path));
    until(|| server.health().reaped == 1);
    assert!(!path.exists());
}
