//! The target: the worker whose evidence is captured, by a pidfd that tells whether it still is.

use std::fmt::Display;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use procfs::ProcError;
use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::HelperError;
use super::teller::Why;

/// What helps where the kernel refuses to let one process look into another.
const NO_PERMISSION: &str = "no permission to trace it: that takes the same user with no privilege \
     less and, where kernel.yama.ptrace_scope is 1, HANGWATCH_PTRACER=watchdog in the worker's \
     environment; or CAP_SYS_PTRACE for the watchdog";

/// What is read of a file in `/proc` at most, bytes.
pub(super) const READ_BYTES: u64 = 1 << 20;
/// Threads of a worker that are looked at, at most.
const THREADS: usize = 8192;

/// A worker.
pub(super) struct Target {
    pub(super) pid: u32,
    pidfd: OwnedFd,
    /// A thread of it that has memory and files: its first one may have ended.
    pub(super) tid: u32,
}

impl Target {
    /// The process `pid`, whose pidfd is the standard input.
    pub(super) fn take(pid: u32) -> Result<Target, HelperError> {
        let pidfd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
            .map_err(|_| HelperError::NoPidfd)?;
        let named = std::fs::read_to_string(format!(
            "/proc/self/fdinfo/{}",
            std::os::fd::AsRawFd::as_raw_fd(&pidfd)
        ));
        let is_its = named.unwrap_or_default().lines().any(|line| {
            line.strip_prefix("Pid:").is_some_and(|named| named.trim() == pid.to_string())
        });
        let mut target = Target { pid, pidfd, tid: pid };
        if !is_its && !target.is_dead() {
            return Err(HelperError::NoPidfd);
        }
        target.tid = target.living_thread().unwrap_or(pid);
        Ok(target)
    }

    /// Whether the process is dead, and what is read under its pid from now on another's.
    pub(super) fn is_dead(&self) -> bool {
        let mut polled = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Its directory in `/proc`: that of a thread with memory and files.
    pub(super) fn proc(&self) -> Result<Process, Why> {
        let root = if self.tid == self.pid {
            format!("/proc/{}", self.pid)
        } else {
            format!("/proc/{}/task/{}", self.pid, self.tid)
        };
        Process::new_with_root(root.into()).map_err(|error| why(&error))
    }

    /// A file of the process in `/proc`, as far as [`READ_BYTES`] go: some hold what the worker chose.
    pub(super) fn read(&self, file: impl Display) -> io::Result<String> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(format!("/proc/{}/{file}", self.pid))?;
        file.take(READ_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The ids of its threads, up to [`THREADS`].
    pub(super) fn tids(&self) -> io::Result<Vec<u32>> {
        let mut tids: Vec<u32> = std::fs::read_dir(format!("/proc/{}/task", self.pid))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .take(THREADS)
            .collect();
        tids.sort_unstable();
        Ok(tids)
    }

    /// How many threads it has.
    pub(super) fn thread_count(&self) -> Option<usize> {
        let status = self.read("status").ok()?;
        status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
    }

    fn living_thread(&self) -> Option<u32> {
        let is_alive = |tid: &u32| {
            let status = self.read(format!("task/{tid}/status")).unwrap_or_default();
            let state = status.lines().find_map(|line| line.strip_prefix("State:"));
            state.is_some_and(|state| !state.trim_start().starts_with(['Z', 'X']))
        };
        self.tids().ok()?.into_iter().find(is_alive)
    }
}

/// Why `/proc` did not tell.
pub(super) fn why(error: &ProcError) -> Why {
    match error {
        ProcError::PermissionDenied(_) => NO_PERMISSION.to_owned(),
        ProcError::NotFound(_) => "the process or thread is gone".to_owned(),
        ProcError::Io(error, _) => why_io(error),
        other => other.to_string(),
    }
}

/// Why a system call failed.
pub(super) fn why_io(error: &io::Error) -> Why {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => NO_PERMISSION.to_owned(),
        Some(libc::ESRCH | libc::ENOENT) => "the process or thread is gone".to_owned(),
        Some(libc::ENOSYS) => "the kernel, or a seccomp filter, has no such call".to_owned(),
        _ => error.to_string(),
    }
}
