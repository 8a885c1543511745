//! The roster: every process that was admitted and has not been seen dead, and the lanes it has.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use hangwatch::sys::identity::{Identity, Process};
use hangwatch::sys::process::{Image, Users};
use hangwatch_core::expiry::WorkerId;
use hangwatch_core::lane::OwnerWord;

use super::super::facts::Admitted;
use super::super::seating::Seating;

#[derive(Debug, Default)]
pub(super) struct Roster {
    /// The last number given; never used twice.
    last: u64,
    by_id: HashMap<WorkerId, Arc<Admitted>>,
    by_identity: HashMap<Identity, WorkerId>,
    by_lane: HashMap<u32, (OwnerWord, WorkerId)>,
    /// The same, for others to look at.
    seating: Seating,
}

impl Roster {
    pub(super) fn new(seating: Seating) -> Roster {
        Roster { seating, ..Roster::default() }
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

    pub(super) fn add(
        &mut self,
        process: Process,
        image: Option<Image>,
        users: Option<Users>,
    ) -> Arc<Admitted> {
        self.last += 1;
        let id = WorkerId(self.last);
        self.by_identity.insert(process.identity, id);
        let (command, error_file) = (OnceLock::new(), OnceLock::new());
        let worker = Arc::new(Admitted { id, process, image, users, command, error_file });
        self.by_id.insert(id, Arc::clone(&worker));
        worker
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Arc<Admitted>> {
        let worker = self.by_id.remove(&id)?;
        if self.by_identity.get(&worker.process.identity) == Some(&id) {
            self.by_identity.remove(&worker.process.identity);
        }
        self.by_lane.retain(|_, (_, owner)| *owner != id);
        self.seating.remove(id);
        Some(worker)
    }

    pub(super) fn seat(&mut self, lane: u32, owner: OwnerWord, id: WorkerId) {
        self.by_lane.insert(lane, (owner, id));
        if let Some(worker) = self.get(id) {
            self.seating.seat(lane, owner, worker);
        }
    }

    pub(super) fn vacate(&mut self, lane: u32) {
        self.by_lane.remove(&lane);
        self.seating.vacate(lane);
    }

    pub(super) fn owner_of(&self, lane: u32) -> Option<(OwnerWord, WorkerId)> {
        self.by_lane.get(&lane).copied()
    }
}
