//! How a server serves.

use hangwatch_core::watchdog::policy::Policy;

use hangwatch_evidence::options::EvidenceOptions;
use hangwatch_process::descendants::Reach;

/// Connections that a listener of this process may hold open: the server keeps descriptors free for them.
pub const CONNECTIONS: usize = 64;

/// How a server serves a segment.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// What is done about an expired timer.
    pub policy: Policy,
    /// What is done where another watchdog serves the segment.
    pub standby: Standby,
    /// What is done about an overdue worker that could not run.
    pub holds: Holds,
    /// What is done about an overdue worker in the server's own process.
    pub own_process: OwnProcess,
    /// What evidence is captured of an expired worker. By default none.
    pub evidence: EvidenceOptions,
    /// Whether a worker that is reaped gets the error file that its environment names.
    pub error_files: ErrorFiles,
    /// Who is reaped with a worker.
    pub reach: Reach,
    /// How the watchdog protects itself.
    pub protection: Protection,
    /// What a bug in the watchdog leads to.
    pub on_panic: OnPanic,
}

/// Whether to wait for another watchdog's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standby {
    /// Refuse to start where another serves.
    #[default]
    No,
    /// Wait, and take over at once when it ends, however it ends.
    Wait,
}

/// Whether an overdue worker that something held up is reaped all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It is reaped like any other.
    Reap,
    /// It is reported once, and left alone for as long as it is held up.
    Report,
}

/// The treatment of overdue workers by what holds them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// Stopped by a signal (SIGSTOP, ctrl-Z).
    pub stopped: Treatment,
    /// Traced by a debugger, be it stopped by it or not.
    pub traced: Treatment,
    /// In a frozen control group.
    pub frozen: Treatment,
}

impl Default for Holds {
    /// Stopped workers are reaped, traced and frozen ones reported.
    fn default() -> Self {
        Holds { stopped: Treatment::Reap, traced: Treatment::Report, frozen: Treatment::Report }
    }
}

impl Holds {
    /// Whether anybody must be asked at all.
    pub(super) fn matter(self) -> bool {
        [self.stopped, self.traced, self.frozen].contains(&Treatment::Report)
    }
}

/// What is done about an overdue worker in the server's own process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnProcess {
    /// Nobody is signalled: the expiry ends as failed, and its late release says so.
    #[default]
    Exclude,
    /// It is signalled like any other, and the watchdog with it.
    Signal,
}

/// What is done about the error files of torch: a worker that `torchrun` started is named one in
/// `TORCHELASTIC_ERROR_FILE`, from which `torchrun` has the reason of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorFiles {
    /// It is written before the signal, which waits for it for 50 ms at most. Only for workers of
    /// the watchdog's own user, in directories of that user, and never over a file that is there.
    #[default]
    Write,
    /// None is written.
    Leave,
}

/// Protections, each of which the kernel may refuse; a refusal is reported once and is not fatal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Keep this process's memory from being swapped out.
    pub lock_memory: Ask,
    /// Make the kernel take another process where memory runs out. Children inherit it: whoever
    /// starts one sets `/proc/PID/oom_score_adj` back.
    pub lower_oom_score: Ask,
    /// Run the tick at this real-time priority (`SCHED_FIFO`, 1 to 99).
    pub realtime_priority: Option<u8>,
}

/// Whether something is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ask {
    /// It is not.
    #[default]
    No,
    /// It is.
    Yes,
}

/// What happens where a thread of the server panics, the log's own among them. It never goes on as if
/// nothing were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPanic {
    /// The server ends, gives the segment free and says so; its process goes on.
    #[default]
    End,
    /// The process exits at once with this code, so that a supervisor or standby takes over.
    Exit(u8),
}
