//! Every admitted process that is not known to be dead, and the lanes it owns.
//!
//! For a process that runs exec, the credentials of its first admission are kept: exec changes the program,
//! perhaps to one with more rights, but not the process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_process::attest::Identity;
use hangwatch_process::pidfd::Pidfd;
use hangwatch_process::proc::start_time;
use rustix::process::Pid;

use super::super::lane_registry::LaneRegistry;
use super::super::proc_reader::VerifiedProcess;
use super::super::worker::{Admitted, Origin};

#[derive(Debug, Default)]
pub(super) struct Workers {
    /// The last id given. Ids are never reused.
    last: u64,
    by_id: HashMap<WorkerId, Arc<Admitted>>,
    by_identity: HashMap<Identity, WorkerId>,
    by_lane: HashMap<u32, (OwnerWord, WorkerId)>,
    /// The lane registry that other threads read.
    registry: LaneRegistry,
    /// The pid and first credentials of processes that have run exec.
    origins: HashMap<Identity, (Pid, Origin)>,
    /// The same processes, in the order in which they are checked.
    origins_in_turn: VecDeque<Identity>,
}

/// How many of them one round checks.
const ORIGINS_A_ROUND: usize = 16;

impl Workers {
    pub(super) fn new(registry: LaneRegistry) -> Workers {
        Workers { registry, ..Workers::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<Arc<Admitted>> {
        self.by_id.get(&id).cloned()
    }

    pub(super) fn find(&self, identity: Identity) -> Option<Arc<Admitted>> {
        self.get(*self.by_identity.get(&identity)?)
    }

    /// Adds a process with its current credentials, or those of its first admission.
    pub(super) fn add(&mut self, proved: VerifiedProcess) -> Arc<Admitted> {
        let VerifiedProcess { process, image, memory, origin: now } = proved;
        self.last += 1;
        let id = WorkerId(self.last);
        let origin = self.origins.get(&process.identity).map_or(now, |(_, first)| *first);
        self.by_identity.insert(process.identity, id);
        let (command, error_file) = (OnceLock::new(), OnceLock::new());
        let worker = Arc::new(Admitted { id, process, image, memory, origin, command, error_file });
        self.by_id.insert(id, Arc::clone(&worker));
        worker
    }

    /// Removes a worker that now runs another program, and keeps the credentials of its first admission.
    pub(super) fn remove_execd(&mut self, id: WorkerId) -> Option<Arc<Admitted>> {
        let worker = self.remove(id)?;
        let (identity, pid) = (worker.process.identity, worker.process.pid);
        if self.origins.insert(identity, (pid, worker.origin)).is_none() {
            self.origins_in_turn.push_back(identity);
        }
        Some(worker)
    }

    /// Removes the credentials of some processes that are dead.
    pub(super) fn forget_dead_origins(&mut self) {
        for _ in 0..ORIGINS_A_ROUND.min(self.origins_in_turn.len()) {
            let Some(identity) = self.origins_in_turn.pop_front() else { return };
            let is_dead =
                self.origins.get(&identity).is_some_and(|(pid, _)| is_dead(*pid, identity));
            if is_dead {
                self.origins.remove(&identity);
            } else {
                self.origins_in_turn.push_back(identity);
            }
        }
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Arc<Admitted>> {
        let worker = self.by_id.remove(&id)?;
        if self.by_identity.get(&worker.process.identity) == Some(&id) {
            self.by_identity.remove(&worker.process.identity);
        }
        self.by_lane.retain(|_, (_, owner)| *owner != id);
        self.registry.remove(id);
        Some(worker)
    }

    pub(super) fn assign(&mut self, lane: u32, owner: OwnerWord, id: WorkerId) {
        self.by_lane.insert(lane, (owner, id));
        if let Some(worker) = self.get(id) {
            self.registry.assign(lane, owner, worker);
        }
    }

    pub(super) fn clear(&mut self, lane: u32) {
        self.by_lane.remove(&lane);
        self.registry.clear(lane);
    }

    pub(super) fn owner_of(&self, lane: u32) -> Option<(OwnerWord, WorkerId)> {
        self.by_lane.get(&lane).copied()
    }
}

/// Whether the process is known to be dead. An error counts as unknown.
fn is_dead(pid: Pid, identity: Identity) -> bool {
    match (identity, Pidfd::open(pid)) {
        (_, Err(hangwatch_process::pidfd::OpenPidfdError::Gone { .. })) => true,
        (Identity::PidfdInode(inode), Ok(pidfd)) => pidfd.inode().is_some_and(|now| now != inode),
        (Identity::StartTime { ticks, .. }, Ok(_)) => {
            start_time(pid).is_ok_and(|now| now != Some(ticks))
        }
        (_, Err(_)) => false,
    }
}
