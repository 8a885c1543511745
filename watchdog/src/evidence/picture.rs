//! The picture: what the segment says about every worker at one moment.
//!
//! It reads shared memory and nothing else, so it is there at once, whatever the workers are about.
//! All of it is the workers' claims but the pids, which the kernel vouched for ([`Seats`]).

use std::collections::{BTreeMap, BTreeSet};

use hangwatch::{LaneView, Nanos, Segment, TimerView};
use hangwatch_core::stall::Stalls;
use hangwatch_core::timer::TimerState;

use super::redact::Redactor;
use crate::incident::claims;
use crate::incident::moment::Clocks;
use crate::incident::schema::{Lane, Peer, Timer, Worker};
use crate::state::{kind_name, state_name};

/// Records of one of the condemned worker's lanes at most.
const RECORDS: usize = 1024;
/// Records of all other workers' lanes at most.
const ALL_PEER_RECORDS: usize = 2048;
/// Other workers listed at most.
const PEERS: usize = 1024;

/// Who sits in a lane, by the kernel's word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seated {
    /// The process, as the watchdog sees it.
    pub pid: u32,
    /// The name of its first thread; empty where it is not known yet.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// Who sits in which lane, for those lanes that the kernel vouched for.
pub type Seats = BTreeMap<u32, Seated>;

/// The condemned worker: its process, and those of its lanes that had expired.
#[derive(Clone, Debug)]
pub struct Condemned {
    /// The process, as the watchdog sees it.
    pub pid: u32,
    /// Lanes that are its, whoever sits there by now.
    pub lanes: BTreeSet<u32>,
}

impl Condemned {
    /// Whether this is the worker.
    pub fn is(&self, peer: &Peer) -> bool {
        peer.worker.pid == Some(self.pid)
    }
}

/// Every worker of a segment at one moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When it was taken.
    pub at: Nanos,
    /// Every worker with a lane, in the order of their first lanes.
    pub peers: Vec<Peer>,
}

/// How timers are told.
struct Teller<'s> {
    at: Nanos,
    clocks: Clocks,
    stalls: Stalls,
    segment: &'s Segment,
}

/// Takes a picture. Of the process `condemned`, the records are told in full; of the others, fewer.
pub fn take(
    segment: &Segment,
    seats: &Seats,
    condemned: &Condemned,
    clocks: Clocks,
    redactor: &Redactor,
) -> Picture {
    let observation = segment.picture();
    let at = observation.at;
    let teller = Teller { at, clocks, stalls: segment.words().stalls(at), segment };
    let others = observation.lanes.len().max(1);
    let peer_records = (ALL_PEER_RECORDS / others).max(1);
    let mut peers: Vec<(Key, Peer)> = Vec::new();
    for view in &observation.lanes {
        // Dead by now, it sits nowhere any more.
        let is_its = condemned.lanes.contains(&view.lane);
        let itself = is_its.then(|| Seated { pid: condemned.pid, ..Seated::default() });
        let seated = seats.get(&view.lane).or(itself.as_ref());
        let is_condemned = seated.is_some_and(|seated| seated.pid == condemned.pid);
        let lane = teller.lane(view, if is_condemned { RECORDS } else { peer_records });
        // Lanes nobody vouched for belong together where they claim the same process.
        let key = (seated.map(|seated| seated.pid), seated.map_or(view.pid, |_| 0));
        if let Some(place) = peers.iter().position(|(other, _)| *other == key) {
            peers[place].1.lanes.push(lane);
        } else if peers.len() < PEERS || is_condemned {
            let worker = worker(view, seated, redactor);
            peers.push((key, Peer { worker, lanes: vec![lane], ..Peer::default() }));
        }
    }
    let peers = peers.into_iter().map(|(_, peer)| Peer { doing: doing(&peer.lanes), ..peer });
    Picture { at, peers: peers.collect() }
}

/// What tells two workers apart: the pid the kernel vouched for, else the one that is claimed.
type Key = (Option<u32>, u32);

fn worker(view: &LaneView, seated: Option<&Seated>, redactor: &Redactor) -> Worker {
    let seated = seated.cloned();
    Worker {
        pid: seated.as_ref().map(|seated| seated.pid),
        name: seated.as_ref().map(|seated| seated.name.clone()).unwrap_or_default(),
        command: seated.map(|it| redactor.arguments(&it.arguments)).unwrap_or_default(),
        ..claims::worker(view)
    }
}

impl Teller<'_> {
    fn lane(&self, view: &LaneView, most: usize) -> Lane {
        let records = self.segment.recent_records(view.lane, most);
        Lane {
            lane: view.lane,
            tid: view.tid.into(),
            thread: view.thread.clone(),
            timers: view.timers.iter().map(|timer| self.timer(view.lane, timer)).collect(),
            records_lost: view.records.saturating_sub(records.len() as u64),
            records: records.into_iter().map(claims::record).collect(),
        }
    }

    fn timer(&self, lane: u32, view: &TimerView) -> Timer {
        let ns = |duration: std::time::Duration| duration.as_nanos() as u64;
        let acquired_at = Nanos(self.at.0.saturating_sub(ns(view.age)));
        let due = self.stalls.credited(acquired_at, acquired_at.plus(ns(view.allowance)));
        Timer {
            lane,
            timer: view.timer,
            scope: view.scope.clone(),
            kind: kind_name(view.kind).to_owned(),
            state: state_name(view.state).to_owned(),
            acquired: self.clocks.moment(acquired_at),
            deadline: (view.state != TimerState::Paused).then(|| self.clocks.moment(due)),
            age_ns: ns(view.age),
            allowance_ns: ns(view.allowance),
        }
    }
}

/// What a worker is doing, in one line: its innermost scopes, a thread each.
fn doing(lanes: &[Lane]) -> String {
    let of_lane = |lane: &Lane| {
        let timer = lane.timers.first()?;
        let seconds = timer.age_ns / 1_000_000_000;
        let age = if seconds == 0 {
            format!("{} ms", timer.age_ns / 1_000_000)
        } else {
            format!("{seconds} s")
        };
        Some(format!("in {:?} for {age}", timer.scope))
    };
    let all: Vec<String> = lanes.iter().filter_map(of_lane).collect();
    if all.is_empty() { "in no scope".to_owned() } else { all.join("; ") }
}
