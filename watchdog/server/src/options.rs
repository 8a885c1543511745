//! The options of a server: [`ServerOptions`].

use hangwatch_core::watchdog::policy::Policy;

use hangwatch_evidence::options::EvidenceOptions;
use hangwatch_process::descendants::Reach;

/// Maximum number of HTTP connections of this process. The server reserves descriptors for them.
pub const CONNECTIONS: usize = 64;

/// How a server serves a segment.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// What is done about an expired timer.
    pub policy: Policy,
    /// What is done if another watchdog serves the segment.
    pub standby: Standby,
    /// What is done about an overdue worker that cannot run.
    pub holds: Holds,
    /// What is done about an overdue worker in the server's own process.
    pub own_process: OwnProcess,
    /// Which evidence is captured of an expired worker. None by default.
    pub evidence: EvidenceOptions,
    /// Whether a worker that is killed gets the error file that its environment names.
    pub error_files: ErrorFiles,
    /// Which processes are killed with a worker.
    pub reach: Reach,
    /// Protections of the watchdog's own process.
    pub protection: Protection,
    /// What happens if a thread of the watchdog panics.
    pub on_panic: OnPanic,
}

/// Whether to wait for the end of another watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standby {
    /// Fail if another watchdog serves the segment.
    #[default]
    No,
    /// Wait, and take over at once when the other watchdog ends, however it ends.
    Wait,
}

/// Whether an overdue worker is killed while something keeps it from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is killed like any other worker.
    Reap,
    /// It is reported once, and not signalled while it cannot run.
    Report,
}

/// The treatment of overdue workers that cannot run, by the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// Stopped by a signal such as SIGSTOP or Ctrl-Z.
    pub stopped: Treatment,
    /// Traced by a debugger, whether or not the debugger has stopped it.
    pub traced: Treatment,
    /// In a frozen control group.
    pub frozen: Treatment,
}

impl Default for Holds {
    /// Stopped workers are killed; traced and frozen ones are reported.
    fn default() -> Self {
        Holds { stopped: Treatment::Reap, traced: Treatment::Report, frozen: Treatment::Report }
    }
}

impl Holds {
    /// Whether any of them is treated differently, so that the status must be read.
    pub(super) fn matter(self) -> bool {
        [self.stopped, self.traced, self.frozen].contains(&Treatment::Report)
    }
}

/// What is done about an overdue worker in the server's own process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnProcess {
    /// It is not signalled. The expiry is only reported, and the late release returns that.
    #[default]
    Exclude,
    /// It is signalled like any other worker, which ends the watchdog as well.
    Signal,
}

/// Whether torch's error files are written.
///
/// `torchrun` names a file for each worker in `TORCHELASTIC_ERROR_FILE`, and reads the reason of its end
/// from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFiles {
    /// The file is written before the signal, which waits at most one second for it. Only for workers of the
    /// watchdog's own user, in directories of that user, and never over an existing file.
    #[default]
    Write,
    /// No file is written.
    Leave,
}

/// Protections of the watchdog's process. The kernel may refuse one; this is reported once and not fatal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Lock this process's memory, so that it is not swapped out.
    pub lock_memory: Ask,
    /// Lower the OOM score, so that the kernel kills another process if memory runs out. Children inherit it:
    /// code that starts one must reset `/proc/PID/oom_score_adj`.
    pub lower_oom_score: Ask,
    /// Run the tick at this real-time priority (`SCHED_FIFO`, 1 to 99).
    pub realtime_priority: Option<u8>,
}

/// Whether an optional protection is requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ask {
    /// It is not requested.
    #[default]
    No,
    /// It is requested.
    Yes,
}

/// What happens if a thread of the server panics, including the one that calls `log`. The server never
/// continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPanic {
    /// The server ends, releases the segment and reports it; the process continues.
    #[default]
    End,
    /// The process exits at once with this code, so that a supervisor or a standby takes over.
    Exit(u8),
}
