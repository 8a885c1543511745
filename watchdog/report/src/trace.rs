//! Flight records as a trace that Perfetto and `chrome://tracing` open.
//!
//! The format is Chrome's [trace event JSON]: a process a worker, a track a thread, a slice a scope.
//! Times are microseconds of `CLOCK_MONOTONIC`, ascending. Spans of a track that nest are complete
//! events; one that overlaps another without nesting (guards need not nest) is an asynchronous event
//! beside the track; one that has not ended has a begin and no end. Perfetto takes a complete event
//! before a begin of the same time, whatever their order here, and so for the outer one: inside a span
//! that begins with it and has not ended, one has a begin and an end.
//!
//! [trace event JSON]: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMh4h6I0nSsKchNAySU

use std::collections::HashSet;

use serde_json::{Value, json};

use hangwatch_incident::schema::{Decision, Incident, Lane, Worker};
use hangwatch_incident::story;
use hangwatch_incident::track::{End, Span, Track, tracks};
use hangwatch_text::{plain, to_json};

/// Pids are below this, by the kernel's word; those above stand for workers whose pid is not known.
const PID_LIMIT: u64 = 1 << 22;

/// Whatever cannot be shown as a slice of its own length: how it ended.
fn how_it_ended(end: End) -> &'static str {
    match end {
        End::Released(_) => "released",
        End::TooLate(_) => "released too late",
        End::Abandoned(_) => "abandoned",
        End::LostBefore(_) => "not known, its record is lost",
        End::Open => "not ended",
    }
}

/// A worker, and what is known of it.
struct Actor<'i> {
    worker: &'i Worker,
    lanes: &'i [Lane],
    decisions: &'i [Decision],
    remark: Option<&'static str>,
}

/// The trace of an incident.
pub fn of_incident(incident: &Incident) -> String {
    let remark = |worker: &Worker| {
        story::is_suspect(incident.suspect.as_ref(), worker).then_some("the suspect")
    };
    let condemned = Actor {
        worker: &incident.worker,
        lanes: &incident.evidence.lanes,
        decisions: &incident.decisions,
        remark: remark(&incident.worker).or(Some("condemned")),
    };
    let mut others: Vec<Actor<'_>> = incident
        .others
        .iter()
        .map(|peer| Actor {
            worker: &peer.worker,
            lanes: &peer.lanes,
            decisions: &[],
            remark: remark(&peer.worker),
        })
        .collect();
    others.sort_by_key(|actor| (actor.remark.is_none(), actor.worker.rank, actor.worker.pid));
    others.insert(0, condemned);
    document(&others, incident.at.monotonic_ns, &incident.segment)
}

/// The trace of workers and their lanes at one time of `CLOCK_MONOTONIC`.
pub fn of_workers(workers: &[(Worker, Vec<Lane>)], at_ns: u64, segment: &str) -> String {
    let actors: Vec<Actor<'_>> = workers
        .iter()
        .map(|(worker, lanes)| Actor { worker, lanes, decisions: &[], remark: None })
        .collect();
    document(&actors, at_ns, segment)
}

