//! The picture: what the segment says about every worker at one moment.
//!
//! It reads shared memory and nothing else, so it is there at once, whatever the workers are about.
//! All of it is the workers' claims but the pids, which the kernel vouched for ([`Seats`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hangwatch::{LaneView, Nanos, Segment, TimerView};
use hangwatch_core::shared::stall::Stalls;
use hangwatch_core::wire::timer::TimerState;

use crate::claims;
use crate::redact::Redactor;
use hangwatch_incident::moment::Clocks;
use hangwatch_incident::schema::{Lane, Peer, Timer, Worker};

/// Records of one of the condemned worker's lanes at most.
const RECORDS: usize = 1024;
/// Records of all other workers' lanes at most.
const ALL_PEER_RECORDS: usize = 2048;

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

/// Every worker of a segment at one moment. Incidents of that moment share it: however many workers
/// expire at once, each lane is read and kept once.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When it was taken.
    pub at: Nanos,
    /// Every worker with a lane, in the order of their first lanes.
    pub peers: Vec<Arc<Peer>>,
}

/// A picture as one incident refers to it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The condemned worker's lanes, with their records in full.
    pub own: Vec<Lane>,
    /// Every other worker.
    pub others: Vec<Arc<Peer>>,
}

/// How timers are told.
struct Teller<'s> {
    at: Nanos,
    clocks: Clocks,
    stalls: Stalls,
    segment: &'s Segment,
}

/// Takes a picture, with some records of each worker.
pub fn take(segment: &Segment, seats: &Seats, clocks: Clocks, redactor: &Redactor) -> Picture {
    let observation = segment.picture();
    let at = observation.at;
    let teller = Teller { at, clocks, stalls: segment.words().stalls(at), segment };
    let others = observation.lanes.len().max(1);
    let records = (ALL_PEER_RECORDS / others).max(1);
    let mut peers: Vec<Peer> = Vec::new();
    let mut places: HashMap<Key, usize> = HashMap::new();
    for view in &observation.lanes {
        let seated = seats.get(&view.lane);
        let lane = teller.lane(view, records);
        // Lanes nobody vouched for belong together where they claim the same process.
        let key = (seated.map(|seated| seated.pid), seated.map_or(view.pid, |_| 0));
        let place = *places.entry(key).or_insert_with(|| {
            let worker = worker(view, seated, redactor);
            peers.push(Peer { worker, ..Peer::default() });
            peers.len() - 1
        });
        peers[place].lanes.push(lane);
    }
    let told = |peer: Peer| Arc::new(Peer { doing: doing(&peer.lanes), ..peer });
    Picture { at, peers: peers.into_iter().map(told).collect() }
}

impl Picture {
    /// The picture as the incident of one worker refers to it. Its own records are read anew.
    pub fn seen_by(&self, segment: &Segment, condemned: &Condemned) -> Seen {
        let Seen { own, others } = self.split(condemned);
        Seen { own: in_full(segment, own), others }
    }

    /// The condemned worker's lanes, copied, and the others, shared.
    pub fn split(&self, condemned: &Condemned) -> Seen {
        // Dead by now, it sits nowhere any more; its lanes are its own all the same.
        let is_its = |lane: &Lane| condemned.lanes.contains(&lane.lane);
        let (mut own, mut others) = (Vec::new(), Vec::with_capacity(self.peers.len()));
        for peer in &self.peers {
            if peer.worker.pid == Some(condemned.pid) {
                own.extend_from_slice(&peer.lanes);
            } else if peer.worker.pid.is_none() && peer.lanes.iter().any(is_its) {
                let (its, left): (Vec<Lane>, Vec<Lane>) =
                    peer.lanes.iter().cloned().partition(is_its);
                own.extend(its);
                if !left.is_empty() {
                    let doing = doing(&left);
                    let worker = peer.worker.clone();
                    others.push(Arc::new(Peer { worker, doing, lanes: left }));
                }
            } else {
                others.push(Arc::clone(peer));
            }
        }
        Seen { own, others }
    }
}

/// The lanes with as many records as are kept of a condemned worker.
pub fn in_full(segment: &Segment, mut lanes: Vec<Lane>) -> Vec<Lane> {
    for lane in &mut lanes {
        let written = lane.records_lost + lane.records.len() as u64;
        let records = segment.recent_records(lane.lane, RECORDS);
        lane.records_lost = written.saturating_sub(records.len() as u64);
        lane.records = records.into_iter().map(claims::record).collect();
    }
    lanes
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
        let due = self.stalls.credited(acquired_at, acquired_at.plus(ns(view.timeout)));
        Timer {
            lane,
            timer: view.timer,
            scope: view.scope.clone(),
            task: view.task,
            kind: view.kind.name().to_owned(),
            state: view.state.name().to_owned(),
            acquired: self.clocks.moment(acquired_at),
            deadline: (view.state != TimerState::Paused).then(|| self.clocks.moment(due)),
            age_ns: ns(view.age),
            allowance_ns: ns(view.timeout),
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
