//! Snapshots of the segment, shared by cases that are opened at about the same time.
//!
//! If a hundred workers expire together, a snapshot for each would read and keep a hundred times a hundred
//! lanes. So a snapshot is reused until it is older than [`FRESH_NS`] or does not contain a case's worker
//! with its timers. Only the first incident of a snapshot and those of suspects list all other workers; the
//! rest list [`LISTED`] and refer to the first.

use std::collections::HashMap;
use std::sync::Arc;

use hangwatch::Segment;
use hangwatch_core::wire::time::Nanos;

use super::{described, now};
use crate::case::Case;
use crate::lane_registry::LaneRegistry;
use hangwatch_evidence::picture::{self, Condemned, Picture, Seats, Seen};
use hangwatch_evidence::redact::Redactor;
use hangwatch_evidence::suspect;
use hangwatch_incident::schema::{Peer, Suspect, Timer};

/// How long a snapshot is reused, ns.
const FRESH_NS: u64 = 20_000_000;
/// Number of other workers in an incident that is not the first of its snapshot.
const LISTED: usize = 32;

/// Takes snapshots and keeps the last one.
pub(crate) struct Snapshots {
    segment: Segment,
    registry: LaneRegistry,
    redactor: Redactor,
    last: Option<Last>,
}

struct Last {
    picture: Picture,
    /// The id of its first incident, which lists all workers.
    first: Option<String>,
    /// The suspect it shows, by job, the first timer's timeout, and the scopes.
    suspects: HashMap<(String, u64, Vec<String>), Option<Suspect>>,
}

/// The other workers in an incident.
pub(crate) struct Listed {
    pub(crate) others: Vec<Arc<Peer>>,
    pub(crate) left_out: u64,
    /// The id of the incident that lists all.
    pub(crate) all_in: Option<String>,
}

impl Snapshots {
    pub(super) fn new(segment: Segment, registry: LaneRegistry, redactor: Redactor) -> Snapshots {
        Snapshots { segment, registry, redactor, last: None }
    }

    /// Returns a case's worker and the other workers, from a snapshot that is fresh enough.
    pub(crate) fn seen_by(&mut self, case: &Case) -> Seen {
        let lanes = case.timers.iter().map(|timer| timer.lane).collect();
        let condemned = Condemned { pid: case.worker.pid(), lanes };
        let segment = self.segment;
        let acquired = case.timers.iter().map(|timer| timer.detail.acquired_at).max();
        if let Some(last) = self.last.as_ref().filter(|last| is_fresh(&last.picture, acquired)) {
            let seen = last.picture.seen_by(&segment, &condemned);
            if !seen.own.is_empty() {
                return seen;
            }
        }
        self.take(case).seen_by(&segment, &condemned)
    }

    fn take(&mut self, case: &Case) -> &Picture {
        let words = self.segment.words();
        let owners = self.registry.owners(|lane| words.lane(lane).owner());
        let slots: Seats = owners.iter().map(|(&lane, worker)| (lane, described(worker))).collect();
        let picture = picture::take(&self.segment, &slots, case.clocks(), &self.redactor);
        let last = Last { picture, first: None, suspects: HashMap::new() };
        &self.last.insert(last).picture
    }

    /// Returns the worker that these timers of a job wait for, according to the last snapshot.
    pub(crate) fn suspect(&mut self, job: &str, timers: &[Timer]) -> Option<Suspect> {
        let Last { picture, suspects, .. } = self.last.as_mut()?;
        let scopes = timers.iter().map(|timer| timer.scope.clone()).collect();
        let allowance_ns = timers.first().map_or(u64::MAX, |timer| timer.allowance_ns);
        let known = suspects.entry((job.to_owned(), allowance_ns, scopes));
        known.or_insert_with(|| suspect::find(job, timers, &picture.peers)).clone()
    }

    /// Returns the other workers for the incident `id`.
    pub(crate) fn listed(
        &mut self,
        id: String,
        others: Vec<Arc<Peer>>,
        is_suspect: bool,
    ) -> Listed {
        match &mut self.last {
            Some(last) => listed(&mut last.first, id, others, is_suspect),
            None => Listed { others, left_out: 0, all_in: None },
        }
    }
}

/// Returns the other workers for an incident of a snapshot whose first one is `first`.
fn listed(
    first: &mut Option<String>,
    id: String,
    mut others: Vec<Arc<Peer>>,
    is_suspect: bool,
) -> Listed {
    let left_out = others.len().saturating_sub(LISTED);
    match first {
        Some(first) if left_out > 0 && !is_suspect => {
            others.truncate(LISTED);
            Listed { others, left_out: left_out as u64, all_in: Some(first.clone()) }
        }
        Some(_) => Listed { others, left_out: 0, all_in: None },
        None => {
            *first = Some(id);
            Listed { others, left_out: 0, all_in: None }
        }
    }
}

/// Whether a snapshot is young and contains what was acquired by then.
fn is_fresh(picture: &Picture, acquired: Option<Nanos>) -> bool {
    now().since(picture.at) <= FRESH_NS && acquired.is_none_or(|acquired| acquired <= picture.at)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;
    use hangwatch_incident::schema::{Lane, Worker};

    fn picture(workers: u32) -> Picture {
        let peer = |pid: u32| {
            let timer = Timer { scope: "all_reduce".to_owned(), ..Timer::default() };
            let lane = Lane { lane: pid, timers: vec![timer], ..Lane::default() };
            let worker = Worker { pid: Some(pid), ..Worker::default() };
            Arc::new(Peer { worker, lanes: vec![lane], ..Peer::default() })
        };
        Picture { at: Nanos(0), peers: (0..workers).map(peer).collect() }
    }

    #[test]
    fn incidents_of_one_moment_grow_linearly_with_the_workers() {
        for workers in [16, 64, 256] {
            let picture = picture(workers);
            let mut first = None;
            let (mut kept, mut distinct, mut written_bytes) = (0, HashSet::new(), 0);
            let mut all = Vec::new();
            for pid in 0..workers {
                let condemned = Condemned { pid, lanes: BTreeSet::from([pid]) };
                let Seen { own, others } = picture.split(&condemned);
                assert_eq!((own.len(), others.len()), (1, workers as usize - 1));
                all.push(listed(&mut first, format!("id-{pid}"), others, pid == 7));
            }
            for listed in &all {
                kept += listed.others.len();
                distinct.extend(listed.others.iter().map(Arc::as_ptr));
                written_bytes += serde_json::to_vec(&listed.others).unwrap().len();
            }
            let most = workers as usize * (LISTED + 2);
            assert!(kept <= most, "{workers} workers: {kept} references");
            assert!(distinct.len() <= workers as usize, "no worker is copied");
            println!("{workers} workers: {kept} references, {written_bytes} bytes written");
            assert!(written_bytes <= most * 600, "{workers} workers: {written_bytes} bytes");
            let others = workers as usize - 1;
            assert_eq!((all[0].others.len(), all[7].others.len()), (others, others));
            let last = all.last().unwrap();
            assert_eq!(last.others.len() + last.left_out as usize, others);
            let all_in = (last.left_out > 0).then_some("id-0");
            assert_eq!(last.all_in.as_deref(), all_in);
        }
    }
}
