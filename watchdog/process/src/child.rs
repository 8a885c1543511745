//! A command that hangwatch starts: it gets the signals that hangwatch gets, and
//! hangwatch ends as it does.
//!
//! The main type is [`Child`]. It stays in hangwatch's process group, so that it keeps
//! the terminal; `relay` catches the signals, `exec::tree` adds the descendants, `exit`
//! turns the end into a code.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::relay::{Caught, Relay, Sender};
use crate::start::{self, Started, Terms};

/// A command that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("cannot start `{}`: not found; give its path, or check PATH", .program.display())]
    NotFound {
        /// The program as it was asked for.
        program: OsString,
    },
    /// The program is there and the kernel refuses to execute it.
    #[error("cannot execute `{}`: {hint}", .program.display())]
    CannotExecute {
        /// The program as it was asked for.
        program: OsString,
        /// What to look at.
        hint: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No process could be had for it.
    #[error("cannot start a process for `{}`; check the limits on processes, open files and memory", .program.display())]
    NoProcess {
        /// The program as it was asked for.
        program: OsString,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StartError {
    fn new(program: &OsStr, source: io::Error) -> Self {
        let program = program.to_owned();
        let hint = match source.kind() {
            io::ErrorKind::NotFound if !names_a_file(&program) => {
                return Self::NotFound { program };
            }
            io::ErrorKind::NotFound => {
                "the interpreter it names in its first line, or its loader, is not there"
            }
            _ if Path::new(&program).is_dir() => "it is a directory",
            io::ErrorKind::PermissionDenied => "it needs the execute permission (chmod +x)",
            _ if source.raw_os_error() == Some(libc::ENOEXEC) => {
                "it is neither a program for this machine nor a script with a #! line"
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
                return Self::NoProcess { program, source };
            }
            _ if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                return Self::NoProcess { program, source };
            }
            _ => "the kernel refuses it",
        };
        Self::CannotExecute { program, hint, source }
    }
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The command ended.
    Ended(ExitStatus),
    /// The descriptor to be woken by is readable.
    Woken,
    /// The instant to wait until has passed.
    TimedOut,
}

/// What ends a wait, beside the end of the command.
#[derive(Debug, Clone, Copy, Default)]
pub struct Until<'a> {
    /// The wait ends at this instant; `None` never.
    pub instant: Option<Instant>,
    /// The wait ends when this descriptor is readable.
    pub wake: Option<BorrowedFd<'a>>,
}

/// A started command.
///
/// A drop neither ends nor reaps it, as with [`std::process::Child`].
#[derive(Debug)]
pub struct Child {
    program: OsString,
    started: Started,
    status: Option<ExitStatus>,
}

/// What one poll ended with.
pub enum Step {
    /// The command ended, the caller was woken, or the time is over.
    Event(Event),
    /// This signal arrived, which was not passed on; CHLD: a child changed, which need not be the command.
    Signal(Caught),
}

impl Child {
    /// Starts a command: the program, the arguments and the environment of `command`. What else it may
    /// hold, such as redirections, is left out.
    ///
    /// Returns before the program is executed, which takes as long as its disk does. Where it cannot be
    /// executed, the child ends, and [`Child::start_error`] says why.
    ///
    /// # Errors
    ///
    /// [`StartError::NoProcess`], or a word contains a NUL byte.
    pub fn start(command: &mut Command) -> Result<Self, StartError> {
        Self::start_on(command, &Terms::default())
    }

    /// As [`Child::start`], on these terms.
    ///
    /// # Errors
    /// As [`Child::start`].
    pub fn start_on(command: &mut Command, terms: &Terms) -> Result<Self, StartError> {
        let program = command.get_program().to_owned();
        match start::start(command, terms) {
            Ok(started) => Ok(Self { program, started, status: None }),
            Err(source) if source.kind() == io::ErrorKind::InvalidInput => {
                Err(StartError::new(&program, source))
            }
            Err(source) => Err(StartError::NoProcess { program, source }),
        }
    }

    /// The command's pid.
    pub fn pid(&self) -> Pid {
        self.started.pid
    }

