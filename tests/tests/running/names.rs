//! Names that hold every code unit of UTF-16: nothing that a terminal or a reader of lines obeys comes out.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use hangwatch::{CreateOptions, Geometry, Worker};
use hangwatch_tests::incidents::Incidents;
use hangwatch_tests::{Stage, Watchdog};
use hangwatch_text::testing::{rude_characters, rude_names};
use serde_json::Value;

use super::{hangwatch, said};

const HOUR: Duration = Duration::from_hours(1);

fn check(what: &str, text: &str) {
    assert!(!text.is_empty(), "{what} says nothing");
    assert_eq!(rude_characters(text), [], "{what}");
}

/// Arms a timer for each name, by threads that end with what is returned.
fn arm(stage: &Stage, names: &[String], allowance: Duration) -> Vec<std::sync::mpsc::Sender<()>> {
    let worker = Worker::attach(stage.name()).unwrap();
    let armed = names.chunks(1000).map(|names| {
        let (names, (end, ended), (tell, done)) = (names.to_vec(), channel(), channel());
        std::thread::spawn(move || {
            let arm = |name: &String| worker.expires(name, allowance).unwrap();
            let guards: Vec<_> = names.iter().map(arm).collect();
            tell.send(()).unwrap();
            let _ = ended.recv();
            drop(guards);
        });
        done.recv().unwrap();
        end
    });
    armed.collect()
}

fn stage(test: &str) -> Stage {
    let geometry = Geometry { lanes: 8, timers: 1024, records: 64, scopes: 4096, lane_scopes: 8 };
    Stage::with(test, CreateOptions { geometry, ..CreateOptions::default() })
}

fn get(socket: &Path, page: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "GET {page} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn no_output_about_a_segment_has_a_character_that_does_harm() {
    let stage = stage("names");
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let listen = format!("--listen=unix:{}", socket.display());
    let mut watchdog = stage.watchdog(&["--timers", "1024", &listen]);
    let names = rude_names(100);
    let armed = arm(&stage, &names, HOUR);
    for words in [
        &["status", "--segment", stage.name()][..],
        &["status", "--json", "--segment", stage.name()],
        &["scopes", "--segment", stage.name()],
        &["scopes", "--json", "--segment", stage.name()],
        &["trace", "--segment", stage.name(), "-o", "-"],
        &["fleet", listen.strip_prefix("--listen=").unwrap()],
        &["fleet", "--json", listen.strip_prefix("--listen=").unwrap()],
    ] {
        let output = hangwatch(words);
        check(&words.join(" "), &String::from_utf8(output.stdout).unwrap());
    }
    let answer = get(&socket, "/state");
    check("/state", &answer);
    assert!(answer.contains("\\\\u{1b}") && answer.contains("\\\\u{202e}"), "the names are in it");
    let metrics = get(&socket, "/metrics");
    check("/metrics", &metrics);
    let is_line = |line: &str| line.starts_with("# ") || line.starts_with("hangwatch_");
    assert!(metrics.lines().all(is_line), "a name ends no line");
    drop(armed);
    assert!(watchdog.end().success());
}

#[test]
fn no_log_line_has_a_character_that_does_harm() {
    let stage = stage("names-logged");
    // Few enough to be logged each, of the characters that most names have nothing of.
    let names: Vec<String> = rude_names(100)
        .into_iter()
        .filter(|name| !rude_characters(name).is_empty() || name.contains('\n'))
        .collect();
    for format in ["text", "json"] {
        let mut command = std::process::Command::new(hangwatch_tests::program("stage-watchdog"));
        let run = ["run", "--segment", stage.name(), "--timers", "1024", "--unprotected"];
        command.args(run).args(["--evidence", "off", "--notify-only", "--log", format]);
        let mut watchdog = Watchdog::spawn(command);
        let is_serving = |event: &Value| match event {
            Value::String(line) => line.contains("serving"),
            event => event["event"] == "serving",
        };
        watchdog.event(is_serving);
        let armed = arm(&stage, &names, Duration::from_millis(1));
        let is_late = |event: &Value| match event {
            Value::String(line) => line.contains("deadline"),
            event => event["event"] == "expired",
        };
        watchdog.event(is_late);
        drop(armed);
        watchdog.end();
        for event in watchdog.events() {
            let text = event.as_str().map_or_else(|| raw(event), str::to_owned);
            check(format, &text);
        }
    }
}

/// Every text of a document, as whoever parses it gets it.
fn raw(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', "\u{1}"), // none has a line break either
        Value::Array(values) => values.iter().map(raw).collect(),
        Value::Object(values) => {
            values.iter().map(|(key, value)| key.clone() + &raw(value)).collect()
        }
        other => other.to_string(),
    }
}

/// What of an incident is a worker's to say.
const CLAIMS: [&str; 16] = [
    "scope",
    "thread",
    "name",
    "job",
    "host",
    "command",
    "arguments",
    "executable",
    "text",
    "reason",
    "why",
    "function",
    "file",
    "module",
    "label",
    "summary",
];

fn replace(value: &mut Value, name: &str) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, name)),
        Value::Object(values) => values.iter_mut().for_each(|(key, value)| match value {
            Value::String(text) if CLAIMS.contains(&&**key) => name.clone_into(text),
            Value::Array(texts) if CLAIMS.contains(&&**key) => {
                let texts = texts.iter_mut().filter(|text| text.is_string());
                texts.for_each(|text| *text = name.into());
            }
            value => replace(value, name),
        }),
        _ => {}
    }
}

#[test]
fn no_output_about_an_incident_has_a_character_that_does_harm() {
    let (stage, incidents) = (Stage::new("names-incident"), Incidents::new());
    let mut watchdog = stage.watchdog(&incidents.options("scopes", &[]));
    let mut other = stage.actor();
    other.tell("expires other 3600000");
    let mut worker = stage.actor();
    worker.tell("expires hung 100");
    let id = incidents.of_expiry(&mut watchdog, worker.pid()).id;
    assert!(watchdog.end().success());
    let file = incidents.path().join(&id).join("incident.json");
    let incident: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let dir = incidents.path().to_str().unwrap();
    for name in rude_names(4000) {
        let mut incident = incident.clone();
        replace(&mut incident, &name);
        fs::write(&file, serde_json::to_vec(&incident).unwrap()).unwrap();
        for words in [
            &["show", "--incidents", dir, "--all", &id][..],
            &["report", "--incidents", dir, "-o", "-", &id],
            &["trace", "--incidents", dir, "-o", "-", &id],
            &["incidents", "--incidents", dir],
            &["incidents", "--incidents", dir, "--json"],
        ] {
            check(words[0], &said(words));
        }
    }
}
