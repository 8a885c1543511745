use hangwatch_core::watchdog::reap::Outcome;
use hangwatch_core::wire::lane::TimerKind;

use super::super::draft::TIMERS_AT_MOST;
use super::*;
use crate::LaneFacts;
use crate::events::{TimerFacts, WorkerFacts};

const PID: u32 = 4711;
const PATIENCE: Duration = Duration::from_secs(4);

fn event(what: What) -> ServerEvent {
    ServerEvent { segment: "stories", what }
}

/// An expiry of one worker with a timer acquired at this time.
fn expired(outcome: Outcome, incident: Option<&str>, acquired_at_ns: u64) -> ServerEvent {
    let timer = TimerFacts {
        lane: 0,
        timer: 0,
        worker: Some(WorkerFacts { pid: PID, ..WorkerFacts::default() }),
        owner: LaneFacts::default(),
        scope: "step".to_owned(),
        kind: TimerKind::Guard,
        acquired_at_ns,
        deadline_ns: acquired_at_ns + 5,
    };
    event(What::Expired(Box::new(Expiry {
        timer,
        signal: if outcome == Outcome::Reaped { 9 } else { 0 },
        late_ns: 1,
        outcome: ExpiryOutcome::Reap(outcome),
        wait_channel: None,
        incident: incident.map(str::to_owned),
    })))
}

/// A complete incident of one timer with this outcome.
fn closed(id: &str, outcome: &str) -> ServerEvent {
    let ending = Some(Ending { outcome: outcome.to_owned(), ..Ending::default() });
    let timers = vec![hangwatch_incident::schema::Timer::default()];
    let incident = Incident { id: id.to_owned(), ending, timers, ..Incident::default() };
    event(What::Closed { incident: Arc::new(incident), dir: Some(PathBuf::from(id)) })
}

/// Returns each call's outcome and incident id, once all drafts are complete.
fn told(events: &[ServerEvent]) -> Vec<(String, String)> {
    let (from, mut assembler) = (Instant::now(), Assembler::new(PATIENCE));
    events.iter().for_each(|event| assembler.on_event(event, from));
    let calls = assembler.complete(from + QUIET, Events::Open);
    assert!(assembler.are_told(), "{assembler:?}");
    calls.into_iter().map(|call| (call.outcome, call.incident.id.clone())).collect()
}

fn log_limit(outcome: &str, id: &str) -> (String, String) {
    (outcome.to_owned(), id.to_owned())
}

#[test]
fn worker_reported_repeatedly_gets_calls_and_a_timer_count() {
    let (from, mut assembler) = (Instant::now(), Assembler::new(PATIENCE));
    let (mut calls, mut reports) = (Vec::new(), 0);
    for step in 0..250 {
        let now = from + Duration::from_millis(10) * step;
        assembler.on_event(&expired(Outcome::Reported, None, 1000 * u64::from(step)), now);
        reports += 1;
        calls.extend(assembler.complete(now, Events::Open));
    }
    assert_eq!(calls.len(), 2, "one a second");
    calls.extend(assembler.complete(from + Duration::from_mins(1), Events::Open));
    let timers = |call: &Call| call.incident.timers.len();
    assert!(calls.iter().all(|call| timers(call) <= TIMERS_AT_MOST));
    let heard_of = |call: &Call| timers(call) as u64 + call.incident.timers_left_out;
    assert_eq!(calls.iter().map(heard_of).sum::<u64>(), reports);
}

#[test]
fn reported_worker_counts_timers_beyond_its_incident() {
    let (from, mut assembler) = (Instant::now(), Assembler::new(PATIENCE));
    assembler.on_event(&expired(Outcome::Reported, Some("a"), 0), from);
    assembler.on_event(&expired(Outcome::Reported, None, 1), from);
    assert_eq!(assembler.complete(from + QUIET, Events::Open).len(), 0, "its incident may come");
    assembler.on_event(&closed("a", "reported"), from);
    let calls = assembler.complete(from + QUIET, Events::Open);
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.incident.timers.len(), call.incident.timers_left_out), (1, 1));
}

#[test]
fn reap_is_called_as_reap_despite_reports_beside_it() {
    use Outcome::{Reaped, Reported};
    // Without evidence.
    let events = [expired(Reported, None, 0), expired(Reaped, None, 1)];
    assert_eq!(told(&events), [log_limit("reported", ""), log_limit("reaped", "")]);
    // With an incident each.
    let incidents = [closed("a", "reported"), closed("c", "reaped")];
    let events = [expired(Reported, Some("a"), 0), expired(Reaped, Some("c"), 1)];
    assert_eq!(
        told(&[&events[..], &incidents].concat()),
        [log_limit("reported", "a"), log_limit("reaped", "c")]
    );
    // Reported while its reap was under way: it is one incident.
    let events = [expired(Reported, Some("c"), 0), expired(Reaped, Some("c"), 1)];
    assert_eq!(told(&[&events[..], &incidents[1..]].concat()), [log_limit("reaped", "c")]);
}

#[test]
fn signal_is_no_decision_of_a_report() {
    let worker = WorkerFacts { pid: PID, ..WorkerFacts::default() };
    let (from, mut assembler) = (Instant::now(), Assembler::new(PATIENCE));
    for event in [
        event(What::Signalled { worker, signal: 9 }),
        expired(Outcome::Reported, None, 0),
        expired(Outcome::Reaped, None, 1),
    ] {
        assembler.on_event(&event, from);
    }
    let decisions = |call: Call| (call.outcome, call.incident.decisions.len());
    let calls: Vec<_> = assembler.complete(from + QUIET, Events::Open).into_iter().collect();
    let decided: Vec<_> = calls.into_iter().map(decisions).collect();
    assert_eq!(decided, [("reported".to_owned(), 0), ("reaped".to_owned(), 1)]);
}

#[test]
fn worker_that_dies_after_unkillable_gets_one_call() {
    let events = [expired(Outcome::Unkillable, None, 0), expired(Outcome::Reaped, None, 0)];
    let (from, mut assembler) = (Instant::now(), Assembler::new(PATIENCE));
    events.iter().for_each(|event| assembler.on_event(event, from));
    let calls = assembler.complete(from + QUIET, Events::Open);
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((&*call.outcome, call.incident.timers.len()), ("reaped", 1));
}
