//! One story: what is heard of one worker that ran out of time, until the hook is told of it.
//!
//! A report and a reap of the same worker are two stories, unless they name the same incident; in one
//! story, a reap's ending takes the place of a report's. So every reap is told of, as such.

use std::time::Instant;

use hangwatch_core::watchdog::reap::Outcome;

use super::convert::{now, worker_of};
use crate::LaneFacts;
use crate::events::{ExpiryOutcome, WorkerFacts};
use hangwatch_incident::schema::{Decision, Ending, Incident, Timer, VERSION};

/// Timers of a story at most; the others are counted.
pub(super) const TIMERS_AT_MOST: usize = 64;
/// What the decision to send a signal is called.
pub(super) const SIGNALLED: &str = "signalled";

/// How much an ending says: it replaces one that says less, so that a reap is told of as such, whatever
/// was reported of the worker beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Nobody was signalled for it, and nobody will be.
    Report,
    /// A reap that goes on.
    Stage,
    /// A reap's end.
    End,
}

impl Weight {
    fn of(outcome: ExpiryOutcome) -> Weight {
        match outcome {
            report if report.is_report() => Weight::Report,
            ExpiryOutcome::Reap(Outcome::Unkillable) => Weight::Stage,
            _ => Weight::End,
        }
    }
}

/// What is heard of one expiry, or of one reap.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) segment: &'static str,
    pub(super) incident: Incident,
    /// That of its ending.
    weight: Weight,
    pub(super) first_word: Instant,
    pub(super) last_word: Instant,
}

/// One event of a story, as far as every kind has it.
pub(super) struct DraftEvent<'e> {
    pub(super) segment: &'static str,
    pub(super) worker: Option<&'e WorkerFacts>,
    pub(super) owner: &'e LaneFacts,
    pub(super) lane: u32,
    pub(super) incident: Option<&'e String>,
    pub(super) outcome: ExpiryOutcome,
    pub(super) at: Instant,
}

impl Draft {
    /// One of which nothing is known yet but who it is about.
    pub(super) fn begun(word: &DraftEvent<'_>) -> Draft {
        let incident = Incident {
            version: VERSION,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            segment: word.segment.to_owned(),
            at: now(),
            worker: worker_of(word.worker, word.owner),
            ..Incident::default()
        };
        let weight = Weight::of(word.outcome);
        let (segment, first_word, last_word) = (word.segment, word.at, word.at);
        Draft { segment, incident, weight, first_word, last_word }
    }

    /// Whether a word that names no incident of another may be about the same: a report and a reap
    /// never are.
    pub(super) fn may_take(&self, word: &DraftEvent<'_>) -> bool {
        let is_report = |weight: Weight| weight == Weight::Report;
        let is_alike = is_report(self.weight) == is_report(Weight::of(word.outcome));
        is_alike && (word.incident.is_none() || self.incident.id.is_empty())
    }

    /// Takes what was decided about its worker; a signal that was sent meanwhile is no part of a report.
    pub(super) fn takes(&mut self, decisions: &mut Vec<Decision>, word: &DraftEvent<'_>) {
        let is_report = self.weight.max(Weight::of(word.outcome)) == Weight::Report;
        let is_its = |it: &mut Decision| !is_report || it.what != SIGNALLED;
        self.incident.decisions.extend(decisions.extract_if(.., is_its));
    }

    /// Takes in when a word of it came, and the incident that the word names.
    pub(super) fn hears(&mut self, word: &DraftEvent<'_>) {
        self.last_word = word.at;
        self.incident.id.extend(word.incident.filter(|_| self.incident.id.is_empty()).cloned());
    }

    /// Adds a timer, once.
    pub(super) fn adds(&mut self, timer: Timer) {
        let Incident { timers, timers_left_out, .. } = &mut self.incident;
        let id = |it: &Timer| (it.lane, it.timer, it.acquired.monotonic_ns);
        match timers.iter().position(|known| id(known) == id(&timer)) {
            Some(place) => timers[place] = timer,
            None if timers.len() < TIMERS_AT_MOST => timers.push(timer),
            None => *timers_left_out += 1,
        }
    }

    /// Notes how it ended, where that says more than what is known. (Of several timers, the first has
    /// the earliest deadline.)
    pub(super) fn ends(&mut self, outcome: ExpiryOutcome, ending: impl FnOnce() -> Ending) {
        let weight = Weight::of(outcome);
        if self.incident.ending.is_none() || weight > self.weight {
            (self.incident.ending, self.weight) = (Some(ending()), weight);
        }
    }
}