    /// The command's end, if it has ended; it is reaped by the first call that says so.
    ///
    /// # Errors
    ///
    /// The kernel does not know it as our child: somebody else reaped it.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        while self.status.is_none() {
            match rustix::process::waitpid(Some(self.pid()), WaitOptions::NOHANG) {
                Ok(None) => break,
                Ok(Some((_, status))) => self.status = Some(ExitStatus::from_raw(status.as_raw())),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.status)
    }

    /// Why an ended command was never executed; `None` if it was. Ask once.
    pub fn start_error(&self) -> Option<StartError> {
        self.started.failure().map(|error| StartError::new(&self.program, error))
    }

    /// Sends the command a signal; one that has ended is no error.
    ///
    /// # Errors
    ///
    /// The kernel refuses (the command may have another user's rights by now).
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(&self.started.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes signals on until the command ends, or until something else does.
    ///
    /// # Errors
    ///
    /// The wait fails.
    pub fn wait(&mut self, relay: &Relay, until: Until<'_>) -> io::Result<Event> {
        loop {
            match self.step(relay, until)? {
                Step::Event(event) => return Ok(event),
                Step::Signal(caught) => self.pass_on(caught),
            }
        }
    }

    /// As `wait`, but returns also when a signal arrived, which is the caller's to pass on.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn step(&mut self, relay: &Relay, until: Until<'_>) -> io::Result<Step> {
        loop {
            // Asked in this order, so that a command which ended in time has ended,
            // however late this process gets to run.
            if let Some(status) = self.try_wait()? {
                return Ok(Step::Event(Event::Ended(status)));
            }
            if let Some(caught) = relay.next()? {
                return Ok(Step::Signal(caught));
            }
            if until.wake.is_some_and(readable) {
                return Ok(Step::Event(Event::Woken));
            }
            let left = until.instant.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Step::Event(Event::TimedOut));
            }
            let pidfd = self.started.pidfd.as_fd();
            let mut polled: Vec<PollFd<'_>> = [Some(pidfd), Some(relay.as_fd()), until.wake]
                .into_iter()
                .flatten()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect();
            // Years that do not fit are as good as no limit.
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            match rustix::event::poll(&mut polled, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends the command what reached this process, unless it has had it already.
    pub fn pass_on(&self, caught: Caught) {
        if !is_for(caught, self.pid()) {
            return;
        }
        if let Err(error) = self.signal(caught.signal) {
            tracing::warn!(pid = self.pid().as_raw_nonzero(), signal = ?caught.signal, %error,
                "cannot pass a signal on to the command");
        }
    }
}

/// Whether a signal that reached this process is to be passed on to another, which has not had it.
///
/// Ctrl-C reaches every process of the foreground group: passed on, it would reach the
/// command twice, and many programs take the second for "at once". Only a process that
/// has left our group has not had it. HUP is passed on always: when its terminal goes,
/// only the session's leader hears of it at first.
pub fn is_for(caught: Caught, pid: Pid) -> bool {
    if caught.sender == Sender::Process {
        return caught.signal != Signal::CHILD;
    }
    match caught.signal {
        // CPU times are this process's own.
        Signal::CHILD | Signal::XCPU | Signal::PROF | Signal::VTALARM => false,
        Signal::INT | Signal::QUIT | Signal::WINCH => {
            rustix::process::getpgid(Some(pid)).ok() != Some(rustix::process::getpgrp())
        }
        _ => true,
    }
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

fn names_a_file(program: &OsStr) -> bool {
    program.as_encoded_bytes().contains(&b'/') && Path::new(program).exists()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::{Child, StartError};

    #[test]
    fn a_command_that_cannot_be_started_says_why() {
        let check = |program: &str, is_expected: fn(&StartError) -> bool, part: &str| {
            let mut child = Child::start(&mut Command::new(program)).unwrap();
            while child.try_wait().unwrap().is_none() {
                std::thread::yield_now();
            }
            let error = child.start_error().expect("cannot start");
            assert!(is_expected(&error), "{program}: {error}");
            assert!(error.to_string().contains(part), "{error}");
        };
        let not_found: fn(&StartError) -> bool = |it| matches!(it, StartError::NotFound { .. });
        let cannot_execute: fn(&StartError) -> bool =
            |it| matches!(it, StartError::CannotExecute { .. });
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        check("no-such-program-anywhere", not_found, "PATH");
        check("/no/such/program", not_found, "not found");
        check(&file("plain", "text", 0o600), cannot_execute, "chmod +x");
        check(&file("orphan", "#!/no/such/sh\n", 0o700), cannot_execute, "interpreter");
        check(dir.path().to_str().unwrap(), cannot_execute, "is a directory");
    }
}
