//! How a worker stands: whether it runs the program it was admitted with, as whom, and whether something
//! holds it up that is not its own doing.
//!
//! Nothing here waits for the worker: `stat`, `status` and `cgroup` take no lock that it could hold. What
//! cannot be read is said to be unverified, and the worker is not signalled before it can.

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

/// How long a tracer that calls itself a helper is taken for one, ns: a helper stops its worker for
/// 200 ms at most.
const PATIENCE_NS: u64 = 2_000_000_000;

/// What was seen of a worker.
#[derive(Debug)]
pub(super) enum Status {
    /// What holds it up, if anything does.
    Standing(Option<Hold>),
    /// It runs another program.
    Execd,
    /// It cannot be said now: asked again.
    NotYet,
    /// It cannot be verified, for this reason.
    Unverified(String),
}

pub(super) struct StatusReader {
    control: Arc<Control>,
    event_log: EventLog,
    /// By whom a worker may be traced without being held up.
    tracers: Tracers,
    /// Since when workers are traced by somebody who calls itself a helper.
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

    /// Looks at a worker.
    pub(super) fn look(&mut self, now: Nanos, worker: &Admitted) -> Status {
        let status = self.status(now, worker).unwrap_or_else(Status::Unverified);
        // Asked last: what was read before was read of it. Its death is heard of otherwise.
        if worker.process.pidfd.is_dead() { Status::NotYet } else { status }
    }

    /// The worker is gone.
    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.helper_since.remove(&worker);
    }

    fn status(&mut self, now: Nanos, worker: &Admitted) -> Result<Status, String> {
        let pid = worker.process.pid;
        // Asked first: one that has memory after it was seen without this has exec'd, and is not about to die.
        let has_its_memory = worker.has_its_memory();
        let image = image(pid).map_err(|error| format!("its program cannot be seen: {error}"))?;
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
        // Last: a watchdog that succeeds the one that stopped it goes on all the same.
        if stopped == Treatment::Report && standing.state == State::Stopped {
            return Ok(Status::Standing(Some(Hold::Stopped)));
        }
        Ok(Status::Standing(None))
    }

    /// Whether a debugger traces the worker; `None` where that is to be seen in a while.
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
            let text = "the control groups of workers are not to be seen from here: a frozen worker is \
                        not told from one that hangs; mount /sys/fs/cgroup, or see to it that nobody \
                        freezes them";
            self.event_log.note(Note::Unprotected(text.to_owned()));
        }
        Ok(frozen == Frozen::Yes)
    }
}

/// Whether the process that was first admitted might signal the one it is now: the kernel's rule, which
/// a watchdog that may signal anybody must ask itself. Of one whose program is not to be seen, nothing
/// may have changed that an exec changes.
fn may_be_signalled(worker: &Admitted, is_program_seen: bool, now: &Standing) -> bool {
    let origin = &worker.origin;
    let is_unchanged = now.users == origin.users && origin.privileges.cover(now.privileges);
    origin.users.may_signal(now.users) && (is_program_seen || is_unchanged)
}
