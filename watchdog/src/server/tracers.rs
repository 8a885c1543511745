//! The helpers by whom a worker may be traced without being held up: they look, for some milliseconds,
//! at who is condemned, and are no debuggers.
//!
//! Ours are known by their pids. Those of another watchdog, which has condemned the same process for a
//! timer in its own segment, are known by the name of their threads: whoever gives a debugger that name
//! gets the worker reaped under it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hangwatch::sys::Pid;
use hangwatch::sys::process::{comm, process_of};

use crate::evidence::helper::THREAD_NAME;

/// The pids of our helpers that are alive.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracers(Arc<Mutex<BTreeSet<u32>>>);

impl Tracers {
    pub(super) fn add(&self, pid: u32) {
        self.change(|pids| pids.insert(pid));
    }

    pub(super) fn remove(&self, pid: u32) {
        self.change(|pids| pids.remove(&pid));
    }

    /// Whether the thread that traces a worker is a helper's, ours or another watchdog's.
    pub(super) fn are_helpers(&self, tracer: Pid) -> bool {
        // It is a thread that traces, and a process that is known here.
        let process = process_of(tracer).ok().flatten().unwrap_or(tracer);
        let pid = process.as_raw_pid().unsigned_abs();
        let is_named_so = || comm(tracer).ok().flatten().is_some_and(|name| name == THREAD_NAME);
        self.change(|pids| pids.contains(&pid)) || is_named_so()
    }

    fn change(&self, how: impl FnOnce(&mut BTreeSet<u32>) -> bool) -> bool {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
