//! One draft: the events of one worker's expiry, until the hook is run for it.
//!
//! A report and a reap of the same worker are two drafts unless they name the same incident. Within one
//! draft, the outcome of a reap replaces that of a report. So the hook is run for every reap.

use std::time::Instant;

use hangwatch_core::watchdog::reap::Outcome;

use super::convert::{now, worker_of};
use crate::LaneFacts;
use crate::events::{ExpiryOutcome, WorkerFacts};
use hangwatch_incident::schema::{Decision, Ending, Incident, Timer, VERSION};

/// Maximum number of timers in a draft. Further timers are counted.
pub(super) const TIMERS_AT_MOST: usize = 64;
/// The name of the decision to send a signal.
pub(super) const SIGNALLED: &str = "signalled";

/// The rank of an outcome: a higher one replaces a lower one, so that a reap is not hidden by a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Nothing was or will be signalled.
    Report,
    /// A reap that continues.
    Stage,
    /// The end of a reap.
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

/// The events of one expiry or one reap.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) segment: &'static str,
    pub(super) incident: Incident,
    /// The rank of its outcome.
    weight: Weight,
    pub(super) first_word: Instant,
    pub(super) last_word: Instant,
}

/// What all kinds of events in a draft have in common.
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
    /// Starts a draft that only knows its worker.
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

    /// Whether an event without an incident id of another draft may belong to this one. A report and a reap
    /// never belong together.
    pub(super) fn may_take(&self, word: &DraftEvent<'_>) -> bool {
        let is_report = |weight: Weight| weight == Weight::Report;
        let is_alike = is_report(self.weight) == is_report(Weight::of(word.outcome));
        is_alike && (word.incident.is_none() || self.incident.id.is_empty())
    }

    /// Takes the decisions about its worker. A signal does not belong to a report.
    pub(super) fn takes(&mut self, decisions: &mut Vec<Decision>, word: &DraftEvent<'_>) {
        let is_report = self.weight.max(Weight::of(word.outcome)) == Weight::Report;
        let is_its = |it: &mut Decision| !is_report || it.what != SIGNALLED;
        self.incident.decisions.extend(decisions.extract_if(.., is_its));
    }

    /// Records the time of an event and its incident id.
    pub(super) fn note_event(&mut self, word: &DraftEvent<'_>) {
        self.last_word = word.at;
        self.incident.id.extend(word.incident.filter(|_| self.incident.id.is_empty()).cloned());
    }

    /// Adds a timer unless it is already there.
    pub(super) fn adds(&mut self, timer: Timer) {
        let Incident { timers, timers_left_out, .. } = &mut self.incident;
        let id = |it: &Timer| (it.lane, it.timer, it.acquired.monotonic_ns);
        match timers.iter().position(|known| id(known) == id(&timer)) {
            Some(place) => timers[place] = timer,
            None if timers.len() < TIMERS_AT_MOST => timers.push(timer),
            None => *timers_left_out += 1,
        }
    }

    /// Records the outcome if it ranks higher than the known one. (If several timers expired, the first has the
    /// earliest deadline.)
    pub(super) fn ends(&mut self, outcome: ExpiryOutcome, ending: impl FnOnce() -> Ending) {
        let weight = Weight::of(outcome);
        if self.incident.ending.is_none() || weight > self.weight {
            (self.incident.ending, self.weight) = (Some(ending()), weight);
        }
    }
}
