//! By whom a worker is traced: by a helper of ours, which looks at a condemned worker for some
//! milliseconds, or by a debugger.
//!
//! Ours are known by their pids, which the witness notes. A helper of another watchdog, which has
//! condemned the same process for a timer in its own segment, cannot be told from a debugger that calls
//! its threads the same: anybody may choose a thread's name. So the name is worth no more than a little
//! patience: it is asked again until the helper has let go, and who is still traced then is traced by a
//! debugger.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use hangwatch::sys::Pid;
use hangwatch_process::proc::{comm, process_of};

use hangwatch_evidence::helper::THREAD_NAME;

/// Who traces a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracer {
    OurHelper,
    /// By its name a helper, which anybody may give itself.
    NamedAsHelper,
    Debugger,
}

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

    /// What the thread that traces a worker is.
    pub(super) fn kind_of(&self, tracer: Pid) -> Tracer {
        // It is a thread that traces, and a process that is known here.
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
