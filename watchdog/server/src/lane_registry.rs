//! The lane registry: which verified process owns which lane, for threads other than the tick.
//!
//! The attestor updates it, the evidence collector reads it. It contains no process known to be dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;

use rustix::process::Pid;

use super::worker::Admitted;

/// The owners of lanes, as the kernel verifies them. Clones share one registry.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneRegistry(Arc<Mutex<Slots>>);

/// By lane: the owner word that was verified, and the process.
type Slots = BTreeMap<u32, (OwnerWord, Arc<Admitted>)>;

impl LaneRegistry {
    pub(super) fn assign(&self, lane: u32, owner: OwnerWord, worker: Arc<Admitted>) {
        self.change(|slots| slots.insert(lane, (owner, worker)));
    }

    pub(super) fn clear(&self, lane: u32) {
        self.change(|slots| slots.remove(&lane));
    }

    pub(super) fn remove(&self, id: WorkerId) {
        self.change(|slots| slots.retain(|_, (_, worker)| worker.id != id));
    }

    /// Returns the owners of lanes whose owner word has not changed since.
    pub(super) fn owners(
        &self,
        owner_of: impl Fn(u32) -> OwnerWord,
    ) -> BTreeMap<u32, Arc<Admitted>> {
        self.change(|slots| {
            let still = slots.iter().filter(|(lane, (owner, _))| owner_of(**lane) == *owner);
            still.map(|(lane, (_, worker))| (*lane, Arc::clone(worker))).collect()
        })
    }

    /// The pid of everyone who sits in a lane, whatever the lane says by now.
    pub(super) fn workers(&self) -> Vec<(u32, Pid)> {
        self.change(|slots| {
            slots.iter().map(|(lane, (_, worker))| (*lane, worker.process.pid)).collect()
        })
    }

    fn change<T>(&self, how: impl FnOnce(&mut Slots) -> T) -> T {
        // Each change is atomic, so a poisoned lock holds a consistent map.
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