/// The whole document, an event a line.
fn document(actors: &[Actor<'_>], at_ns: u64, segment: &str) -> String {
    let mut names = Vec::new();
    let mut events: Vec<(u64, Value)> = Vec::new();
    let mut pids = HashSet::new();
    for (index, actor) in actors.iter().enumerate() {
        let stand_in = PID_LIMIT + index as u64;
        let pid = actor.worker.pid.map_or(stand_in, u64::from);
        let pid = if pids.contains(&pid) { stand_in } else { pid };
        pids.insert(pid);
        name_process(&mut names, actor, pid, index);
        for (index, track) in tracks(actor.lanes, at_ns).iter().enumerate() {
            let on = On { pid, tid: tid_of(track) };
            names.push(on.named("thread_name", &json!({"name": track_name(track)})));
            names.push(on.named("thread_sort_index", &json!({"sort_index": index})));
            draw(&mut events, track, on, at_ns);
        }
        let decided = actor.decisions.iter();
        events.extend(decided.map(|decision| decision_event(decision, pid)));
    }
    // Stable: an outer scope that begins together with an inner one stays before it.
    events.sort_by_key(|(at, _)| *at);
    let lines: Vec<String> =
        names.iter().chain(events.iter().map(|(_, event)| event)).map(event_line).collect();
    let about =
        json!({"segment": plain(segment), "at_us": micros(at_ns), "clock": "CLOCK_MONOTONIC"});
    format!(
        "{{\"displayTimeUnit\": \"ms\", \"otherData\": {about}, \"traceEvents\": [\n{}\n]}}\n",
        lines.join(",\n")
    )
}

fn event_line(event: &Value) -> String {
    to_json(event).expect("what is made here has keys that are strings")
}

/// A track of the trace.
#[derive(Clone, Copy)]
struct On {
    pid: u64,
    tid: u64,
}

impl On {
    fn named(self, what: &str, args: &Value) -> Value {
        json!({"ph": "M", "name": what, "pid": self.pid, "tid": self.tid, "args": args})
    }
}

fn name_process(names: &mut Vec<Value>, actor: &Actor<'_>, pid: u64, index: usize) {
    let on = On { pid, tid: 0 };
    let who = story::who(actor.worker);
    let name = if actor.worker.name.is_empty() || actor.worker.rank.is_none() {
        who
    } else {
        format!("{who} {}", plain(&actor.worker.name))
    };
    names.push(on.named("process_name", &json!({"name": name})));
    names.push(on.named("process_sort_index", &json!({"sort_index": index})));
    if let Some(remark) = actor.remark {
        names.push(on.named("process_labels", &json!({"labels": remark})));
    }
}

/// The thread; of a lane that names none, a number that no thread has.
fn tid_of(track: &Track) -> u64 {
    match track.tid {
        0 => PID_LIMIT + u64::from(track.lanes.first().copied().unwrap_or(0)),
        tid => tid,
    }
}

fn track_name(track: &Track) -> String {
    let lanes: Vec<String> = track.lanes.iter().map(ToString::to_string).collect();
    let lanes = format!("lane {}", lanes.join(", "));
    match &*plain(&track.thread) {
        "" => lanes,
        name => format!("{name} ({lanes})"),
    }
}

/// The spans and marks of a track.
fn draw(events: &mut Vec<(u64, Value)>, track: &Track, on: On, at_ns: u64) {
    // When the spans around the one that is drawn end, the outermost first: each ends with the one before
    // it or sooner. They are drawn in the order of their begins.
    let mut around: Vec<u64> = Vec::new();
    let mut last_open_begin = None;
    for span in &track.spans {
        let begin = span.begin_ns.unwrap_or(track.from_ns);
        let end = span.end.at_ns().map(|end| end.max(begin));
        while around.last().is_some_and(|outer_end| *outer_end <= begin) {
            around.pop();
        }
        let until = end.unwrap_or(u64::MAX);
        let form = match around.last() {
            Some(outer_end) if until > *outer_end => Form::Beside,
            _ if last_open_begin == Some(begin) => Form::Ends,
            _ => Form::Whole,
        };
        if form != Form::Beside {
            around.push(until);
            if end.is_none() {
                last_open_begin = Some(begin);
            }
        }
        events.extend(slice(span, (begin, end), form, on));
        if let Some(deadline) = span.deadline_ns.filter(|at| *at <= end.unwrap_or(at_ns)) {
            let name = format!("deadline of {}", plain(&span.scope));
            events.push(instant(deadline, &name, "deadline", on));
        }
        if span.condemned && end.is_none() {
            let name = format!("condemned: {}", plain(&span.scope));
            events.push(instant(at_ns, &name, "condemned", on));
        }
    }
    for mark in &track.marks {
        let name = format!("{} {}", mark.what, plain(&mark.scope));
        events.push(instant(mark.at_ns, &name, "mark", on));
    }
}

/// How a span is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As one event; one that has not ended by its begin alone.
    Whole,
    /// By its begin and its end.
    Ends,
    /// Beside the track.
    Beside,
}

/// A span as one or two events.
fn slice(span: &Span, (begin, end): (u64, Option<u64>), form: Form, on: On) -> Vec<(u64, Value)> {
    let args = json!({
        "lane": span.lane,
        "timer": span.timer,
        "begin": if span.begin_ns.is_some() { "known" } else { "before this flight record" },
        "end": how_it_ended(span.end),
        "deadline_us": span.deadline_ns.map(micros),
        "condemned": span.condemned,
    });
    let event = |phase: &str, at: u64| {
        json!({"ph": phase, "cat": "scope", "name": plain(&span.scope), "ts": micros(at),
               "pid": on.pid, "tid": on.tid})
    };
    let with = |mut event: Value, more: &[(&str, Value)]| {
        for (key, value) in more {
            event[*key] = value.clone();
        }
        event
    };
    // One acquire of one timer; a timer is acquired once at a time.
    let id = json!(format!("{}.{}.{begin}", span.lane, span.timer));
    match (form, end) {
        (Form::Whole, Some(end)) => {
            let more = [("dur", json!(micros(end - begin))), ("args", args)];
            vec![(begin, with(event("X", begin), &more))]
        }
        (Form::Whole | Form::Ends, end) => {
            let start = with(event("B", begin), &[("args", args)]);
            let ended = end.map(|end| (end, event("E", end)));
            [(begin, start)].into_iter().chain(ended).collect()
        }
        (Form::Beside, end) => {
            let start = with(event("b", begin), &[("id", id.clone()), ("args", args)]);
            let ended = end.map(|end| (end, with(event("e", end), &[("id", id)])));
            [(begin, start)].into_iter().chain(ended).collect()
        }
    }
}

fn instant(at_ns: u64, name: &str, category: &str, on: On) -> (u64, Value) {
    let event = json!({"ph": "i", "s": "t", "cat": category, "name": name, "ts": micros(at_ns),
                       "pid": on.pid, "tid": on.tid});
    (at_ns, event)
}

fn decision_event(decision: &Decision, pid: u64) -> (u64, Value) {
    let at_ns = decision.at.monotonic_ns;
    let event = json!({"ph": "i", "s": "p", "cat": "decision", "ts": micros(at_ns),
                       "name": story::what_was_decided(&decision.what),
                       "pid": pid, "tid": 0, "args": {"why": plain(&decision.why)}});
    (at_ns, event)
}

/// Microseconds, to the nanosecond.
fn micros(ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for three months of uptime")]
    let ns = ns as f64;
    ns / 1000.0
}
