//! POSIX record locks on single bytes: the kernel's own word on which process
//! owns what.
//!
//! A lock belongs to a process, not to a descriptor: it falls when the process
//! ends, execs, or closes *any* descriptor of that file. One byte beyond the
//! file's end can be locked like any other. Who holds a byte is told with a pid
//! that the kernel supplies; `hangwatch-process` turns that into proof.
#![expect(unsafe_code, reason = "fcntl on byte ranges, which no safe crate in use offers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::Pid;

/// Why a lock could not be taken, given back or asked about.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Two processes would wait for each other.
    #[error(
        "cannot wait for the lock on byte {byte}: its holder waits for a lock of this process; \
         give back the others first"
    )]
    Deadlock {
        /// The byte.
        byte: u64,
    },
    /// No such byte can be.
    #[error("cannot lock byte {byte}: offsets end at {}; check the layout", i64::MAX)]
    OutOfRange {
        /// The byte.
        byte: u64,
    },
    /// Any other refusal of the kernel.
    #[error(
        "{what} of the lock on byte {byte} failed: {source}; \
         check that the descriptor is open for writing and that its file system has record locks"
    )]
    Io {
        /// Which call it was.
        what: &'static str,
        /// The byte.
        byte: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Who keeps this process from locking a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody, or this process itself: the kernel does not report a process's
    /// own locks to it.
    Free,
    /// The process that had this pid, in our PID namespace, when it took the
    /// lock. It may be gone and its pid taken by another.
    Process(Pid),
    /// A process that our PID namespace does not show, or (outside the initial
    /// one) one that is gone while a sibling that shares its file table lives.
    Unseen,
    /// An open file description (`F_OFD_SETLK`), which has no process.
    Description,
}

/// Takes the write lock on `byte` if it is free: true if this process has it
/// now (or had it before).
///
/// # Errors
/// [`LockError`].
pub fn try_lock(fd: impl AsFd, byte: u64) -> Result<bool, LockError> {
    set_lock(fd, write_lock(byte)?)
}

fn set_lock(fd: impl AsFd, mut lock: libc::flock) -> Result<bool, LockError> {
    let byte = lock.l_start.cast_unsigned();
    match fcntl(fd, libc::F_SETLK, &mut lock) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
            Ok(false)
        }
        Err(source) => Err(LockError::Io { what: "F_SETLK", byte, source }),
    }
}

/// Takes the write lock on `byte` and all bytes after it, if nobody has any of them.
///
/// # Errors
/// [`LockError`].
pub fn try_lock_from(fd: impl AsFd, byte: u64) -> Result<bool, LockError> {
    // A length of zero reaches to the end of all offsets.
    set_lock(fd, libc::flock { l_len: 0, ..write_lock(byte)? })
}

/// Takes the write lock on `byte`, waiting for its holder to give it back or
/// end, however long that takes. A signal handler's return does not end the
/// wait.
///
/// # Errors
/// [`LockError`].
pub fn lock_wait(fd: impl AsFd, byte: u64) -> Result<(), LockError> {
    let mut lock = write_lock(byte)?;
    loop {
        match fcntl(&fd, libc::F_SETLKW, &mut lock) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EDEADLK) => {
                return Err(LockError::Deadlock { byte });
            }
            Err(source) => return Err(LockError::Io { what: "F_SETLKW", byte, source }),
        }
    }
}

/// Gives back the lock on `byte`; nothing happens if this process has none.
///
/// # Errors
/// [`LockError`].
pub fn unlock(fd: impl AsFd, byte: u64) -> Result<(), LockError> {
    let mut lock = write_lock(byte)?;
    lock.l_type = libc::F_UNLCK as libc::c_short;
    fcntl(fd, libc::F_SETLK, &mut lock).map_err(|source| LockError::Io {
        what: "giving back",
        byte,
        source,
    })
}

/// Asks who holds the lock on `byte`. Never this process: see [`Holder::Free`].
///
/// The kernel walks all locks of the file: admit one lane at a time, and never
/// ask in the tick.
///
/// # Errors
/// [`LockError`].
pub fn holder(fd: impl AsFd, byte: u64) -> Result<Holder, LockError> {
    holder_of(fd, write_lock(byte)?)
}

/// Asks who holds a lock on `byte` or any after it: one of them, where there are many. Never this
/// process.
///
/// # Errors
/// [`LockError`].
pub fn holder_from(fd: impl AsFd, byte: u64) -> Result<Holder, LockError> {
    // A length of zero reaches to the end of all offsets.
    holder_of(fd, libc::flock { l_len: 0, ..write_lock(byte)? })
}

