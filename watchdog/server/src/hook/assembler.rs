//! Assembles the incident of each expiry for the hook.
//!
//! Captured evidence is used where it exists. If evidence is off, or does not arrive in time, the incident is
//! built from the server's events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::convert::{now, timer_of};
use super::draft::{Draft, DraftEvent, SIGNALLED};
use super::running::Call;
use crate::ServerEvent;
use crate::cascade::{Cascade, Suspect, SuspectEnd};
use crate::events::{Expiry, ExpiryOutcome, What};
use hangwatch_incident::schema::{Decision, Ending, Incident};

/// A draft is complete this long after its last event: each timer of a worker has an event of its own.
const QUIET: Duration = Duration::from_millis(30);
/// A draft is complete this long after its first event in any case: a worker that is reported again and
/// again always has new events.
const WHOLE: Duration = Duration::from_secs(1);
/// Maximum number of workers with decisions but no outcome.
const UNDECIDED_AT_MOST: usize = 1024;

/// Whether an event belongs to a draft.
pub(super) fn is_of_use(what: &What) -> bool {
    matches!(
        what,
        What::Expired(_)
            | What::Suspect(_)
            | What::Cascade(_)
            | What::Signalled { .. }
            | What::Captured(_)
            | What::Closed { .. }
    )
}

/// Maximum number of captured incidents whose drafts are not complete.
const CAPTURED_AT_MOST: usize = 1024;

/// The drafts, each of one expiry of one worker.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Usually a worker has one draft for a report and one for a reap. It has one more if it is reported again
    /// while the incident of the first report is still awaited.
    open: BTreeMap<Subject, Vec<Draft>>,
    decisions: BTreeMap<u32, Vec<Decision>>,
    /// Captured incidents by id.
    captured: BTreeMap<String, Captured>,
    /// How long a draft waits for its incident to be captured and written.
    patience: Duration,
}

#[derive(Debug)]
struct Captured {
    incident: Arc<Incident>,
    completeness: Completeness,
}

/// Whether a captured incident may still change.
#[derive(Debug)]
enum Completeness {
    Open,
    /// It is complete; the directory it is in, if it is on disk.
    Closed(Option<PathBuf>),
}

/// Whether more events may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    Open,
    Over,
}

/// What a draft is about: a process, or a lane whose owner is not verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Process(u32),
    Lane(u32),
}

impl Assembler {
    /// Creates an assembler without drafts.
    pub(super) fn new(patience: Duration) -> Assembler {
        Assembler { patience, ..Assembler::default() }
    }

    /// Whether no draft is open.
    pub(super) fn are_told(&self) -> bool {
        self.open.is_empty()
    }

    /// Applies an event that arrived at `at`.
    pub(super) fn on_event(&mut self, event: &ServerEvent, at: Instant) {
        match &event.what {
            What::Expired(expiry) => self.expired(event.segment, expiry, at),
            What::Suspect(end) => self.suspect_ended(event.segment, end, at),
            What::Cascade(cascade) => self.decided(cascade),
            What::Signalled { worker, signal } => {
                let why = format!("signal {signal} was sent");
                self.decide(worker.pid, SIGNALLED, why);
            }
            What::Captured(incident) => self.captured(incident, Completeness::Open),
            What::Closed { incident, dir } => {
                self.captured(incident, Completeness::Closed(dir.clone()));
            }
            _ => {}
        }
    }

    fn captured(&mut self, incident: &Arc<Incident>, completeness: Completeness) {
        if self.captured.len() >= CAPTURED_AT_MOST {
            self.captured.pop_first(); // ids begin with the time
        }
        let captured = Captured { incident: Arc::clone(incident), completeness };
        self.captured.insert(incident.id.clone(), captured);
    }

    /// Takes the drafts that are complete at `now`.
    pub(super) fn complete(&mut self, now: Instant, events: Events) -> Vec<Call> {
        let (captured, patience) = (&self.captured, self.patience);
        let is_complete = |draft: &mut Draft| {
            let since = |word: Instant| now.saturating_duration_since(word);
            let is_whole = since(draft.last_word) >= QUIET || since(draft.first_word) >= WHOLE;
            let is_closed = |it: &Captured| matches!(it.completeness, Completeness::Closed(_));
            let is_there = draft.incident.id.is_empty()
                || captured.get(&draft.incident.id).is_some_and(is_closed);
            // The hook is run even if the evidence never comes.
            let is_awaited =
                !is_there && events == Events::Open && since(draft.first_word) < patience;
            is_whole && !is_awaited
        };
        let mut complete = Vec::new();
        self.open.retain(|_, assembler| {
            complete.extend(assembler.extract_if(.., is_complete));
            !assembler.is_empty()
        });
        complete.into_iter().map(|draft| self.call(draft)).collect()
    }

