//! The exit codes of the `hangwatch` binary.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | success; or the command ended with 0 |
//! | 1 | `doctor`: something that hangwatch needs is missing; `dump`: a process does not exist or cannot be inspected |
//! | 1 to 122 | the command's own code, passed through |
//! | 2 | the command line is wrong (also a command's own 2) |
//! | 123 | a bug in hangwatch: a thread of the watchdog panicked |
//! | 124 | `exec`: the deadline passed and the command was killed |
//! | 125 | hangwatch itself failed |
//! | 126 | the command was found and cannot be executed |
//! | 127 | the command was not found |
//! | 128 + N | signal N killed the command; hangwatch then ends by the same signal, which a shell shows as this code |
//!
//! `run -- CMD` ends with the command's code, even if it watches workers for longer. Without a command it
//! ends with 0 after SIGTERM or SIGINT; after any other signal it shuts down and ends by that signal.
//!
//! The codes are the same as of `timeout(1)`, `env(1)` and `nohup(1)`, so that scripts for these work with
//! hangwatch. As with these, a command can itself end with one of these codes; the log shows which it was.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus, Termination};

use hangwatch_process::child::StartError;
use hangwatch_process::signals;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Success: code 0.
    Ok,
    /// Something that hangwatch needs is missing: code 1, only from `doctor`.
    Unfit,
    /// A given process does not exist or cannot be inspected: code 1, only from `dump`.
    Unseen,
    /// The command line is wrong: code 2, the same as clap uses.
    Usage,
    /// A thread of the watchdog panicked: code 123, so that a supervisor or standby takes over.
    Panicked,
    /// The deadline of `exec` passed and the command was killed: code 124.
    DeadlinePassed,
    /// hangwatch itself failed: code 125.
    Failed,
    /// The command was found and cannot be executed: code 126.
    CannotExecute,
    /// The command was not found: code 127.
    NotFound,
    /// The command ended with this code.
    Command(u8),
    /// This signal (1 to 64) killed the command: code 128 + N.
    Signal(u8),
}

impl Exit {
    /// The code as a shell shows it.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unfit | Self::Unseen => 1,
            Self::Usage => 2,
            Self::Panicked => 123,
            Self::DeadlinePassed => 124,
            Self::Failed => 125,
            Self::CannotExecute => 126,
            Self::NotFound => 127,
            Self::Command(code) => code,
            Self::Signal(number) => 128_u8.saturating_add(number),
        }
    }
}

/// Passes the end of a command through.
impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        match (status.code(), status.signal()) {
            (Some(0), _) => Self::Ok,
            (Some(code), _) => Self::Command(byte(code)),
            (None, Some(signal)) => Self::Signal(byte(signal)),
            // Neither exited nor killed: waiting for the end never returns such a status.
            (None, None) => Self::Failed,
        }
    }
}

impl From<&StartError> for Exit {
    fn from(error: &StartError) -> Self {
        match error {
            StartError::NotFound { .. } => Self::NotFound,
            StartError::CannotExecute { .. } => Self::CannotExecute,
            StartError::NoProcess { .. } => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Ends by the same signal as the command, if a signal killed that; else with the code.
///
/// So a shell's loop stops when Ctrl-C kills the command.
impl Termination for Exit {
    fn report(self) -> ExitCode {
        if let Self::Signal(number) = self {
            let _ = std::io::stdout().flush(); // fails if the reader has closed the pipe
            signals::die_of(number);
        }
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::Exit;

    #[test]
    fn end_of_a_command_is_passed_through() {
        let check = |raw: i32, exit: Exit, code: u8| {
            let got = Exit::from(ExitStatus::from_raw(raw));
            assert_eq!((got, got.code()), (exit, code), "wait status {raw:#x}");
        };
        check(0, Exit::Ok, 0);
        check(3 << 8, Exit::Command(3), 3);
        check(255 << 8, Exit::Command(255), 255);
        check(libc::SIGKILL, Exit::Signal(9), 137);
        check(libc::SIGSEGV | 0x80, Exit::Signal(11), 139);
        check(64, Exit::Signal(64), 192);
    }
}
