//! Starts helpers on a thread of its own.
//!
//! The helper's program may be on a disk that hangs, and starting a program blocks until the kernel has opened
//! it. The collector does not block: it continues with snapshots and incidents, and a helper that has not
//! started when its budget ends is recorded as missing.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::helper::{places, time_left};
use crate::case::{Case, CaseKind};
use crate::threads::STACK_BYTES;
use crate::tracers::Tracers;
use hangwatch_evidence::capture::{Capture, MayStop, Subject};
use hangwatch_evidence::redact::Redactor;

/// What helpers are started with.
pub(super) struct StarterParts {
    pub(super) program: PathBuf,
    pub(super) redactor: Redactor,
    pub(super) memory_bytes: u64,
    pub(super) tracers: Tracers,
    /// The descriptor that wakes the collector after a helper has started.
    pub(super) wake_fd: Arc<OwnedFd>,
}

/// The handle of the starter's thread.
pub(super) struct Starter {
    cases: Sender<Arc<Case>>,
    started: Receiver<Started>,
}

/// A started helper, or why it could not be started.
pub(super) struct Started {
    pub(super) case: Arc<Case>,
    pub(super) capture: Result<Capture, String>,
}

impl Starter {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn new(parts: StarterParts) -> io::Result<Starter> {
        let (cases, to_start) = channel();
        let (tell, started) = channel();
        // Never joined: it may hang on a disk.
        thread::Builder::new()
            .name("hangwatch-start".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&parts, &to_start, &tell))?;
        Ok(Starter { cases, started })
    }

    /// Requests a helper for a case.
    pub(super) fn start(&self, case: Arc<Case>) {
        // The thread ends only after this handle is dropped.
        let _ = self.cases.send(case);
    }

    /// Returns the next helper that has started or failed to.
    pub(super) fn started(&self) -> Option<Started> {
        self.started.try_recv().ok()
    }
}

fn run(parts: &StarterParts, cases: &Receiver<Arc<Case>>, tell: &Sender<Started>) {
    while let Ok(case) = cases.recv() {
        let capture = start(parts, &case);
        if let Err(unheard) = tell.send(Started { case, capture }) {
            // The collector has ended, so the helper is ended here.
            unheard.0.capture.into_iter().for_each(|capture| drop(capture.end(None)));
            return;
        }
        let _ = rustix::io::write(&parts.wake_fd, &1u64.to_ne_bytes()); // if it is full, it is readable
    }
}

fn start(parts: &StarterParts, case: &Case) -> Result<Capture, String> {
    let budget = time_left(case);
    if budget.is_zero() {
        return Err("too slow: other helpers had to start first".to_owned());
    }
    let subject = Subject {
        pid: case.worker.pid(),
        pidfd: case.worker.process.pidfd.as_fd(),
        first_tid: case.facts.as_ref().map(|facts| facts.tid),
        may_stop: match case.kind {
            CaseKind::Condemned => MayStop::Yes,
            CaseKind::Reported => MayStop::No,
        },
        budget,
        redactor: &parts.redactor,
        memory_bytes: parts.memory_bytes,
        at_once: places(),
    };
    match Capture::start(&parts.program, subject) {
        Ok(capture) => {
            parts.tracers.add(capture.pid());
            Ok(capture)
        }
        Err(error) => Err(format!("cannot start a helper: {}: {error}", parts.program.display())),
    }
}