    fn call(&mut self, draft: Draft) -> Call {
        let Draft { segment, incident, .. } = draft;
        let Some(Captured { incident: captured, completeness }) =
            self.captured.remove(&incident.id)
        else {
            return call(segment, Arc::new(incident), None);
        };
        let dir = if let Completeness::Closed(dir) = completeness { dir } else { None };
        let mut captured = captured;
        // The outcome is known from the event even if it did not reach the evidence.
        if captured.ending.is_none() {
            Arc::make_mut(&mut captured).ending = incident.ending;
        }
        // Timers that expired beside those that the evidence covers.
        let heard_of = incident.timers.len() as u64 + incident.timers_left_out;
        let left_out = heard_of.saturating_sub(captured.timers.len() as u64);
        if left_out > captured.timers_left_out {
            Arc::make_mut(&mut captured).timers_left_out = left_out;
        }
        call(segment, captured, dir)
    }

    fn decided(&mut self, cascade: &Cascade) {
        if let Some(worker) = &cascade.timer.worker {
            self.decide(worker.pid, cascade.name(), cascade.sentence());
        }
    }

    fn decide(&mut self, pid: u32, what: &str, why: String) {
        if self.decisions.len() >= UNDECIDED_AT_MOST {
            self.decisions.clear(); // of workers that have released meanwhile
        }
        let at = now();
        let decision = Decision { at, what: what.to_owned(), why };
        self.decisions.entry(pid).or_default().push(decision);
    }

    fn expired(&mut self, segment: &'static str, expiry: &Expiry, at: Instant) {
        let timer = &expiry.timer;
        let draft = self.draft(&DraftEvent {
            segment,
            worker: timer.worker.as_ref(),
            owner: &timer.owner,
            lane: timer.lane,
            incident: expiry.incident.as_ref(),
            outcome: expiry.outcome,
            at,
        });
        draft.adds(timer_of(timer, expiry.outcome));
        draft.ends(expiry.outcome, || Ending {
            at: now(),
            outcome: expiry.outcome.name().to_owned(),
            signal: expiry.signal,
            late_ns: expiry.late_ns,
            wait_channel: expiry.wait_channel.clone(),
        });
    }

    fn suspect_ended(&mut self, segment: &'static str, end: &SuspectEnd, at: Instant) {
        let Suspect { worker, owner } = &end.suspect;
        self.decide(worker.pid, "reaped_first", end.sentence());
        let outcome = ExpiryOutcome::Reap(end.outcome);
        let draft = self.draft(&DraftEvent {
            segment,
            worker: Some(worker),
            owner,
            lane: end.timer.as_ref().map_or(0, |timer| timer.lane),
            incident: end.incident.as_ref(),
            outcome,
            at,
        });
        if let Some(timer) = &end.timer {
            draft.adds(timer_of(timer, outcome));
        }
        draft.ends(outcome, || Ending {
            at: now(),
            outcome: outcome.name().to_owned(),
            signal: end.signal,
            late_ns: 0,
            wait_channel: end.wait_channel.clone(),
        });
        draft.incident.suspect = Some(hangwatch_incident::schema::Suspect {
            pid: Some(worker.pid),
            rank: owner.rank,
            scope: end.scope.clone(),
            why: end.sentence(),
        });
    }

    /// Returns the draft that an event belongs to, or starts one.
    fn draft(&mut self, word: &DraftEvent<'_>) -> &mut Draft {
        let pid = word.worker.map(|worker| worker.pid);
        let assembler =
            self.open.entry(pid.map_or(Subject::Lane(word.lane), Subject::Process)).or_default();
        let is_same = |draft: &Draft| word.incident == Some(&draft.incident.id);
        let place = assembler.iter().position(is_same);
        let place = place.or_else(|| assembler.iter().position(|draft| draft.may_take(word)));
        let place = place.unwrap_or_else(|| {
            assembler.push(Draft::begun(word));
            assembler.len() - 1
        });
        let draft = &mut assembler[place];
        draft.note_event(word);
        if let Some(pid) = pid
            && let Some(decisions) = self.decisions.get_mut(&pid)
        {
            draft.takes(decisions, word);
            if decisions.is_empty() {
                self.decisions.remove(&pid);
            }
        }
        draft
    }
}

fn call(segment: &'static str, incident: Arc<Incident>, dir: Option<PathBuf>) -> Call {
    let first = incident.timers.first();
    let suspected_in = incident.suspect.as_ref().map(|suspect| suspect.scope.clone());
    let scope = first.map(|timer| timer.scope.clone()).or(suspected_in).unwrap_or_default();
    Call {
        segment,
        pid: incident.worker.pid,
        scope,
        rank: incident.worker.rank,
        outcome: incident.ending.as_ref().map(|end| end.outcome.clone()).unwrap_or_default(),
        dir,
        incident,
    }
}

#[cfg(test)]
mod tests;
