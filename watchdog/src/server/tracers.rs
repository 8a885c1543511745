//! Our own tracers: the helpers by whom a worker may be traced without being held up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The pids of the helpers that are alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracers(Arc<Mutex<BTreeSet<u32>>>);

impl Tracers {
    pub(super) fn add(&self, pid: u32) {
        self.change(|pids| pids.insert(pid));
    }

    pub(super) fn remove(&self, pid: u32) {
        self.change(|pids| pids.remove(&pid));
    }

    pub(super) fn contains(&self, pid: u32) -> bool {
        self.change(|pids| pids.contains(&pid))
    }

    fn change(&self, how: impl FnOnce(&mut BTreeSet<u32>) -> bool) -> bool {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
