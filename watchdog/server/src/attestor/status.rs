//! Reads a worker's status: whether it runs the admitted program, as which user, and whether it can run.
//!
//! A worker is not at fault while it is stopped, traced or frozen. Nothing here waits for the worker:
//! `stat`, `status` and `cgroup` take no lock that it could hold. If a file cannot be read, the worker is
//! unverified and not signalled.

use std::collections::HashMap;
use std::sync::Arc;

use hangwatch::sys::Pid;
use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::time::Nanos;
use hangwatch_process::freezer::{Freezers, Frozen};
use hangwatch_process::proc::{self, Standing, State, image};

use super::super::control::Control;
use super::super::event_log::{EventLog, Note};
use super::super::options::{Holds, Treatment};
use super::super::tracers::{Tracer, Tracers};
use super::super::worker::Admitted;

/// How long a tracer with a helper's name is accepted as one, ns. A helper stops its worker for 200 ms at
/// most.
const PATIENCE_NS: u64 = 2_000_000_000;

/// A worker's status.
#[derive(Debug)]
pub(super) enum Status {
    /// It runs the admitted program; the value says why it cannot run, if it cannot.
    Standing(Option<Hold>),
    /// It runs another program.
    Execd,
    /// The answer is not known yet. The question is asked again.
    NotYet,
    /// It cannot be verified, for this reason.
    Unverified(String),
}

pub(super) struct StatusReader {
    control: Arc<Control>,
    event_log: EventLog,
    /// Knows which tracers are our helpers.
    tracers: Tracers,
    /// Since when a worker has been traced by a thread with a helper's name.
    helper_since: HashMap<WorkerId, Nanos>,
    freezers: Freezers,
    said_no_cgroups: bool,
}

impl StatusReader {
    pub(super) fn new(
        control: Arc<Control>,
        event_log: EventLog,
        tracers: Tracers,
    ) -> StatusReader {
        StatusReader {
            control,
            event_log,
            tracers,
            helper_since: HashMap::new(),
            freezers: Freezers::default(),
            said_no_cgroups: false,
        }
    }

    /// Reads the status of a worker.
    pub(super) fn look(&mut self, now: Nanos, worker: &Admitted) -> Status {
        let status = self.status(now, worker).unwrap_or_else(Status::Unverified);
        // Checked last: if it lives, the reads before were of this process. The death is noticed elsewhere.
        if worker.process.pidfd.is_dead() { Status::NotYet } else { status }
    }

    /// Forgets a worker that has ended.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.helper_since.remove(&worker);
    }

    fn status(&mut self, now: Nanos, worker: &Admitted) -> Result<Status, String> {
        let pid = worker.process.pid;
        // Read first: if there is memory but not that of the admitted program, it has run exec.
        let has_its_memory = worker.has_its_memory();
        let image = image(pid).map_err(|error| format!("its program cannot be read: {error}"))?;
        if image.is_some_and(|image| image != worker.image || !has_its_memory) {
            return Ok(Status::Execd);
        }
        let standing = proc::standing(pid)
            .map_err(|error| format!("its status cannot be read: {error}"))?
            .ok_or("its status cannot be read")?;
        if !may_be_signalled(worker, image.is_some(), &standing) {
            return Ok(Status::Standing(Some(Hold::OtherUser)));
        }
        let Holds { stopped, traced, frozen } = self.control.holds.get();
        if traced == Treatment::Report {
            match self.is_traced(now, worker.id, standing.tracer) {
                Some(true) => return Ok(Status::Standing(Some(Hold::Traced))),
                Some(false) => {}
                None => return Ok(Status::NotYet),
            }
        }
        if frozen == Treatment::Report && self.is_frozen(pid)? {
            return Ok(Status::Standing(Some(Hold::Frozen)));
        }
        // Last: a successor of the watchdog that stopped the worker must still kill it.
        if stopped == Treatment::Report && standing.state == State::Stopped {
            return Ok(Status::Standing(Some(Hold::Stopped)));
        }
        Ok(Status::Standing(None))
    }

    /// Whether a debugger traces the worker. `None` means that this is not known yet.
    fn is_traced(&mut self, now: Nanos, worker: WorkerId, tracer: Option<Pid>) -> Option<bool> {
        match tracer.map(|tracer| self.tracers.kind_of(tracer)) {
            Some(Tracer::Debugger) => Some(true),
            Some(Tracer::NamedAsHelper) => {
                let since = *self.helper_since.entry(worker).or_insert(now);
                (now.since(since) > PATIENCE_NS).then_some(true)
            }
            Some(Tracer::OurHelper) | None => {
                self.helper_since.remove(&worker);
                Some(false)
            }
        }
    }

    fn is_frozen(&mut self, pid: Pid) -> Result<bool, String> {
        let frozen = self.freezers.frozen(pid);
        let frozen =
            frozen.map_err(|error| format!("its control group cannot be read: {error}"))?;
        if frozen == Frozen::Unknown && !std::mem::replace(&mut self.said_no_cgroups, true) {
            let text = "cannot read the control groups of workers, so a frozen worker looks like one that \
                        hangs; mount /sys/fs/cgroup, or make sure that nothing freezes the workers";
            self.event_log.note(Note::Unprotected(text.to_owned()));
        }
        Ok(frozen == Frozen::Yes)
    }
}

/// Whether the worker, as first admitted, may signal its process as it is now.
///
/// This is the kernel's rule for kill(2), which the kernel does not apply to a privileged watchdog. If the
/// program cannot be seen, the credentials must not have changed at all.
fn may_be_signalled(worker: &Admitted, is_program_seen: bool, now: &Standing) -> bool {
    let origin = &worker.origin;
    let is_unchanged = now.users == origin.users && origin.privileges.cover(now.privileges);
    origin.users.may_signal(now.users) && (is_program_seen || is_unchanged)
}
