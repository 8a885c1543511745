//! Traces: what `hangwatch trace` writes, checked as its readers read it.

use std::collections::BTreeMap;
use std::time::Duration;

use hangwatch::{CreateOptions, Geometry, Segment, Worker};
use hangwatch_incident::schema::Incident;
use hangwatch_report::trace;
use serde_json::Value;

use super::sample::{self, AT, SECOND};
use super::shelf::Shelf;

/// The events of a trace that is well-formed: times ascend, complete events of a track nest, what ends
/// has begun, and every track has a name. A complete event never begins together with an unfinished one
/// around it: Perfetto would take it for the outer one.
fn checked(text: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(text).unwrap();
    let events = document["traceEvents"].as_array().unwrap().clone();
    let mut last = 0.0;
    let mut open: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    let mut begun: Vec<(Value, Value)> = Vec::new();
    let mut named: Vec<(u64, u64)> = Vec::new();
    for event in &events {
        let on = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        if event["ph"] == "M" {
            named.push(on);
            continue;
        }
        assert!(named.contains(&on), "{event} is on a track without a name");
        let at = event["ts"].as_f64().unwrap();
        assert!(at >= last, "{event} is before {last}");
        last = at;
        let around = open.entry(on).or_default();
        around.retain(|(_, end)| *end > at);
        match event["ph"].as_str().unwrap() {
            "X" => {
                let end = at + event["dur"].as_f64().unwrap();
                let holds = |(begin, outer): &(f64, f64)| {
                    end <= outer + 0.001 && (outer.is_finite() || *begin < at)
                };
                assert!(around.iter().all(holds), "{event} does not nest");
                around.push((at, end));
            }
            "B" => {
                let is_open = |(_, outer): &(f64, f64)| outer.is_infinite();
                assert!(around.iter().all(is_open), "{event} does not nest");
                around.push((at, f64::INFINITY));
            }
            "E" => {
                let ended = around.pop();
                assert!(ended.is_some_and(|(_, end)| end.is_infinite()), "{event} ends nothing");
            }
            "b" => begun.push((event["id"].clone(), event["name"].clone())),
            "e" => {
                let it = (event["id"].clone(), event["name"].clone());
                assert!(begun.contains(&it), "{event} ends what has not begun");
            }
            "i" => {}
            other => panic!("{other}: {event}"),
        }
    }
    events
}

fn named<'e>(events: &'e [Value], phase: &str, name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["ph"] == phase && event["name"] == name).collect()
}

#[test]
fn an_incident_is_a_well_formed_trace() {
    for incident in [
        sample::ddp(4),
        sample::ddp(64),
        sample::innocent(4),
        sample::lonely(),
        sample::hostile(),
        Incident::default(),
    ] {
        checked(&trace::of_incident(&incident));
    }
}

#[test]
fn what_hangs_is_open_its_deadline_and_condemnation_are_marked() {
    let events = checked(&trace::of_incident(&sample::ddp(4)));
    let hung = named(&events, "B", "data");
    assert_eq!(hung.len(), 1, "the one data that has not ended");
    assert_eq!(hung[0]["pid"], 4102);
    assert_eq!(named(&events, "B", "all_reduce").len(), 3);
    assert_eq!(named(&events, "X", "all_reduce").len(), 4 * 5);
    let at_us = named(&events, "i", "deadline of data")[0]["ts"].as_f64().unwrap();
    assert!((at_us * 1000.0).to_string() == AT.to_string(), "{at_us}");
    assert_eq!(named(&events, "i", "condemned: data").len(), 1);
    assert_eq!(named(&events, "i", "signalled").len(), 1);
    let labels: Vec<&Value> = named(&events, "M", "process_labels");
    assert_eq!(labels.len(), 1);
    assert_eq!(
        (&labels[0]["pid"], &labels[0]["args"]["labels"]),
        (&4102.into(), &"the suspect".into())
    );
    let first = &named(&events, "M", "process_sort_index")[0];
    assert_eq!((&first["pid"], &first["args"]["sort_index"]), (&4102.into(), &0.into()));
}

