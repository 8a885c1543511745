//! Episodes: which stored incidents belong together, and which are removed first.
//!
//! One hang can expire hundreds of deadlines. Those incidents are one *episode*: they are of one segment on one
//! host, and each worker was already waiting when the previous one expired, or expired within `GAP` of it. The
//! *roots* of an episode are the incident with the earliest deadline and those of its suspects. All others are
//! *victims*. Victims are removed first: those of the oldest episode first, and within it the latest first. Roots
//! are removed only when no victim is left, the oldest first.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use crate::schema::{Suspect, Timer, Worker};
use crate::store::time_of_id;

/// How long after one expiry another still belongs to the same episode, though nobody waited.
const GAP: Duration = Duration::from_secs(10);
/// How long before its expiry a worker is taken to have waited at most: outer scopes last for days.
const WAIT: Duration = Duration::from_mins(10);
/// How long an episode lasts at most: what keeps expiring for longer has a root again.
const LENGTH: Duration = Duration::from_hours(1);

/// What is known of a kept incident.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Its name.
    pub(super) id: String,
    /// What its files take.
    pub(super) bytes: u64,
    /// Its place in an episode.
    pub(super) part: Part,
}

/// What says to which episode an incident belongs, and as what.
#[derive(Clone, Debug)]
pub(super) struct Part {
    host: String,
    segment: String,
    pid: Option<u32>,
    suspect: Option<u32>,
    /// From when it waited, when it was condemned, and its earliest deadline.
    from: SystemTime,
    at: SystemTime,
    deadline: SystemTime,
}

/// What is read of an incident's file for its part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    pub(super) host: String,
    pub(super) segment: String,
    pub(super) worker: Worker,
    pub(super) timers: Vec<Timer>,
    pub(super) suspect: Option<Suspect>,
}

impl Part {
    /// Of an incident, by its name and what its file says.
    pub(super) fn new(id: &str, facts: Facts) -> Part {
        let at = time_of_id(id).unwrap_or(SystemTime::UNIX_EPOCH);
        let ago = |ns: u64, most: Duration| {
            at.checked_sub(Duration::from_nanos(ns).min(most)).unwrap_or(at)
        };
        let age_ns = facts.timers.iter().map(|timer| timer.age_ns).max().unwrap_or(0);
        // By durations, not by either clock: an incident of before a reboot is there, too.
        let deadlines = facts.timers.iter().map(|timer| {
            let late_ns = timer.age_ns.saturating_sub(timer.allowance_ns);
            let early = Duration::from_nanos(timer.allowance_ns.saturating_sub(timer.age_ns));
            ago(late_ns, Duration::MAX).checked_add(early).unwrap_or(at)
        });
        Part {
            deadline: deadlines.min().unwrap_or(at),
            from: ago(age_ns, WAIT),
            at,
            host: facts.host,
            segment: facts.segment,
            pid: facts.worker.pid,
            suspect: facts.suspect.and_then(|suspect| suspect.pid),
        }
    }

    fn is_with(&self, other: &Part) -> bool {
        self.segment == other.segment && self.host == other.host
    }
}

/// The order in which incidents are to be removed: the first first.
pub(super) fn least_worth_first(mut kept: Vec<Kept>) -> Vec<Kept> {
    kept.sort_by(|a, b| (a.part.at, &a.id).cmp(&(b.part.at, &b.id)));
    let mut episodes: Vec<Episode> = Vec::new();
    for incident in kept {
        let open = episodes.iter_mut().rev().find(|it| it.first().part.is_with(&incident.part));
        match open.filter(|episode| episode.takes(&incident.part)) {
            Some(episode) => episode.incidents.push(incident),
            None => episodes.push(Episode { incidents: vec![incident] }),
        }
    }
    let (mut victims, mut roots) = (Vec::new(), Vec::new());
    for episode in episodes {
        let (of_it, others) = episode.split();
        roots.extend(of_it);
        victims.extend(others.into_iter().rev()); // the latest first
    }
    victims.into_iter().chain(roots).collect()
}

