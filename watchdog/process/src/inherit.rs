//! What a command would inherit from the watchdog that starts it, and must not: the raised limit of open
//! files (programs that use `select(2)`, or close every descriptor there may be, suffer from a high
//! one), the lowered OOM score, the signals that the watchdog catches or ignores, and `/dev/null` where a
//! standard descriptor was closed: the Rust runtime opens it there, before `main`.
#![expect(
    unsafe_code,
    reason = "what is done between fork and exec, and a constructor before main"
)]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::signals::AtStart;

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// The standard descriptors that were closed when this process was started: bit N stands for N.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Runs before the Rust runtime does.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    // SAFETY: asks only.
    let is_closed = |fd: &i32| unsafe { libc::fcntl(*fd, libc::F_GETFD) } == -1;
    let closed = (0..3).filter(is_closed).map(|fd| 1 << fd).sum();
    CLOSED.store(closed, Ordering::Relaxed);
}

/// Closes the standard descriptors that were closed when this process was started, for a command that is
/// given none in their place. For a child between fork and exec: it makes system calls only.
pub fn close_what_was_closed() {
    let closed = CLOSED.load(Ordering::Relaxed);
    for fd in (0..3).filter(|fd| closed & 1 << fd != 0) {
        // SAFETY: nothing in the child uses it, which is about to be another program.
        unsafe { libc::close(fd) };
    }
}

/// What this process had before it became a watchdog.
#[derive(Clone, Debug)]
pub struct Inheritance {
    open_files: Rlimit,
    /// `None` where it cannot be read.
    oom_score: Option<Vec<u8>>,
}

impl Inheritance {
    /// As this process is now.
    pub fn of_this_process() -> Inheritance {
        let oom_score = fs::read(OOM_SCORE).ok();
        Inheritance { open_files: getrlimit(Resource::Nofile), oom_score }
    }

    /// Gives the calling process these limits. For a child between fork and exec: it makes system calls
    /// only.
    ///
    /// # Errors
    /// The limit on open files is refused.
    pub fn take(&self) -> Result<(), Errno> {
        setrlimit(Resource::Nofile, self.open_files)?;
        if let Some(score) = &self.oom_score {
            // Refused, it leaves the command better protected than it was.
            let _ = write_oom_score(score);
        }
        Ok(())
    }

    /// Has the command begin with it, and with the signals that this process was started with.
    pub fn leave_to(&self, command: &mut Command) {
        let (inheritance, signals) = (self.clone(), AtStart::of_this_process());
        let take = move || {
            inheritance.take()?;
            signals.restore();
            Ok(())
        };
        // SAFETY: between fork and exec it makes system calls only; it neither allocates nor locks.
        unsafe { command.pre_exec(take) };
    }
}

fn write_oom_score(score: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, score)?;
    Ok(())
}
