//! Programs in a PID namespace of their own, below the caller's, with the same /dev/shm.
#![expect(unsafe_code, reason = "unshare and mount between fork and exec")]

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use crate::watchdog::program;

/// Whose `/proc` the program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proc {
    /// That of its own namespace, as in a container.
    Own,
    /// Its parent's.
    Parents,
}

/// `program` in a namespace of its own, started by a `stage-worker` that waits for it and dies with
/// it.
pub fn below(proc: Proc, inner: &Path) -> Command {
    let mut command = Command::new(program("stage-worker"));
    command.arg(if proc == Proc::Own { "container" } else { "below" }).arg(inner);
    command
}

/// Why a test in namespaces is skipped; `None` where it can be done.
pub fn refused() -> Option<String> {
    let status = below(Proc::Own, Path::new("true")).status();
    match status {
        Ok(status) if status.success() => None,
        other => Some(format!("no PID and mount namespaces are to be had: {other:?}")),
    }
}

/// What that `stage-worker` does: runs `program` with `arguments` and says how it ended.
///
/// # Errors
/// The kernel's.
pub fn run_below(proc: Proc, program: &str, arguments: &[String]) -> io::Result<ExitStatus> {
    let mount = if proc == Proc::Own { libc::CLONE_NEWNS } else { 0 };
    // SAFETY: changes where later children go and what is mounted for this process; touches no memory.
    checked(unsafe { libc::unshare(libc::CLONE_NEWPID | mount) })?;
    let mut command = Command::new(program);
    command.args(arguments);
    if proc == Proc::Own {
        // SAFETY: the closure only makes system calls.
        unsafe { command.pre_exec(mount_own_proc) };
    }
    command.status()
}

fn mount_own_proc() -> io::Result<()> {
    let (none, private) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the paths are C strings; the rest may be null for these flags.
    checked(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
    let (kind, proc) = (c"proc".as_ptr(), c"/proc".as_ptr());
    // SAFETY: as above.
    checked(unsafe { libc::mount(kind, proc, kind, 0, none.cast()) })
}

fn checked(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
