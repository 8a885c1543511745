//! Processes that are no workers: one that comes to have a dead worker's pid, one that shared its file
//! table with a worker.
#![expect(unsafe_code, reason = "clone3 with a pid of one's choice, which no safe crate offers")]

use std::io;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// A child that does nothing; killed and waited for when dropped.
pub struct Newcomer {
    pid: Pid,
}

impl Newcomer {
    /// A child that has just this pid, which must be free.
    ///
    /// # Errors
    /// The kernel's: `EPERM` without `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, `EEXIST` where
    /// another process was faster.
    pub fn with_pid(pid: u32) -> io::Result<Newcomer> {
        let pid = pid_of(pid);
        let set_tid = [pid.as_raw_pid()];
        // SAFETY: all zeros is a valid clone_args.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
        args.set_tid = set_tid.as_ptr().addr() as u64;
        args.set_tid_size = 1;
        // SAFETY: as fork; the kernel reads `args` and `set_tid`, both alive. The child only makes
        // system calls.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } {
            0 => wait_for_the_end(),
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(Newcomer { pid }),
        }
    }

    /// Takes a child into care that somebody else made for this process.
    ///
    /// # Panics
    /// Where the pid is none.
    pub fn adopt(pid: u32) -> Newcomer {
        Newcomer { pid: pid_of(pid) }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it is alive.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn is_alive(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid), options).unwrap().is_none()
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED);
    }
}

/// A child of the caller's parent that shares the caller's file table, and with it its locks.
///
/// # Errors
/// The kernel's.
pub fn sibling() -> io::Result<u32> {
    let flags = libc::CLONE_FILES | libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork, with a copy of the memory and no new stack; the child only makes system calls.
    match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
        0 => wait_for_the_end(),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(u32::try_from(pid).expect("pids are positive")),
    }
}

fn wait_for_the_end() -> ! {
    // SAFETY: it is not to outlive its parent; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    loop {
        // SAFETY: waits for a signal, touches nothing.
        unsafe { libc::pause() };
    }
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).expect("a pid")
}
