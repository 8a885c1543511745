//! The incidents that the hook is told of: those that were captured; where nobody captures evidence,
//! or what was captured does not come, what the server's events say.

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

/// How long after the last word about a worker its story is complete: each of its timers has an event
/// of its own.
const QUIET: Duration = Duration::from_millis(30);
/// How long after its first word a story is complete all the same: a worker that is reported again and
/// again is never quiet.
const WHOLE: Duration = Duration::from_secs(1);
/// Workers that something was decided about, and that have not come to their end.
const UNDECIDED_AT_MOST: usize = 1024;

/// Whether an event is part of a story.
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

/// Captured incidents whose stories are not told yet at most.
const CAPTURED_AT_MOST: usize = 1024;

/// The stories that are being told, each about one expiry of one worker.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// A worker has one that ends with a report and one that ends with its reap at most; where it is
    /// reported again while another incident of its is awaited, one more.
    open: BTreeMap<Subject, Vec<Draft>>,
    decisions: BTreeMap<u32, Vec<Decision>>,
    /// What was captured, by the incident's name.
    captured: BTreeMap<String, Captured>,
    /// How long a story waits for what is captured, and for its place.
    patience: Duration,
}

#[derive(Debug)]
struct Captured {
    incident: Arc<Incident>,
    completeness: Completeness,
}

/// Whether anything is still to come of what is captured.
#[derive(Debug)]
enum Completeness {
    Open,
    /// It is not; this is its directory, where it is kept.
    Closed(Option<PathBuf>),
}

/// Whether there are more events to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    Open,
    Over,
}

/// Whom a story is about: a process, or a lane whose owner nobody has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Process(u32),
    Lane(u32),
}

impl Assembler {
    /// None yet. Each waits so long at most for what is captured of it.
    pub(super) fn new(patience: Duration) -> Assembler {
        Assembler { patience, ..Assembler::default() }
    }

    /// Whether nothing is left to be told.
    pub(super) fn are_told(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes in an event that came `at` this instant.
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
            self.captured.pop_first(); // names begin with their time
        }
        let captured = Captured { incident: Arc::clone(incident), completeness };
        self.captured.insert(incident.id.clone(), captured);
    }

    /// The calls for the stories that are complete by now.
    pub(super) fn complete(&mut self, now: Instant, events: Events) -> Vec<Call> {
        let (captured, patience) = (&self.captured, self.patience);
        let is_complete = |draft: &mut Draft| {
            let since = |word: Instant| now.saturating_duration_since(word);
            let is_whole = since(draft.last_word) >= QUIET || since(draft.first_word) >= WHOLE;
            let is_closed = |it: &Captured| matches!(it.completeness, Completeness::Closed(_));
            let is_there = draft.incident.id.is_empty()
                || captured.get(&draft.incident.id).is_some_and(is_closed);
            // Whatever becomes of the evidence, the hook is run.
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
        // How it ended is known here, also where that has not come to the evidence.
        if captured.ending.is_none() {
            Arc::make_mut(&mut captured).ending = incident.ending;
        }
        // What ran out of time beside what the evidence is about.
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
            self.decisions.clear(); // of workers that have released since
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

    /// The story that a word belongs to; begun with it, where there is none.
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
        draft.hears(word);
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
