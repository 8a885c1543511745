#![expect(unsafe_code, reason = "to fork, and to close what a forked child was given, is unsafe")]
//! A child of this process that goes on with a copy of its memory, and with nothing else of it.
//!
//! Only a process with one thread is forked: in the child of any other, a lock that one of the other
//! threads held would be held for ever.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

/// Which of the two this is.
#[derive(Debug)]
pub enum Forked {
    /// The process that forked, and its child.
    Parent(Pid),
    /// The child.
    Child,
}

/// Forks this process.
///
/// # Errors
/// Where it has other threads, or no process is to be had.
pub fn fork() -> io::Result<Forked> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("this process has {threads} threads")));
    }
    // SAFETY: this is the only thread, so that the child has whatever it needs in order.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map_or(Forked::Child, Forked::Parent)),
    }
}

/// Leaves what a forked child has of its parent's: the session with its terminal, standard input and
/// output, and every other descriptor but standard error and those in `kept`.
///
/// Only right where nothing in this process owns a descriptor but those in `kept`.
///
/// # Errors
/// No session can be begun, or `/dev/null` cannot be opened.
pub fn detach(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    rustix::process::setsid()?;
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    kept.sort_unstable();
    let mut from = 3;
    for fd in kept {
        if fd > from {
            close_range(from, fd - 1);
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Closes these descriptors, as far as the kernel can (Linux 5.9).
pub(crate) fn close_range(first: u32, last: u32) {
    // SAFETY: the caller answers for it that nothing in this process uses one of them.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
