//! `hangwatch dump`: why processes hang now, of processes that nobody prepared.
//!
//! `targets` finds the processes that are meant. [`take`] looks at them: first who waits for whom
//! ([`waits`]), then the stacks of those that the verdict names, of those asked about and of
//! whoever is in between, each by a helper as for an incident. Nobody is signalled, and nobody is stopped
//! for longer than its stacks take to copy.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use hangwatch_incident::schema::{Descendant, Dump, Evidence, Process, Worker};
use hangwatch_wait_graph::WaitGraph;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::capture::MayStop;
use crate::exec::witness::{self, Held};
use crate::options::{EvidenceOptions, Level};
use crate::piece::Gathered;
use crate::waits;

pub mod targets;

/// Processes whose stacks are taken, at most.
const STACKS: usize = 32;
/// How long the look at the waits may take.
const WAITS: Duration = Duration::from_secs(5);
/// How long the stacks may take.
const BUDGET: Duration = Duration::from_secs(10);

/// Looks at processes.
pub fn take(program: PathBuf, asked: &[u32], more: &[u32], may_stop: MayStop) -> Dump {
    let mut missing = Vec::new();
    let graph = waits::helper::look(&program, asked, WAITS).unwrap_or_else(|why| {
        missing.push(format!("who waits for whom is not known: {why}"));
        WaitGraph::default()
    });
    missing.extend(graph.missing.iter().cloned());
    let mut pids = Vec::new();
    let known: BTreeSet<u32> = asked.iter().copied().collect();
    pids.extend_from_slice(asked);
    pids.extend(waits::on_the_way(&graph).into_iter().filter(|pid| !known.contains(pid)));
    pids.extend(more.iter().copied().filter(|pid| !pids.contains(pid)).collect::<Vec<_>>());
    let left_out = pids.len().saturating_sub(STACKS) as u64;
    pids.truncate(STACKS);
    let processes = stacks(program, &pids, may_stop, &mut missing);
    let waits = waits::conclude(graph, processes.iter().map(|process| &process.evidence));
    Dump { waits, processes, left_out, missing }
}

/// The stacks of processes, by a helper each.
fn stacks(
    program: PathBuf,
    pids: &[u32],
    may_stop: MayStop,
    missing: &mut Vec<String>,
) -> Vec<Descendant> {
    let mut held = Vec::new();
    for &pid in pids {
        let raw = Pid::from_raw(pid.cast_signed());
        match raw.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(pidfd)) => held.push(Held { pid, pidfd, first_tid: None }),
            Some(Err(error)) => missing.push(format!("process {pid}: {error}")),
            None => {}
        }
    }
    let options = EvidenceOptions {
        level: Level::Full,
        budget: BUDGET,
        program: Some(program),
        ..EvidenceOptions::default()
    };
    let pids: Vec<u32> = held.iter().map(|held| held.pid).collect();
    let seen = witness::look(held, &options, may_stop);
    let told = |(pid, Gathered { evidence, worker, .. }): (u32, Gathered)| {
        let worker = Worker { pid: Some(pid), ..worker.unwrap_or_default() };
        // What a process has in its environment is nobody's business here.
        let process = evidence.process.map(|it| Process { environment: Vec::new(), ..it });
        Descendant { worker, evidence: Evidence { process, ..evidence } }
    };
    pids.into_iter().zip(seen).map(told).collect()
}