fn holder_of(fd: impl AsFd, mut lock: libc::flock) -> Result<Holder, LockError> {
    let byte = lock.l_start.cast_unsigned();
    fcntl(fd, libc::F_GETLK, &mut lock).map_err(|source| LockError::Io {
        what: "F_GETLK",
        byte,
        source,
    })?;
    if libc::c_int::from(lock.l_type) == libc::F_UNLCK {
        return Ok(Holder::Free);
    }
    Ok(match lock.l_pid {
        -1 => Holder::Description,
        pid if pid > 0 => Pid::from_raw(pid).map_or(Holder::Unseen, Holder::Process),
        // Zero is a process outside our namespace; a lock held over the
        // network has a negative pid.
        _ => Holder::Unseen,
    })
}

fn write_lock(byte: u64) -> Result<libc::flock, LockError> {
    Ok(libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(byte).map_err(|_| LockError::OutOfRange { byte })?,
        l_len: 1,
        l_pid: 0,
    })
}

fn fcntl(fd: impl AsFd, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed, and `lock`
    // is a flock that the kernel may read and write.
    let rc = unsafe { libc::fcntl(fd, command, std::ptr::from_mut(lock)) };
    if rc == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_test_children::{Mark, fork, fork_holding, ofd_lock, shm_file};

    #[test]
    fn a_held_byte_is_refused_and_its_holder_named_until_it_dies() {
        let file = shm_file(4096);
        let child = fork_holding(&file, &[3]);
        assert!(!try_lock(&file, 3).unwrap());
        assert_eq!(holder(&file, 3).unwrap(), Holder::Process(child.pid()));
        assert_eq!(holder(&file, 2).unwrap(), Holder::Free);
        assert_eq!(holder_from(&file, 2).unwrap(), Holder::Process(child.pid()));
        assert_eq!(holder_from(&file, 4).unwrap(), Holder::Free);
        assert!(try_lock(&file, 4).unwrap(), "the next byte is another lock");
        assert!(!try_lock_from(&file, 2).unwrap(), "one of them is held");
        assert!(try_lock_from(&file, 4).unwrap());
        child.kill();
        assert_eq!(holder(&file, 3).unwrap(), Holder::Free);
        assert!(try_lock_from(&file, 3).unwrap());
        let refused = fork(|| i32::from(try_lock(&file, 1 << 50).unwrap())).exit_status();
        assert_eq!(refused, 0);
    }

    #[test]
    fn ones_own_lock_is_not_reported_and_may_be_taken_again() {
        let file = shm_file(4096);
        assert!(try_lock(&file, 0).unwrap());
        assert!(try_lock(&file, 0).unwrap());
        assert_eq!(holder(&file, 0).unwrap(), Holder::Free);
        let taken = || fork(|| i32::from(!try_lock(&file, 0).unwrap())).exit_status();
        assert_eq!(taken(), 1);
        unlock(&file, 0).unwrap();
        unlock(&file, 0).unwrap();
        assert_eq!(taken(), 0);
    }

    #[test]
    fn waiting_ends_when_the_holder_dies() {
        let file = shm_file(4096);
        let child = fork_holding(&file, &[8]);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock_wait(&file, 8));
            child.kill();
            waiter.join().unwrap().unwrap();
        });
        assert!(try_lock(&file, 8).unwrap());
    }

    #[test]
    fn waiting_for_each_other_is_refused() {
        let file = shm_file(4096);
        assert!(try_lock(&file, 0).unwrap());
        let ready = Mark::new();
        // The child waits for byte 0 and holds byte 1. Whichever of the two
        // comes last to its wait is refused; a refused child holds on.
        let child = fork(|| {
            assert!(try_lock(&file, 1).unwrap());
            ready.send(0);
            match lock_wait(&file, 0) {
                Err(LockError::Deadlock { byte: 0 }) => 1,
                Ok(()) => 0,
                Err(_) => 2,
            }
        });
        ready.wait();
        match lock_wait(&file, 1) {
            Err(LockError::Deadlock { byte: 1 }) => {
                unlock(&file, 0).unwrap();
                assert_eq!(child.exit_status(), 0);
            }
            Ok(()) => assert_eq!(child.exit_status(), 1),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_lock_of_a_description_names_no_process() {
        let file = shm_file(4096);
        ofd_lock(&file, 5);
        assert_eq!(holder(&file, 5).unwrap(), Holder::Description);
    }

    #[test]
    fn bytes_that_cannot_be_and_files_that_cannot_be_locked_are_refused() {
        let file = shm_file(4096);
        let error = try_lock(&file, u64::MAX).unwrap_err();
        assert!(matches!(error, LockError::OutOfRange { byte: u64::MAX }), "{error}");
        let read_only = std::fs::File::open("/proc/self/stat").unwrap();
        for result in [try_lock(&read_only, 0).map(|_| ()), lock_wait(&read_only, 0)] {
            assert!(matches!(result, Err(LockError::Io { .. })), "{result:?}");
        }
    }
}
