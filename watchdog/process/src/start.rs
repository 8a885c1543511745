//! The start of a command: fork and exec without a wait for the exec.
//!
//! [`std::process::Command::spawn`] returns once the exec has succeeded. Where the program lies on a disk
//! that does not answer, it never does, and neither a deadline nor SIGTERM would count meanwhile. [`start`]
//! returns as soon as there is a process; [`Started::failure`] says after its end whether the exec failed.
#![expect(unsafe_code, reason = "fork, and what a child may do between fork and exec")]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::Command;
use std::ptr::null;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::inherit::{self, Inheritance};
use crate::signals::{AllBlocked, AtStart};

/// What becomes of a command when the process that started it ends without a word, as by SIGKILL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bond {
    /// It goes on.
    #[default]
    Loose,
    /// It is killed with the thread that started it: that one must last as long as its process.
    ///
    /// A set-user-ID program is not killed by this, nor is what the command has started.
    Dies,
}

/// What a command begins with.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// Limits to begin with; `None` for those of this process.
    pub inheritance: Option<Inheritance>,
    /// Whether the command outlives this process.
    pub bond: Bond,
    /// What the command's process says before it executes the program.
    pub announcement: Option<Announcement>,
}

/// Says something through a socket in the command's process, before the program is executed.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The socket to say it through.
    pub socket: Arc<OwnedFd>,
    /// Makes system calls only: it neither allocates nor locks.
    pub say: fn(&OwnedFd),
}

/// A process that executes a command, or is about to.
#[derive(Debug)]
pub struct Started {
    /// Its pid; nobody else can have it until it is waited for.
    pub pid: Pid,
    /// A pidfd of it.
    pub pidfd: OwnedFd,
    /// The error number of an exec that failed; nothing comes of one that succeeded.
    failure: OwnedFd,
}

impl Started {
    /// Why the command was not executed, once its process has ended; `None` if it was.
    pub fn failure(&self) -> Option<io::Error> {
        let mut number = [0; 4];
        match rustix::io::read(&self.failure, &mut number) {
            Ok(4) => Some(io::Error::from_raw_os_error(i32::from_ne_bytes(number))),
            _ => None,
        }
    }
}

/// Starts a command: its program, arguments and environment are taken from `command`, nothing else. The
/// signals that it ignores and blocks, and the standard descriptors that are closed, are those this process
/// was started with.
///
/// # Errors
/// No process or descriptor can be had, or a word contains a NUL byte.
pub fn start(command: &Command, terms: &Terms) -> io::Result<Started> {
    let image = Image::of(command)?;
    let (failure, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let parent = rustix::process::getpid();
    let signals = AtStart::of_this_process();
    // A handler of ours that ran in the child would write to the relay of this process.
    let blocked = AllBlocked::new();
    // SAFETY: the child makes system calls only until it executes the program or exits; what it reads
    // was made before the fork.
    let pid = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => image.replace_child(terms, parent, signals, &tell),
        pid => Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no pid"))?,
    };
    drop(blocked);
    // The child is not reaped yet, so that its pid cannot be another's.
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Started { pid, pidfd, failure }),
        Err(error) => {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(error.into())
        }
    }
}

/// A program with its arguments and its environment, as the kernel takes them.
struct Image {
    arguments: Strings,
    environment: Strings,
}

impl Image {
    fn of(command: &Command) -> io::Result<Image> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => drop(environment.insert(name.to_owned(), value.to_owned())),
                None => drop(environment.remove(name)),
            }
        }
        let assignments = environment.into_iter().map(|(name, value)| {
            let bytes = [name.as_bytes(), b"=", value.as_bytes()].concat();
            OsString::from_vec(bytes)
        });
        Ok(Image {
            arguments: Strings::new(words.map(OsStr::to_owned))?,
            environment: Strings::new(assignments)?,
        })
    }

    /// Executes the program in a forked child, or tells why not and exits.
    fn replace_child(&self, terms: &Terms, parent: Pid, signals: AtStart, tell: &OwnedFd) -> ! {
        let error = self.prepare_and_execute(terms, parent, signals);
        let number = error.raw_os_error().to_ne_bytes();
        let _ = rustix::io::write(tell, &number);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(127) }
    }

    fn prepare_and_execute(&self, terms: &Terms, parent: Pid, signals: AtStart) -> Errno {
        if terms.bond == Bond::Dies {
            let set = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            if let Err(error) = set {
                return error;
            }
            // It may have ended before it was asked for.
            if rustix::process::getppid() != Some(parent) {
                return Errno::CHILD;
            }
        }
        if let Some(inheritance) = &terms.inheritance
            && let Err(error) = inheritance.take()
        {
            return error;
        }
        if let Some(Announcement { socket, say }) = &terms.announcement {
            say(socket);
        }
        signals.restore();
        inherit::close_what_was_closed();
        let (arguments, environment) = (self.arguments.pointers(), self.environment.pointers());
        // SAFETY: the list has at least the program's name, and so a first element.
        let program = unsafe { *arguments };
        // SAFETY: both lists end with a null pointer, and their strings outlive the call.
        unsafe { libc::execvpe(program, arguments, environment) };
        let number = std::io::Error::last_os_error().raw_os_error();
        number.map_or(Errno::IO, Errno::from_raw_os_error)
    }
}

/// Strings as C has them: the pointers to them, and a null pointer.
struct Strings {
    _owned: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    fn new(strings: impl Iterator<Item = OsString>) -> io::Result<Strings> {
        let owned: Result<Vec<CString>, _> =
            strings.map(|string| CString::new(string.into_vec())).collect();
        let owned = owned?;
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([null()]).collect();
        Ok(Strings { _owned: owned, pointers })
    }

    fn pointers(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}