#[test]
fn a_lapped_ring_has_ends_without_begins_and_begins_without_ends() {
    let mut incident = sample::ddp(4);
    let lane = &mut incident.evidence.lanes[0];
    // The first step's acquire is gone, and the release of the last optimizer.
    lane.records.drain(..3);
    let lost = lane
        .records
        .iter()
        .rposition(|record| record.scope == "optimizer" && record.operation == "release");
    lane.records.remove(lost.unwrap());
    let events = checked(&trace::of_incident(&incident));
    let begins: Vec<_> = events
        .iter()
        .filter(|event| event["args"]["begin"] == "before this flight record")
        .map(|event| event["name"].as_str().unwrap())
        .collect();
    assert_eq!(begins, ["step"]);
    let lost: Vec<_> = events
        .iter()
        .filter(|event| event["args"]["end"] == "not known, its record is lost")
        .map(|event| event["name"].as_str().unwrap())
        .collect();
    assert_eq!(lost, ["optimizer"]);
}

#[test]
fn guards_that_overlap_without_nesting_stand_beside_the_track() {
    let mut incident = sample::lonely();
    let lane = &mut incident.evidence.lanes[0];
    let record =
        |timer: u16, operation: &str, at_s: u64, scope: &str| hangwatch_incident::schema::Record {
            at_ns: AT - at_s * SECOND,
            operation: operation.to_owned(),
            timer,
            scope: scope.to_owned(),
            ..Default::default()
        };
    lane.records = vec![
        record(3, "acquire", 9, "first"),
        record(4, "acquire", 8, "second"),
        record(3, "release", 7, "first"),
        record(4, "release", 6, "second"),
    ];
    let events = checked(&trace::of_incident(&incident));
    assert_eq!(named(&events, "X", "first").len(), 1);
    assert_eq!(named(&events, "X", "second").len(), 0);
    assert_eq!((named(&events, "b", "second").len(), named(&events, "e", "second").len()), (1, 1));
}

#[test]
fn what_begins_with_the_unfinished_one_around_it_is_inside_it() {
    let mut incident = sample::lonely();
    let lane = &mut incident.evidence.lanes[0];
    let around = lane.timers[0].scope.clone();
    // Its acquire is lost, so it is drawn from the first that is known of: where the outer one begins.
    lane.records = vec![hangwatch_incident::schema::Record {
        at_ns: AT - SECOND / 10,
        operation: "release".to_owned(),
        timer: 30,
        scope: "inside".to_owned(),
        ..Default::default()
    }];
    let events = checked(&trace::of_incident(&incident));
    let (outer, inner) = (named(&events, "B", &around), named(&events, "B", "inside"));
    assert_eq!((outer.len(), inner.len(), named(&events, "E", "inside").len()), (1, 1, 1));
    assert_eq!(outer[0]["ts"], inner[0]["ts"], "what this is about");
}

#[test]
fn a_segment_is_a_trace_of_what_is_in_it_now() {
    let name = format!("test-trace-{}", std::process::id());
    let geometry = Geometry { lanes: 4, timers: 8, records: 64, scopes: 16, lane_scopes: 4 };
    let options = CreateOptions { geometry, ..CreateOptions::default() };
    Segment::create(&name, options).unwrap();
    let worker = Worker::attach(name.as_str()).unwrap();
    let expires = |scope: &str| worker.expires(scope, Duration::from_mins(1)).unwrap();
    let open = expires("step");
    // Far more than the ring holds.
    for _ in 0..100 {
        drop(expires("read"));
    }
    let shelf = Shelf::new();
    let text = shelf.says(&["trace", "--segment", &name, "-o", "-"]);
    drop(open);
    Segment::remove(&name).unwrap();
    let events = checked(&text);
    let step = named(&events, "B", "step");
    assert_eq!(step.len(), 1, "it is open, though its record is lost");
    assert_eq!(step[0]["pid"], std::process::id());
    assert!(named(&events, "X", "read").len() >= 20, "{text}");
}

#[test]
fn a_file_is_written_for_its_owner_alone_or_it_says_why_not() {
    use std::os::unix::fs::PermissionsExt;
    let shelf = Shelf::new();
    shelf.put(sample::ID, &sample::ddp(4));
    let file = shelf.path().join("out.json");
    let path = file.to_str().unwrap();
    for command in ["trace", "report"] {
        shelf.says(&[command, "last", "-o", path]);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(&file).unwrap();
        let said = shelf.complains(&[command, "last", "-o", "/no/such/dir/out"]);
        assert!(said.contains("cannot write /no/such/dir/out"), "{said}");
    }
    assert!(
        shelf
            .complains(&["trace", "--segment", "test-no-such", "-o", "-"])
            .contains("test-no-such")
    );
}
