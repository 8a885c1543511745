//! What the server knows about a worker: [`Admitted`], [`Command`] and [`LaneFacts`].

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::Lane;
use hangwatch_process::attest::Process;
use hangwatch_process::proc::{Image, Memory, Privileges, Users};
use rustix::process::getpid;

/// A process that was verified and admitted.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) id: WorkerId,
    pub(super) process: Process,
    /// The program it ran when it was admitted.
    pub(super) image: Image,
    /// The memory of that program, if the kernel gives access to it.
    pub(super) memory: Option<Arc<Memory>>,
    /// Its credentials when it was first admitted, with any program.
    pub(super) origin: Origin,
    /// Its name and arguments, filled in by a proc reader, possibly late.
    pub(super) command: OnceLock<Command>,
    /// The error file that its environment names, filled in by a proc reader.
    pub(super) error_file: OnceLock<Option<PathBuf>>,
}

/// The credentials of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) users: Users,
    pub(super) privileges: Privileges,
}

/// The name and arguments of a process, which it can choose itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// The name of its first thread, up to 15 bytes.
    pub name: String,
    /// Its arguments, the program first. Empty if they cannot be read, or not yet.
    pub arguments: Vec<String>,
}

impl Admitted {
    pub(super) fn pid(&self) -> u32 {
        self.process.pid.as_raw_pid().unsigned_abs()
    }

    /// Whether the memory of the admitted program is still in use; true if that is not known. If it is not in
    /// use, a process that has memory runs another program.
    pub(super) fn has_its_memory(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| memory.is_in_use())
    }

    /// Whether it is the watchdog's own process.
    pub(super) fn is_self(&self) -> bool {
        self.process.pid == getpid()
    }
}

/// What a lane's owner wrote about itself when it attached. These are claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneFacts {
    /// The pid in the owner's PID namespace.
    pub claimed_pid: u32,
    /// The thread id in the owner's PID namespace.
    pub tid: u64,
    /// The thread's name.
    pub thread: String,
    /// The job.
    pub job: String,
    /// The host name in the owner's UTS namespace.
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
