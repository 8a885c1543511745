//! Tells our own helpers, which trace a condemned worker for some milliseconds, from debuggers.
//!
//! The evidence collector registers the pids of its helpers. A helper of another watchdog, which has condemned
//! the same process for a timer in its own segment, looks like a debugger that uses the same thread name, and
//! any program can choose that name. So the name only defers the answer: a worker that is still traced after
//! a helper would have detached is traced by a debugger.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hangwatch::sys::Pid;
use hangwatch_process::proc::{comm, process_of};

use hangwatch_evidence::helper::THREAD_NAME;

/// What traces a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracer {
    OurHelper,
    /// A thread with the name of a helper, which any program can choose.
    NamedAsHelper,
    Debugger,
}

/// The pids of our helpers that are alive. Clones share one set.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracers(Arc<Mutex<BTreeSet<u32>>>);

impl Tracers {
    pub(super) fn add(&self, pid: u32) {
        self.change(|pids| pids.insert(pid));
    }

    pub(super) fn remove(&self, pid: u32) {
        self.change(|pids| pids.remove(&pid));
    }

    /// Returns what kind of tracer this thread is.
    pub(super) fn kind_of(&self, tracer: Pid) -> Tracer {
        // The tracer is a thread; the set contains processes.
        let process = process_of(tracer).ok().flatten().unwrap_or(tracer);
        let pid = process.as_raw_pid().unsigned_abs();
        let is_named_so = || comm(tracer).ok().flatten().is_some_and(|name| name == THREAD_NAME);
        if self.change(|pids| pids.contains(&pid)) {
            Tracer::OurHelper
        } else if is_named_so() {
            Tracer::NamedAsHelper
        } else {
            Tracer::Debugger
        }
    }

    fn change(&self, how: impl FnOnce(&mut BTreeSet<u32>) -> bool) -> bool {
        how(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
