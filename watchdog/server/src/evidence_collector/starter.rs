//! The starter: the thread that starts helpers.
//!
//! The helper's program may lie on a disk that hangs, and whoever starts a program waits until the kernel
//! has opened it. The witness never does: it goes on with pictures and incidents, and a helper that has not
//! started when its budget is over is said to be missing.

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

/// Whom helpers are started for, and with what.
pub(super) struct StarterParts {
    pub(super) program: PathBuf,
    pub(super) redactor: Redactor,
    pub(super) memory_bytes: u64,
    pub(super) tracers: Tracers,
    /// Made readable when a helper has started.
    pub(super) wake_fd: Arc<OwnedFd>,
}

/// How the witness has helpers started.
pub(super) struct Starter {
    cases: Sender<Arc<Case>>,
    started: Receiver<Started>,
}

/// A helper that was started, or why it was not.
pub(super) struct Started {
    pub(super) case: Arc<Case>,
    pub(super) capture: Result<Capture, String>,
}

impl Starter {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the kernel has no thread.
    pub(super) fn new(parts: StarterParts) -> io::Result<Starter> {
        let (cases, to_start) = channel();
        let (tell, started) = channel();
        // Never joined: it may be held by a disk.
        thread::Builder::new()
            .name("hangwatch-start".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || run(&parts, &to_start, &tell))?;
        Ok(Starter { cases, started })
    }

    /// Has a helper started for a case.
    pub(super) fn start(&self, case: Arc<Case>) {
        // It ends only when this does.
        let _ = self.cases.send(case);
    }

    /// What has started since it was last asked.
    pub(super) fn started(&self) -> Option<Started> {
        self.started.try_recv().ok()
    }
}

fn run(parts: &StarterParts, cases: &Receiver<Arc<Case>>, tell: &Sender<Started>) {
    while let Ok(case) = cases.recv() {
        let capture = start(parts, &case);
        if let Err(unheard) = tell.send(Started { case, capture }) {
            // The watchdog has ended meanwhile: nobody would end it.
            unheard.0.capture.into_iter().for_each(|capture| drop(capture.end(None)));
            return;
        }
        let _ = rustix::io::write(&parts.wake_fd, &1u64.to_ne_bytes()); // full, it is readable
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
        Err(error) => Err(format!("no helper: {}: {error}", parts.program.display())),
    }
}
