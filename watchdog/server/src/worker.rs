//! What is known of a worker, for the log and for the reap: taken once, when it is admitted.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::Lane;
use hangwatch_process::attest::Process;
use hangwatch_process::proc::{Image, Memory, Privileges, Users};
use rustix::process::getpid;

/// A process that was admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) id: WorkerId,
    pub(super) process: Process,
    /// The program it ran when it was admitted.
    pub(super) image: Image,
    /// The memory of that program, where the kernel tells of it.
    pub(super) memory: Option<Arc<Memory>>,
    /// As what it ran when it was first admitted, by whatever program.
    pub(super) origin: Origin,
    /// How it calls itself: filled in by the inspector, who may be late.
    pub(super) command: OnceLock<Command>,
    /// Its error file, where its environment names one: filled in by the inspector, too.
    pub(super) error_file: OnceLock<Option<PathBuf>>,
}

/// As what a process runs: what it may do, and who may do what to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) users: Users,
    pub(super) privileges: Privileges,
}

/// What a process calls itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The name of its first thread, up to 15 bytes.
    pub name: String,
    /// Its arguments, the program first. Empty where they cannot be read (yet).
    pub arguments: Vec<String>,
}

impl Admitted {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid.as_raw_pid().unsigned_abs()
    }

    /// Whether the memory is there of the program it ran when it was admitted, as far as that is known.
    /// Where it is not, a process that has memory runs another program.
    pub(super) fn has_its_memory(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| memory.is_in_use())
    }

    /// Whether it is this very process.
    pub(super) fn is_self(&self) -> bool {
        self.process.pid == getpid()
    }
}

/// What a lane's owner said about itself when it attached. Claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneFacts {
    /// The pid, in the owner's own PID namespace.
    pub claimed_pid: u32,
    /// The thread, in the owner's own PID namespace.
    pub tid: u64,
    /// The thread's name.
    pub thread: String,
    /// The job.
    pub job: String,
    /// The host, as its namespace names it.
    pub host: String,
    /// The rank in the job.
    pub rank: Option<u64>,
    /// The number of ranks.
    pub world_size: Option<u64>,
    /// The rank on this host.
    pub local_rank: Option<u64>,
}

impl LaneFacts {
    pub(super) fn of(lane: Lane<'_>) -> LaneFacts {
        let identity = lane.identity();
        LaneFacts {
            claimed_pid: lane.owner().pid(),
            tid: identity.tid,
            thread: lane.thread_name(),
            job: lane.job(),
            host: lane.host(),
            rank: identity.rank.checked_sub(1),
            world_size: Some(identity.world_size).filter(|&size| size > 0),
            local_rank: identity.local_rank.checked_sub(1),
        }
    }
}
