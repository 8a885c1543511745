//! The view over a fleet: what each worker waits for, oldest first, and the culprit of each job.
//!
//! The culprit of a job, by the rule of [`hangwatch_core::watchdog::culprit`]: all other ranks have waited for a
//! while in one scope, which is the innermost one of one of their lanes, and this rank is not in it. A rank
//! that no target reports is in no scope.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use hangwatch_core::watchdog::culprit::{self, Wait, find_culprit};
use serde::Serialize;

use super::answer::{Answer, Lane, Segment, State, TargetError};
use super::targets::{PORT, Place, Target};
use hangwatch_text::plain;

/// How long the others must have waited, ns. For a shorter time, some rank is always the last to arrive.
pub const WAITED_NS: u64 = 1_000_000_000;
/// The largest world size whose missing ranks are searched, because it is a worker's claim.
const MOST_RANKS: u32 = 1 << 20;

/// The answers of all targets, side by side.
#[derive(Debug, Serialize)]
pub struct Fleet {
    /// The targets, in the given order.
    pub targets: Vec<TargetRow>,
    /// The workers, oldest first; those without an armed timer last.
    pub workers: Vec<WorkerRow>,
    /// The jobs with ranks that no target reports.
    pub missing: Vec<Missing>,
    /// The culprits, at most one for each job.
    pub odd: Vec<Culprit>,
}

/// One target.
#[derive(Debug, Serialize)]
pub struct TargetRow {
    /// The target as it was given.
    pub target: String,
    /// `ok`, `down`, `slow`, `malformed` or `other_version`.
    pub status: &'static str,
    /// Why the status is not `ok`, or why the watchdog is unhealthy or signals nothing.
    pub reason: Option<String>,
    /// Its host's name.
    pub host: Option<String>,
    /// Whether its watchdog is healthy.
    pub healthy: Option<bool>,
}

/// One worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerRow {
    /// The host name in the worker's namespace, or the watchdog's.
    pub host: String,
    /// The target that reports it.
    pub target: String,
    /// The segment.
    pub segment: String,
    /// The job; empty if there is none.
    pub job: String,
    /// The rank.
    pub rank: Option<u32>,
    /// The number of ranks; 0 if unknown.
    pub world_size: u32,
    /// The pid on its host.
    pub pid: u32,
    /// Its command.
    pub command: Option<String>,
    /// The scopes it is in, innermost first, without repetition.
    pub scopes: Vec<String>,
    /// The state of the innermost timer, or `quarantined`.
    pub state: Option<String>,
    /// How long it has been in the innermost scope.
    pub age_ns: Option<u64>,
    /// The time left in that scope; negative when overdue.
    pub left_ns: Option<i64>,
    /// Whether it is the culprit of its job.
    pub odd: bool,
}

/// The ranks of a job that no target reports.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The job.
    pub job: String,
    /// The expected number of ranks.
    pub world_size: u32,
    /// The missing ranks, at most a thousand.
    pub ranks: Vec<u32>,
    /// The number of missing ranks.
    pub count: usize,
}

/// The culprit of a job.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Culprit {
    /// The job.
    pub job: String,
    /// The rank that is not where the others are.
    pub rank: u32,
    /// Its host; `None` if no target reports it.
    pub host: Option<String>,
    /// The scope in which all other ranks wait.
    pub scope: String,
    /// The number of other ranks.
    pub others: usize,
    /// How long the last of them has been in the scope.
    pub waited_ns: u64,
}

impl Fleet {
    /// Compares the answers of the targets.
    pub fn of(targets: &[Target], answers: &[Answer]) -> Fleet {
        let mut workers = Vec::new();
        let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
        for (target, answer) in targets.iter().zip(answers) {
            let Ok(state) = answer else { continue };
            for segment in &state.segments {
                workers.extend(workers_of(target, state, segment));
                segment.lanes.iter().for_each(|lane| join(&mut jobs, state, lane));
            }
        }
        let odd: Vec<Culprit> = jobs.iter().filter_map(|(name, job)| job.odd_one(name)).collect();
        for worker in &mut workers {
            worker.odd =
                odd.iter().any(|odd| odd.job == worker.job && worker.rank == Some(odd.rank));
        }
        workers.sort_by_key(|worker| {
            (Reverse(worker.age_ns), worker.job.clone(), worker.rank, worker.host.clone())
        });
        Fleet {
            targets: targets.iter().zip(answers).map(target_row).collect(),
            workers,
            missing: jobs.iter().filter_map(|(name, job)| job.missing(name)).collect(),
            odd,
        }
    }
}

fn target_row((target, answer): (&Target, &Answer)) -> TargetRow {
    let (status, reason) = match answer {
        Ok(state) => ("ok", watchdog_trouble(state)),
        Err(trouble @ TargetError::Down(why)) if target.lacks_port() => {
            let told = format!("{} (port {PORT}, because the target names none)", plain(why));
            (trouble.name(), Some(told))
        }
        Err(trouble) => (trouble.name(), Some(told(trouble))),
    };
    let state = answer.as_ref().ok();
    TargetRow {
        target: plain(&target.name).into_owned(),
        status,
        reason,
        host: state.map(|state| state.host.clone()),
        healthy: state.map(|state| state.healthy),
    }
}

fn told(trouble: &TargetError) -> String {
    match trouble {
        TargetError::Down(why) | TargetError::Slow(why) | TargetError::Malformed(why) => {
            plain(why).into_owned()
        }
        TargetError::OtherVersion(_) => trouble.to_string(),
    }
}

