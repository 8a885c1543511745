//! The seating: who sits in which lane, for those who want to know and are not the tick.
//!
//! The clerk keeps it; the witness looks at it. It holds nobody who is known to be dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;

use super::worker::Admitted;

/// Who sits where, by the kernel's word.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneRegistry(Arc<Mutex<Slots>>);

/// By lane: the owner word it was given for, and to whom.
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

    /// Everyone who sits in a lane that has still the owner it was given for.
    pub(super) fn owners(
        &self,
        owner_of: impl Fn(u32) -> OwnerWord,
    ) -> BTreeMap<u32, Arc<Admitted>> {
        self.change(|slots| {
            let still = slots.iter().filter(|(lane, (owner, _))| owner_of(**lane) == *owner);
            still.map(|(lane, (_, worker))| (*lane, Arc::clone(worker))).collect()
        })
    }

    fn change<T>(&self, how: impl FnOnce(&mut Slots) -> T) -> T {
        // Each change is whole: one that panicked has left it as it was.
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
