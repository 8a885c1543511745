//! What the tests of this layer share: real children that are always reaped,
//! and files on tmpfs that leave no name behind.
#![expect(unsafe_code, reason = "fork and raw clone, for tests against the real kernel")]

use std::ffi::CString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

/// A child process, killed and reaped when dropped.
pub(super) struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// The child of this pid, taken into care.
    pub(super) fn adopt(pid: Pid) -> Self {
        Self { pid, reaped: false }
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the child to exit of itself.
    pub(super) fn exit_status(mut self) -> i32 {
        let status = self.wait();
        status.exit_status().unwrap_or_else(|| panic!("child ended by {status:?}"))
    }

    /// Kills and reaps; the pid is free afterwards.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.wait();
    }

    fn wait(&mut self) -> WaitStatus {
        self.reaped = true;
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Ok(Some((_, status))) => return status,
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("waitpid of {:?}: {error}", self.pid),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.end();
        }
    }
}

/// Forks; the child runs `body` and exits with what it returns (101 after a
/// panic). It runs with one thread: it must not wait for any other.
pub(super) fn fork(body: impl FnOnce() -> i32) -> Child {
    // SAFETY: the child runs on a copy of this thread alone; glibc leaves its
    // allocator usable in it, and it leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if let Some(pid) = Pid::from_raw(pid) {
        return Child::adopt(pid);
    }
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
    // SAFETY: ends the child at once, running no destructors of ours.
    unsafe { libc::_exit(code) }
}

/// A channel on which a child reports that it has come so far.
pub(super) struct Mark {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Mark {
    pub(super) fn new() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Self { reader, writer }
    }

    pub(super) fn send(&self, value: i32) {
        (&self.writer).write_all(&value.to_ne_bytes()).expect("mark sent");
    }

    pub(super) fn wait(&self) -> i32 {
        let mut bytes = [0; 4];
        (&self.reader).read_exact(&mut bytes).expect("mark received");
        i32::from_ne_bytes(bytes)
    }
}

/// Sleeps until killed.
pub(super) fn pause_for_ever() -> ! {
    loop {
        // SAFETY: waits for a signal, touches nothing.
        unsafe { libc::pause() };
    }
}

/// A preallocated file on /dev/shm that has no name.
pub(super) fn shm_file(len: u64) -> File {
    // SAFETY: the path is a C string, the call has no other duties.
    let fd = unsafe {
        libc::open(c"/dev/shm".as_ptr(), libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC, 0o600)
    };
    assert!(fd >= 0, "O_TMPFILE: {}", std::io::Error::last_os_error());
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len).expect("length set");
    file
}

/// Gives up root for good, in a child: user and group `id`, no other groups.
pub(super) fn become_user(id: u32) {
    // SAFETY: no groups are read; the pointer may be null for a count of 0.
    let rc = unsafe { libc::setgroups(0, std::ptr::null()) };
    assert_eq!(rc, 0, "setgroups");
    // SAFETY: changes the credentials of this process, touches no memory.
    let rc = unsafe { libc::setresgid(id, id, id) };
    assert_eq!(rc, 0, "setresgid");
    // SAFETY: as above.
    let rc = unsafe { libc::setresuid(id, id, id) };
    assert_eq!(rc, 0, "setresuid");
    // The kernel made /proc/self root's with that; it is ours again from here.
    // SAFETY: sets a flag of this process.
    let rc = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) };
    assert_eq!(rc, 0, "PR_SET_DUMPABLE");
}

/// Mounts a tmpfs of `len` bytes at `path`, in a mount namespace of this
/// process's own. For children only; it is gone when they are.
pub(super) fn mount_small_tmpfs(path: &Path, len: u64) -> std::io::Result<()> {
    let checked = |rc: i32| if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    let path = CString::new(path.as_os_str().as_bytes())?;
    let options = CString::new(format!("size={len}"))?;
    // SAFETY: gives this process (one thread, a child) a namespace of its own.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let (none, flags) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: the paths are C strings; the rest may be null for these flags.
    checked(unsafe { libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) })?;
    let (tmpfs, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
    // SAFETY: all pointers are C strings that outlive the call.
    checked(unsafe { libc::mount(tmpfs, path.as_ptr(), tmpfs, 0, options) })
}

/// Locks a byte for the open file description rather than for the process.
pub(super) fn ofd_lock(file: &File, byte: i64) {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and the kernel only reads `lock`.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    assert_eq!(rc, 0, "F_OFD_SETLK: {}", std::io::Error::last_os_error());
}
