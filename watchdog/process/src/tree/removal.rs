//! What a removal by `tree` came to: [`Removal`] and its survivors.

use std::fmt;
use std::process::ExitStatus;

use hangwatch_core::wire::time::Nanos;
use rustix::process::Pid;

use hangwatch_text::plain;

/// What a removal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// How the command itself ended; `None` if it is among the survivors.
    pub status: Option<ExitStatus>,
    /// Processes that were signalled at least once.
    pub signalled: usize,
    /// When the first of them was, on `CLOCK_MONOTONIC`; `None` where none was.
    pub signalled_at: Option<Nanos>,
    /// When the first of them was sent SIGKILL; `None` where all ended by a gentler signal.
    pub killed_at: Option<Nanos>,
    /// Processes of the tree that still live. Empty if the removal succeeded.
    pub survivors: Vec<Survivor>,
}

/// A process that is still there after SIGKILL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Its pid.
    pub pid: Pid,
    /// Its command's name, at most 15 bytes.
    pub command: String,
    /// Its state's letter, as in proc(5); `D` is an uninterruptible sleep.
    pub state: char,
    /// Why it lives.
    pub why: Survival,
}

/// Why a process outlived its removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Survival {
    /// The kernel does not let go of it; where it waits, as far as that may be read.
    Unkillable {
        /// The function in the kernel it waits in.
        wait_channel: Option<String>,
    },
    /// The kernel does not let us signal it: it has another user's rights.
    NotPermitted,
    /// It could not be told from a helper of ours that was being started all the time.
    Unsure,
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, command, state, why } = self;
        write!(f, "pid {pid} ({}), state {state}, ", plain(command))?;
        match why {
            Survival::Unkillable { wait_channel: Some(at) } => write!(f, "unkillable in {at}"),
            Survival::Unkillable { wait_channel: None } => write!(f, "unkillable"),
            Survival::NotPermitted => write!(f, "may not be signalled by this user"),
            Survival::Unsure => write!(f, "not known to be the command's: not signalled"),
        }
    }
}
