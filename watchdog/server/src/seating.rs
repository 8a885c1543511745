//! The seating: who sits in which lane, for those who want to know and are not the tick.
//!
//! The clerk keeps it; the witness looks at it. It holds nobody who is known to be dead.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::OwnerWord;

use super::facts::Admitted;

/// Who sits where, by the kernel's word.
#[derive(Clone, Debug, Default)]
pub(super) struct Seating(Arc<Mutex<Seats>>);

/// By lane: the owner word it was given for, and to whom.
type Seats = BTreeMap<u32, (OwnerWord, Arc<Admitted>)>;

impl Seating {
    pub(super) fn seat(&self, lane: u32, owner: OwnerWord, worker: Arc<Admitted>) {
        self.change(|seats| seats.insert(lane, (owner, worker)));
    }

    pub(super) fn vacate(&self, lane: u32) {
        self.change(|seats| seats.remove(&lane));
    }

    pub(super) fn remove(&self, id: WorkerId) {
        self.change(|seats| seats.retain(|_, (_, worker)| worker.id != id));
    }

    /// Everyone who sits in a lane that has still the owner it was given for.
    pub(super) fn seated(
        &self,
        owner_of: impl Fn(u32) -> OwnerWord,
    ) -> BTreeMap<u32, Arc<Admitted>> {
        self.change(|seats| {
            let still = seats.iter().filter(|(lane, (owner, _))| owner_of(**lane) == *owner);
            still.map(|(lane, (_, worker))| (*lane, Arc::clone(worker))).collect()
        })
    }

    fn change<T>(&self, how: impl FnOnce(&mut Seats) -> T) -> T {
        // Each change is whole: one that panicked has left it as it was.
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
