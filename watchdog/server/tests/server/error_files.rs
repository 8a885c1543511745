//! torch's error files: the watchdog writes what a reaped worker of `torchrun` cannot.

use std::fs;
use std::path::Path;

use hangwatch_server::events::What;
use hangwatch_server::{ErrorFiles, ServerOptions};
use serde_json::Value;

use crate::stage::{Actor, Stage, until};

const VARIABLE: &str = "TORCHELASTIC_ERROR_FILE";
const SIGKILL: i32 = 9;

/// Has the worker hang, and waits for its death.
fn hang(mut worker: Actor) {
    worker.say("expires outer 60000");
    worker.say("expires forward 50");
    assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
}

/// What the watchdog has told about the error file: the path, and why there is none.
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
fn the_error_file_of_a_reaped_worker_is_there_when_it_is_dead() {
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
        assert!(timestamp < written, "{timestamp} is not the first failure's ({written})");
        assert_eq!(told(&stage), (path.display().to_string(), None));
    }
}

#[test]
fn what_a_worker_wrote_itself_is_left_as_it_is() {
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
fn a_worker_whose_error_file_cannot_be_written_is_reaped_all_the_same() {
    let stage = Stage::new("error-none");
    let _server = stage.serve(ServerOptions::default());
    hang(stage.worker_with(VARIABLE, "/proc/none/error.json"));
    let (path, error) = told(&stage);
    assert_eq!(path, "/proc/none/error.json");
    assert!(error.unwrap().contains("cannot be opened"));
}

#[test]
fn no_error_file_is_written_where_none_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("error.json");
    let stage = Stage::new("error-off");
    let options = ServerOptions { error_files: ErrorFiles::Leave, ..ServerOptions::default() };
    let server = stage.serve(options);
    hang(stage.worker_with(VARIABLE, &path));
    until(|| server.health().reaped == 1);
    assert!(!path.exists());
}