/// Incidents that belong together, in the order of their expiry; at least one.
struct Episode {
    incidents: Vec<Kept>,
}

impl Episode {
    fn first(&self) -> &Kept {
        &self.incidents[0]
    }

    /// Whether an incident that comes later belongs to it.
    fn takes(&self, part: &Part) -> bool {
        let last = self.incidents.last().unwrap_or_else(|| self.first()).part.at;
        let is_near = part.from <= last || part.at <= last + GAP;
        is_near && part.at <= self.first().part.at + LENGTH
    }

    /// Its roots, and the others.
    fn split(self) -> (Vec<Kept>, Vec<Kept>) {
        let parts = || self.incidents.iter().map(|kept| &kept.part);
        let suspects: BTreeSet<u32> = parts().filter_map(|part| part.suspect).collect();
        let earliest = parts().map(|part| part.deadline).min();
        let earliest = parts().position(|part| Some(part.deadline) == earliest);
        let is_root = |place: usize, kept: &Kept| {
            Some(place) == earliest || kept.part.pid.is_some_and(|pid| suspects.contains(&pid))
        };
        let numbered = self.incidents.iter().cloned().enumerate();
        let (roots, victims): (Vec<_>, Vec<_>) =
            numbered.partition(|(place, kept)| is_root(*place, kept));
        let unnumbered = |all: Vec<(usize, Kept)>| all.into_iter().map(|(_, kept)| kept).collect();
        (unnumbered(roots), unnumbered(victims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An incident at so many seconds past an hour, which had waited so long.
    fn kept(second: u32, waited_s: u64, pid: u32, suspect: Option<u32>) -> Kept {
        let id = format!("20261123T15{:02}{:02}.000000Z-train-{pid}", second / 60, second % 60);
        let timer = Timer { age_ns: waited_s * 1_000_000_000, ..Timer::default() };
        let facts = Facts {
            worker: Worker { pid: Some(pid), ..Worker::default() },
            timers: vec![Timer { allowance_ns: timer.age_ns, ..timer }],
            suspect: suspect.map(|pid| Suspect { pid: Some(pid), ..Suspect::default() }),
            ..Facts::default()
        };
        Kept { part: Part::new(&id, facts), id, bytes: 1 }
    }

    fn check(kept: Vec<Kept>, order: &[u32]) {
        let order_of = |kept: Kept| kept.part.pid.unwrap();
        let got: Vec<u32> = least_worth_first(kept).into_iter().map(order_of).collect();
        assert_eq!(got, order);
    }

    #[test]
    fn the_latest_victims_go_first_and_the_root_goes_last() {
        // Long ago, alone; then one that hung, and three that waited for it.
        let storm = vec![
            kept(0, 5, 1, None),
            kept(1000, 30, 2, None),
            kept(1015, 20, 3, None),
            kept(1030, 40, 4, None),
            kept(1031, 1, 5, None),
        ];
        check(storm, &[5, 4, 3, 1, 2]);
    }

    #[test]
    fn whom_a_victim_names_as_suspect_is_a_root() {
        let named = vec![kept(0, 5, 1, Some(3)), kept(1, 5, 2, None), kept(9, 5, 3, None)];
        check(named, &[2, 1, 3]);
    }

    #[test]
    fn another_segment_is_another_episode() {
        let mut other = kept(1, 5, 2, None);
        other.part.segment = "other".to_owned();
        check(vec![kept(0, 5, 1, None), other, kept(2, 5, 3, None)], &[3, 1, 2]);
    }

    #[test]
    fn what_goes_on_for_hours_has_a_root_each_hour() {
        let long: Vec<Kept> = (0..300).map(|n| kept(n * 10, 5, n, None)).collect();
        let order = least_worth_first(long);
        assert_eq!(order.last().unwrap().part.pid, Some(0));
        assert_eq!(order[0].part.pid, Some(299), "within the hour there is one root");
    }
}
