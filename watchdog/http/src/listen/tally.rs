//! The tally: counts the events of this watchdog for `/metrics`.
//!
//! The counters in the segment outlive a watchdog; these counts (by job, rank, scope and outcome) start with
//! it. Events are counted on the event log's thread, never on the tick's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hangwatch_server::ServerEvent;
use hangwatch_server::events::{TimerFacts, What, hold_name};
use hangwatch_text::plain;

/// The maximum number of label sets with counts of their own. All others are counted under [`OTHER`].
pub(super) const MAX_LABEL_SETS: usize = 256;
/// The scope of label sets without counts of their own.
pub(super) const OTHER: &str = "(other)";

/// The labels of a count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    pub(super) job: String,
    /// Empty if there is none.
    pub(super) rank: String,
    pub(super) scope: String,
}

impl Labels {
    /// Creates them with texts that are safe to print. Texts that are then equal share a series.
    pub(super) fn new(job: &str, rank: Option<u64>, scope: &str) -> Labels {
        let rank = rank.map(|rank| rank.to_string()).unwrap_or_default();
        Labels { job: plain(job).into_owned(), rank, scope: plain(scope).into_owned() }
    }

    pub(super) fn other() -> Labels {
        Labels::new("", None, OTHER)
    }

    fn of(timer: &TimerFacts) -> Labels {
        Labels::new(&timer.owner.job, timer.owner.rank, &timer.scope)
    }
}

/// The label sets with counts of their own: the first ones that occurred.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelSets(std::collections::BTreeSet<Labels>);

impl LabelSets {
    /// Returns the label set itself, or that of all others if there is no more room.
    pub(super) fn admit(&mut self, labels: Labels) -> Labels {
        if self.0.contains(&labels) {
            return labels;
        }
        if self.0.len() >= MAX_LABEL_SETS {
            return Labels::other();
        }
        self.0.insert(labels.clone());
        labels
    }
}

/// How often something occurred, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Times {
    pub(super) count: u64,
    /// Seconds since the epoch, by the wall clock. Only for display.
    pub(super) last_at_s: f64,
}

/// The counts of a watchdog's events.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    label_sets: LabelSets,
    /// By outcome.
    pub(super) expiries: BTreeMap<(&'static str, Labels), Times>,
    /// By what kept the worker from running.
    pub(super) held: BTreeMap<(&'static str, Labels), Times>,
    pub(super) warnings: u64,
    pub(super) stalled_ns: u64,
    pub(super) events_lost: u64,
}

/// Counts events, from any thread.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counts>);

impl Tally {
    /// Counts an event.
    pub fn note(&self, event: &ServerEvent) {
        let mut counts = self.counts();
        let counts = &mut *counts;
        let mut times = |of: &mut BTreeMap<_, Times>, name: &'static str, timer: &TimerFacts| {
            let times = of.entry((name, counts.label_sets.admit(Labels::of(timer)))).or_default();
            times.count += 1;
            times.last_at_s = seconds_since_the_epoch();
        };
        match &event.what {
            What::Expired(expiry) => {
                times(&mut counts.expiries, expiry.outcome.name(), &expiry.timer);
            }
            What::Held { timer, hold } => times(&mut counts.held, hold_name(*hold), timer),
            What::Warning(_) => counts.warnings += 1,
            What::Stalled { length_ns } => counts.stalled_ns += length_ns,
            What::Lost { events } => counts.events_lost += events,
            _ => {}
        }
    }

    /// Returns a copy of the counts.
    pub(super) fn snapshot(&self) -> Counts {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds_since_the_epoch() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_core::watchdog::reap::Hold;
    use hangwatch_core::wire::lane::TimerKind;
    use hangwatch_server::LaneFacts;

    fn held(rank: u64, scope: &str) -> ServerEvent {
        let timer = TimerFacts {
            lane: 0,
            timer: 0,
            worker: None,
            owner: LaneFacts { rank: Some(rank), ..LaneFacts::default() },
            scope: scope.to_owned(),
            kind: TimerKind::Guard,
            acquired_at_ns: 0,
            deadline_ns: 0,
        };
        ServerEvent {
            segment: "test",
            what: What::Held { timer: Box::new(timer), hold: Hold::Traced },
        }
    }

    #[test]
    fn flood_of_names_is_counted_under_one_label_set() {
        let tally = Tally::default();
        for name in 0..10_000u64 {
            tally.note(&held(name % 8, &format!("scope {name}")));
        }
        tally.note(&held(3, "scope 3"));
        let counts = tally.snapshot();
        assert_eq!(counts.held.len(), MAX_LABEL_SETS + 1);
        assert_eq!(counts.held.values().map(|times| times.count).sum::<u64>(), 10_001);
        let count = |labels| counts.held[&("traced", labels)].count;
        assert_eq!(count(Labels::new("", Some(3), "scope 3")), 2, "it existed before the flood");
        assert_eq!(count(Labels::other()), 10_000 - MAX_LABEL_SETS as u64);
    }
}
