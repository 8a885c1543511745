//! What the tests of several crates share: real children that are always reaped, and files on tmpfs
//! that leave no name behind.
//!
//! It knows none of the crates it serves, so that their unit tests can use it.
#![expect(unsafe_code, reason = "fork and raw clone, for tests against the real kernel")]

use std::ffi::CString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_parent_process_death_signal,
    waitpid,
};

/// A child process, killed and reaped when dropped.
pub struct Child {
    pid: Pid,
    reaped: bool,
}

impl Child {
    /// The child of this pid, taken into care.
    pub fn adopt(pid: Pid) -> Self {
        Self { pid, reaped: false }
    }

    /// Its pid, which is its own until it is reaped.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for the child to exit of itself.
    pub fn exit_status(mut self) -> i32 {
        let status = self.wait();
        status.exit_status().unwrap_or_else(|| panic!("child ended by {status:?}"))
    }

    /// Kills and reaps; the pid is free afterwards.
    pub fn kill(mut self) {
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
pub fn fork(body: impl FnOnce() -> i32) -> Child {
    // SAFETY: the child runs on a copy of this thread alone; glibc leaves its
    // allocator usable in it, and it leaves by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if let Some(pid) = Pid::from_raw(pid) {
        return Child::adopt(pid);
    }
    // Were the test to fail, nobody below it would be left behind.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(101);
    // SAFETY: ends the child at once, running no destructors of ours.
    unsafe { libc::_exit(code) }
}

/// A channel on which a child reports that it has come so far.
pub struct Mark {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Default for Mark {
    fn default() -> Self {
        Self::new()
    }
}

impl Mark {
    /// A new one.
    pub fn new() -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        Self { reader, writer }
    }

    /// Reports a value.
    pub fn send(&self, value: i32) {
        (&self.writer).write_all(&value.to_ne_bytes()).expect("mark sent");
    }

    /// Waits for the next value.
    pub fn wait(&self) -> i32 {
        let mut bytes = [0; 4];
        (&self.reader).read_exact(&mut bytes).expect("mark received");
        i32::from_ne_bytes(bytes)
    }
}

/// Sleeps until killed.
pub fn pause_for_ever() -> ! {
    loop {
        // SAFETY: waits for a signal, touches nothing.
        unsafe { libc::pause() };
    }
}

/// A preallocated file on /dev/shm that has no name.
pub fn shm_file(len: u64) -> File {
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
pub fn become_user(id: u32) {
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
///
/// # Errors
/// The kernel's.
pub fn mount_small_tmpfs(path: &Path, len: u64) -> std::io::Result<()> {
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
pub fn ofd_lock(file: &File, byte: i64) {
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

/// Whether a process, also this one, has a byte locked: as the open file description sees it.
pub fn is_locked(file: impl AsFd, byte: u64) -> bool {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(byte).unwrap(),
        l_len: 1,
        l_pid: 0,
    };
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, and `lock` is a flock that the kernel may read and write.
    let rc = unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) };
    assert_eq!(rc, 0, "F_OFD_GETLK: {}", std::io::Error::last_os_error());
    libc::c_int::from(lock.l_type) != libc::F_UNLCK
}

/// Waits until the process behind the handle is dead.
pub fn wait_until_dead(pidfd: impl AsFd) {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    while poll(&mut fds, None).is_err() {}
}

/// A child that runs `body`, whose first thread has then ended while another
/// lives on.
pub fn fork_headless(body: impl FnOnce()) -> Child {
    let ready = Arc::new(Mark::new());
    let child = fork(|| {
        body();
        let ready = Arc::clone(&ready);
        std::thread::spawn(move || {
            while !has_first_thread_ended() {
                std::thread::yield_now();
            }
            ready.send(0);
            pause_for_ever()
        });
        loop {
            // SAFETY: ends this thread alone; it owns nothing that the other
            // one needs.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
    });
    ready.wait();
    child
}

/// Whether the first thread of this process has ended: the letter after its name in `stat`.
fn has_first_thread_ended() -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", getpid())).expect("own stat");
    stat.rsplit_once(") ").expect("a name in parentheses").1.starts_with('Z')
}

/// Traces a process, which goes on running.
///
/// # Errors
/// The kernel's.
pub fn trace(pid: Pid) -> std::io::Result<()> {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: PTRACE_SEIZE takes no addresses.
    let rc = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid.as_raw_pid(), null, null) };
    if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A process that shares this one's file table and has the same parent; it
/// does nothing until it is killed. For children: their parent must reap it.
pub fn clone_sharing_files() -> Pid {
    let flags = libc::CLONE_FILES | libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: as fork, with a copy of the memory and no new stack; the child
    // only waits for signals.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        pause_for_ever();
    }
    i32::try_from(pid).ok().and_then(Pid::from_raw).expect("clone with CLONE_FILES")
}

/// A child that has just this pid, which must be free; it does nothing until it
/// is killed. Needs `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`.
///
/// # Errors
/// The kernel's.
pub fn clone_with_pid(pid: Pid) -> std::io::Result<Child> {
    let set_tid = [pid.as_raw_pid()];
    // SAFETY: all zeros is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.set_tid = set_tid.as_ptr().addr() as u64;
    args.set_tid_size = 1;
    // SAFETY: as fork; the kernel reads `args` and `set_tid`, both alive. The
    // child only waits for signals.
    let rc = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match rc {
        0 => pause_for_ever(),
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(Child::adopt(pid)),
    }
}

/// Puts the children that this process forks from now on into a PID namespace
/// of their own.
///
/// # Errors
/// The kernel's.
pub fn unshare_pids() -> std::io::Result<()> {
    // SAFETY: changes where later children go, touches no memory.
    let rc = unsafe { libc::unshare(libc::CLONE_NEWPID) };
    if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A child that holds the locks on `bytes` of `file` until it is killed.
pub fn fork_holding(file: &File, bytes: &[u64]) -> Child {
    let ready = Mark::new();
    let child = fork(|| {
        for &byte in bytes {
            assert!(lock(file, byte), "byte {byte} is taken");
        }
        ready.send(0);
        pause_for_ever()
    });
    ready.wait();
    child
}

/// Takes the POSIX write lock on a byte for this process, if it is free.
fn lock(file: &File, byte: u64) -> bool {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::try_from(byte).expect("a byte that can be locked"),
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open and the kernel only reads `lock`.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) == 0 }
}