/// Returns what is wrong with a watchdog that answers.
fn watchdog_trouble(state: &State) -> Option<String> {
    if !state.healthy {
        return Some(state.reason.clone().unwrap_or_else(|| "unhealthy".to_owned()));
    }
    let braked = state.segments.iter().find(|segment| segment.braked)?;
    Some(format!("segment {}: too many kills, nothing is signalled", braked.segment))
}

/// Returns one row per process: that of the thread which has been in its innermost scope the longest.
fn workers_of(target: &Target, state: &State, segment: &Segment) -> Vec<WorkerRow> {
    let mut by_pid: BTreeMap<(u32, &str, Option<u32>), WorkerRow> = BTreeMap::new();
    for lane in &segment.lanes {
        let row = worker_row(target, state, segment, lane);
        let known = by_pid.entry((lane.pid, &lane.host, lane.rank)).or_insert_with(|| row.clone());
        let scopes: Vec<String> = known.scopes.iter().chain(&row.scopes).cloned().collect();
        if row.age_ns > known.age_ns {
            *known = row;
        }
        for scope in scopes {
            if !known.scopes.contains(&scope) {
                known.scopes.push(scope);
            }
        }
    }
    by_pid.into_values().collect()
}

fn worker_row(target: &Target, state: &State, segment: &Segment, lane: &Lane) -> WorkerRow {
    let innermost = lane.timers.first();
    let mut scopes: Vec<String> = Vec::new();
    for timer in &lane.timers {
        if !scopes.contains(&timer.scope) {
            scopes.push(timer.scope.clone());
        }
    }
    let state_name = match innermost {
        _ if lane.quarantined => Some("quarantined".to_owned()),
        timer => timer.map(|timer| timer.state.clone()),
    };
    WorkerRow {
        host: host_of(target, state, lane),
        target: plain(&target.name).into_owned(),
        segment: segment.segment.clone(),
        job: lane.job.clone(),
        rank: lane.rank,
        world_size: lane.world_size,
        pid: lane.pid,
        command: lane.command.clone(),
        scopes,
        state: state_name,
        age_ns: innermost.map(|timer| timer.age_ns),
        left_ns: innermost.and_then(|timer| timer.left_ns),
        odd: false,
    }
}

fn host_of(target: &Target, state: &State, lane: &Lane) -> String {
    let named = [&lane.host, &state.host].into_iter().find(|host| !host.is_empty());
    named.cloned().unwrap_or_else(|| match &target.place {
        Place::Tcp(host, _) => host.clone(),
        Place::Unix(path) => path.display().to_string(),
    })
}

/// The ranks of one job.
#[derive(Default)]
struct Job {
    world_size: u32,
    ranks: BTreeMap<u32, Rank>,
}

#[derive(Default)]
struct Rank {
    host: String,
    /// The scopes its lanes are in, and for how long.
    scopes: BTreeMap<String, u64>,
    /// Those of them that are innermost in a lane, for at least [`WAITED_NS`].
    waits_in: BTreeSet<String>,
}

impl Rank {
    fn place(&self, scope: &str) -> culprit::Place {
        match (self.scopes.contains_key(scope), self.waits_in.contains(scope)) {
            (false, _) => culprit::Place::Outside,
            (true, true) => culprit::Place::Inside(Wait::Long),
            (true, false) => culprit::Place::Inside(Wait::Short),
        }
    }
}

fn join(jobs: &mut BTreeMap<String, Job>, state: &State, lane: &Lane) {
    let Some(rank) = lane.rank else { return };
    let job = jobs.entry(lane.job.clone()).or_default();
    job.world_size = job.world_size.max(lane.world_size);
    let rank = job.ranks.entry(rank).or_default();
    if rank.host.is_empty() {
        rank.host = if lane.host.is_empty() { state.host.clone() } else { lane.host.clone() };
    }
    for timer in &lane.timers {
        let age_ns = rank.scopes.entry(timer.scope.clone()).or_default();
        *age_ns = timer.age_ns.max(*age_ns);
    }
    let innermost = lane.timers.first().filter(|timer| timer.age_ns >= WAITED_NS);
    rank.waits_in.extend(innermost.map(|timer| timer.scope.clone()));
}

impl Job {
    /// Returns the ranks of its world that no target reports.
    fn absent(&self) -> impl Iterator<Item = u32> + '_ {
        let world = self.world_size.min(MOST_RANKS);
        (0..world).filter(|rank| !self.ranks.contains_key(rank))
    }

    fn missing(&self, name: &str) -> Option<Missing> {
        let count = self.absent().count();
        (count > 0).then(|| Missing {
            job: name.to_owned(),
            world_size: self.world_size,
            ranks: self.absent().take(1_000).collect(),
            count,
        })
    }

    fn odd_one(&self, name: &str) -> Option<Culprit> {
        let absent: Vec<u32> = self.absent().take(2).collect();
        let scopes: BTreeSet<&String> =
            self.ranks.values().flat_map(|rank| rank.scopes.keys()).collect();
        let candidates = scopes.into_iter().filter_map(|scope| {
            let known = self.ranks.iter().map(|(rank, of)| (*rank, of.place(scope)));
            let all = known.chain(absent.iter().map(|rank| (*rank, culprit::Place::Outside)));
            let culprit::Culprit::One(rank) = find_culprit(all) else { return None };
            let waited = self.ranks.values().filter_map(|rank| rank.scopes.get(scope));
            Some((*waited.min()?, scope, rank))
        });
        // Of several scopes, the one they entered last.
        let (waited_ns, scope, rank) = candidates.min()?;
        let host = self.ranks.get(&rank).map(|rank| rank.host.clone());
        let others = self.ranks.len() - usize::from(host.is_some());
        Some(Culprit { job: name.to_owned(), rank, host, scope: scope.clone(), others, waited_ns })
    }
}

#[cfg(test)]
mod tests;
