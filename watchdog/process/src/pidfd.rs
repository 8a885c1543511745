//! A handle on a process that its pid's next owner cannot inherit.
//!
//! Every signal goes through a [`Pidfd`]. It names the process it was opened
//! on for as long as it is open, dead or alive.
#![expect(unsafe_code, reason = "a signal by its number, real-time ones included")]

use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hangwatch::sys::claim::pidfd_inode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Why no handle was had.
#[derive(Debug, thiserror::Error)]
pub enum OpenPidfdError {
    /// No process has this pid now.
    #[error("there is no process {pid}; it may have ended meanwhile")]
    Gone {
        /// The pid.
        pid: i32,
    },
    /// This process has used up its file descriptors.
    #[error(
        "no descriptor is left for process {pid}: {source}; \
         raise the limit of open files (ulimit -n)"
    )]
    NoDescriptors {
        /// The pid.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Any other refusal of the kernel.
    #[error("cannot open a pidfd of process {pid}: {source}; hangwatch needs Linux 5.3 or newer")]
    Io {
        /// The pid.
        pid: i32,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// The kernel took it for the process, which may be dead and not yet
    /// reaped by its parent.
    Sent,
    /// The process is dead and reaped.
    Gone,
}

/// Why a signal was not sent to a process that is there.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// We may not.
    #[error(
        "may not send {signal:?}: permission denied; run the watchdog as the worker's user, \
         or with CAP_KILL"
    )]
    Denied {
        /// The signal.
        signal: Signal,
    },
    /// Any other refusal of the kernel.
    #[error("cannot send {signal:?} through a pidfd: {source}")]
    Io {
        /// The signal.
        signal: Signal,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The signal with this number, 1 to 64, to be sent to another process.
pub fn signal_of(number: u8) -> Option<Signal> {
    let number = NonZeroI32::new(number.into()).filter(|number| number.get() <= 64)?;
    // SAFETY: the number is only sent, to another process; no handler or mask of this one changes.
    Some(unsafe { Signal::from_raw_nonzero_unchecked(number) })
}

/// A handle on one process.
#[derive(Debug)]
pub struct Pidfd {
    fd: OwnedFd,
}

impl Pidfd {
    /// Opens a handle on the process that has this pid now. Whether it is the
    /// one that was meant is for [`attest`](crate::attest) to prove.
    ///
    /// # Errors
    /// [`OpenPidfdError`]. The id of a thread that leads no process is none.
    pub fn open(pid: Pid) -> Result<Self, OpenPidfdError> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Err(open_error(pid.as_raw_pid(), errno)),
        }
    }

    /// Sends a signal to the process and to no other.
    ///
    /// # Errors
    /// [`SignalError`]. That the process is gone is no error.
    pub fn signal(&self, signal: Signal) -> Result<Signalled, SignalError> {
        match pidfd_send_signal(&self.fd, signal) {
            Ok(()) => Ok(Signalled::Sent),
            Err(Errno::SRCH) => Ok(Signalled::Gone),
            Err(Errno::PERM) => Err(SignalError::Denied { signal }),
            Err(errno) => Err(SignalError::Io { signal, source: errno.into() }),
        }
    }

    /// As [`Pidfd::signal`], by number: 1 to 64, real-time signals included. (32 and
    /// 33 are the C library's own; they are sent like any other, since the receiver
    /// asked for them by number.)
    ///
    /// # Errors
    /// [`SignalError`]; the kernel refuses numbers that are no signal.
    pub fn signal_number(&self, number: u8) -> Result<Signalled, SignalError> {
        let number = NonZeroI32::new(number.into()).unwrap_or(NonZeroI32::MAX);
        // SAFETY: the number is only sent, to another process; no handler or mask
        // of this one's changes by it.
        self.signal(unsafe { Signal::from_raw_nonzero_unchecked(number) })
    }

    /// Whether the process is dead: all its threads have ended, be it reaped by
    /// its parent or not. (That its first thread alone has ended is not death.)
    ///
    /// Does not wait; to wait, poll the descriptor for `POLLIN`.
    pub fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&Timespec::default())) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                // Out of kernel memory: not known to be dead.
                Err(_) => return false,
            }
        }
    }

    /// The process's inode on pidfs, unique for the whole boot; `None` before
    /// Linux 6.9, where all pidfds share one inode.
    pub fn inode(&self) -> Option<u64> {
        pidfd_inode(&self.fd)
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_error(pid: i32, errno: Errno) -> OpenPidfdError {
    match errno {
        // Linux 6.16 says ENOENT, before EINVAL, where a thread has the id.
        Errno::SRCH | Errno::NOENT | Errno::INVAL => OpenPidfdError::Gone { pid },
        Errno::MFILE | Errno::NFILE => OpenPidfdError::NoDescriptors { pid, source: errno.into() },
        other => OpenPidfdError::Io { pid, source: other.into() },
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, geteuid, getpid, getppid, setrlimit};

    use super::*;
    use hangwatch::sys::host::gettid;
    use hangwatch_test_children::{
        become_user, fork, fork_headless, pause_for_ever, wait_until_dead,
    };

    #[test]
    fn a_process_is_alive_then_dead_then_gone_and_stays_so() {
        let child = fork(|| pause_for_ever());
        let pidfd = Pidfd::open(child.pid()).unwrap();
        assert!(!pidfd.is_dead());
        assert_eq!(pidfd.signal(Signal::KILL).unwrap(), Signalled::Sent);
        wait_until_dead(&pidfd);
        assert!(pidfd.is_dead());
        assert_eq!(pidfd.signal(Signal::KILL).unwrap(), Signalled::Sent, "not reaped yet");
        let pid = child.pid();
        child.kill();
        assert!(pidfd.is_dead());
        assert_eq!(pidfd.signal(Signal::KILL).unwrap(), Signalled::Gone);
        // Nobody takes the pid at once; if someone did, it would be no Gone.
        match Pidfd::open(pid) {
            Err(OpenPidfdError::Gone { .. }) => {}
            Ok(next) => assert_ne!(next.inode(), pidfd.inode()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_inode_tells_processes_apart_and_is_one_per_process() {
        let own = Pidfd::open(getpid()).unwrap();
        let Some(inode) = own.inode() else {
            println!("skipped: this kernel has no pidfs (Linux 6.9)");
            return;
        };
        assert_eq!(Pidfd::open(getpid()).unwrap().inode(), Some(inode));
        let parent = Pidfd::open(getppid().unwrap()).unwrap();
        assert_ne!(parent.inode(), Some(inode));
    }

    #[test]
    fn a_thread_is_no_process() {
        let error = std::thread::spawn(|| Pidfd::open(gettid()).unwrap_err()).join().unwrap();
        assert!(matches!(error, OpenPidfdError::Gone { .. }), "{error}");
    }

    #[test]
    fn a_foreign_process_may_not_be_signalled() {
        if !geteuid().is_root() {
            println!("skipped: needs root to become another user");
            return;
        }
        let own = getpid();
        let child = fork(|| {
            become_user(4002);
            let signalled = Pidfd::open(own).unwrap().signal(Signal::URG);
            i32::from(!matches!(signalled, Err(SignalError::Denied { signal: Signal::URG })))
        });
        assert_eq!(child.exit_status(), 0);
    }

    #[test]
    fn running_out_of_descriptors_is_told_from_a_missing_process() {
        let child = fork(|| {
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            setrlimit(Resource::Nofile, none).unwrap();
            i32::from(!matches!(Pidfd::open(getpid()), Err(OpenPidfdError::NoDescriptors { .. })))
        });
        assert_eq!(child.exit_status(), 0);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_lives_on() {
        let child = fork_headless(|| {});
        let pidfd = Pidfd::open(child.pid()).unwrap();
        assert!(!pidfd.is_dead());
        child.kill();
        assert!(pidfd.is_dead());
    }
}
