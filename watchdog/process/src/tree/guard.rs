//! The guard: a process that undoes or completes a stop when the process that stopped a tree is killed.
//!
//! A stopped process does not wake up by itself, and SIGKILL leaves the process that stopped it no time to
//! continue it. So each process is registered here before SIGSTOP is sent to it. The guard waits for the
//! death of its parent and then sends what the table says to all that are registered: SIGCONT, or SIGKILL
//! where they were stopped to be killed. It is started before the command, so that a command that takes
//! all processes does not prevent it, and has a session of its own: a signal to the process group of its
//! parent does not reach it.
#![expect(unsafe_code, reason = "fork, and memory that is shared with the forked process")]

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::children;
use crate::fork::close_range;
use crate::lineage::{Identity, PROCESSES_AT_MOST};
use crate::signals::AllBlocked;

/// Bits of a word of the table that are a pid; the others are its start time.
const PID_BITS: u32 = 22;
/// The most that is read of a `stat` file, bytes: its fifty numbers and a name are shorter.
const STAT_BYTES: usize = 2048;

/// What happens to registered processes when this process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// They continue.
    Continue,
    /// They are killed, as they would have been.
    Kill,
}

/// The guard of one tree. Dropped, it does what it would do at the death of this process, and ends.
#[derive(Debug)]
pub(super) struct Guard {
    table: Table,
    registered: HashSet<Identity>,
    pid: Pid,
    pidfd: OwnedFd,
}

impl Guard {
    /// Starts one.
    ///
    /// # Errors
    /// No process, memory or descriptor can be had.
    pub(super) fn start() -> io::Result<Guard> {
        let table = Table::new()?;
        let parent = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let starting = children::starting();
        // A handler of this process that ran in the guard would write to the relay of this process.
        let blocked = AllBlocked::new();
        // SAFETY: the child makes system calls only; it neither allocates, locks nor panics.
        let pid = match unsafe { libc::fork() } {
            -1 => return Err(io::Error::last_os_error()),
            0 => watch(&parent, &table),
            pid => Pid::from_raw(pid).ok_or_else(|| io::Error::other("fork returned no pid"))?,
        };
        drop(blocked);
        starting.has_begun(pid.as_raw_pid().unsigned_abs());
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Guard { table, registered: HashSet::new(), pid, pidfd }),
            Err(error) => {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                reap(pid);
                Err(error.into())
            }
        }
    }

    /// Says what happens to all that are registered.
    pub(super) fn set(&self, then: Then) {
        self.table.set(then);
    }

    /// Registers a process that is about to be stopped. False where the table is full: it must not be
    /// stopped then.
    pub(super) fn register(&mut self, process: Identity) -> bool {
        let is_new = self.registered.insert(process);
        !is_new || self.table.push(process)
    }

    /// Forgets all that are registered: none of them is stopped any more.
    pub(super) fn clear(&mut self) {
        self.registered.clear();
        self.table.clear();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // After a failure some may be stopped.
        self.table.act();
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        reap(self.pid);
    }
}

fn reap(guard: Pid) {
    while matches!(waitid(WaitId::Pid(guard), WaitIdOptions::EXITED), Err(Errno::INTR)) {}
    children::ended(guard.as_raw_pid().unsigned_abs());
}

/// The guard's life, in a forked child of a process that may have other threads.
fn watch(parent: &OwnedFd, table: &Table) -> ! {
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"hangwatch-guard");
    let kept = parent.as_raw_fd().unsigned_abs();
    if let Some(below) = kept.checked_sub(1) {
        close_range(0, below);
    }
    close_range(kept + 1, u32::MAX);
    let mut polled = [PollFd::new(parent, PollFlags::IN)];
    while !matches!(poll(&mut polled, None), Ok(1..)) {}
    table.act();
    // SAFETY: ends the child without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Memory of this process and its guard: how many are registered, what happens to them, and which they
/// are. Pages that nobody writes to take no memory.
struct Table(NonNull<AtomicU64>);

impl Table {
    const COUNT: usize = 0;
    const THEN: usize = 1;
    const FIRST: usize = 2;
    const WORDS: usize = Self::FIRST + PROCESSES_AT_MOST;
    const BYTES: usize = Self::WORDS * size_of::<AtomicU64>();

    fn new() -> io::Result<Table> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::NORESERVE);
        // SAFETY: new memory, at an address that the kernel chooses.
        let memory = unsafe {
            mmap_anonymous(std::ptr::null_mut(), Self::BYTES, access, flags | MapFlags::SHARED)?
        };
        let memory = NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Table(memory))
    }

    fn word(&self, place: usize) -> &AtomicU64 {
        let place = place.min(Self::WORDS - 1);
        // SAFETY: within the mapping.
        let word = unsafe { self.0.add(place) };
        // SAFETY: the mapping lasts as long as this, is zeroed at first and aligned to pages; only atomics
        // refer to it.
        unsafe { word.as_ref() }
    }

    fn set(&self, then: Then) {
        // Release: pairs with the Acquire in `act`.
        self.word(Self::THEN).store(u64::from(then == Then::Kill), Ordering::Release);
    }

    fn push(&self, Identity { pid, start }: Identity) -> bool {
        let count = self.word(Self::COUNT).load(Ordering::Relaxed);
        let Some(place) = usize::try_from(count).ok().filter(|&at| at < PROCESSES_AT_MOST) else {
            return false;
        };
        let word = start << PID_BITS | u64::from(pid.as_raw_pid().unsigned_abs());
        self.word(Self::FIRST + place).store(word, Ordering::Relaxed);
        // Release: pairs with the Acquire in `act`.
        self.word(Self::COUNT).store(count + 1, Ordering::Release);
        true
    }

    fn clear(&self) {
        self.word(Self::COUNT).store(0, Ordering::Release);
    }

    /// Signals all that are registered, as far as they are there. Makes system calls only.
    fn act(&self) {
        // Acquire: pairs with the Release in `push` and `set`.
        let count = self.word(Self::COUNT).load(Ordering::Acquire);
        let is_kill = self.word(Self::THEN).load(Ordering::Acquire) != 0;
        let signal = if is_kill { Signal::KILL } else { Signal::CONT };
        for (place, _) in (Self::FIRST..Self::WORDS).zip(0..count) {
            let word = self.word(place).load(Ordering::Relaxed);
            let pid = Pid::from_raw((word & ((1 << PID_BITS) - 1)) as i32);
            let Some(pid) = pid else { continue };
            let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            // Read after the pidfd was opened: another process of this pid has another start.
            if start_of(pid) == Some(word >> PID_BITS) {
                let _ = pidfd_send_signal(&pidfd, signal);
            }
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), Self::BYTES) };
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// When a process was started, in clock ticks after boot. Neither allocates nor panics.
fn start_of(pid: Pid) -> Option<u64> {
    let mut path = [0; 32];
    let path = path_of(pid, &mut path)?;
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = [0; STAT_BYTES];
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    start_in(bytes.get(..length)?)
}

/// The start time in the text of a `stat` file: the 20th field after the command's name.
fn start_in(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = stat.get(end_of_name + 2..)?;
    let digits = fields.split(|&byte| byte == b' ').nth(19)?;
    let mut number = 0_u64;
    for digit in digits {
        let digit = char::from(*digit).to_digit(10)?;
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    Some(number)
}

/// `/proc/PID/stat`.
fn path_of(pid: Pid, path: &mut [u8; 32]) -> Option<&CStr> {
    let mut digits = [0; 10];
    let (mut number, mut first) = (pid.as_raw_pid().unsigned_abs(), digits.len());
    while number > 0 {
        first -= 1;
        *digits.get_mut(first)? = b'0' + (number % 10) as u8;
        number /= 10;
    }
    let parts = [b"/proc/", digits.get(first..)?, b"/stat\0"];
    let mut at = 0;
    for part in parts {
        path.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    CStr::from_bytes_until_nul(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::Stat;
    use hangwatch::sys::stat::State;

    #[test]
    fn the_start_of_a_process_is_read_as_elsewhere() {
        let own = rustix::process::getpid();
        let stat = Stat::read(own).unwrap().unwrap();
        assert_eq!(start_of(own), Some(stat.identity.start));
        let rest = "S 41 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 777 0";
        assert_eq!(start_in(format!("42 (a) R 1 (b) {rest}").as_bytes()), Some(777));
        assert_eq!(start_in(b"42 (a) S 41"), None);
        assert_eq!(start_in(b""), None);
    }

    #[test]
    fn a_stopped_process_is_continued_or_killed_and_another_of_its_pid_is_not() {
        let state = |pid| Stat::read(pid).unwrap().unwrap().state;
        for then in [Then::Continue, Then::Kill] {
            let mut guard = Guard::start().unwrap();
            guard.set(then);
            let start = || {
                let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
                let pid = Pid::from_child(&child);
                rustix::process::kill_process(pid, Signal::STOP).unwrap();
                while state(pid) != State::Stopped {
                    std::thread::yield_now();
                }
                (child, Stat::read(pid).unwrap().unwrap().identity)
            };
            let ((mut meant, identity), (mut other, its)) = (start(), start());
            assert!(guard.register(identity));
            // The table means a process that had the pid before.
            assert!(guard.register(Identity { start: its.start - 1, ..its }));
            drop(guard);
            while state(identity.pid) == State::Stopped {
                std::thread::yield_now();
            }
            assert_eq!(state(its.pid), State::Stopped);
            assert_eq!(then == Then::Continue, meant.try_wait().unwrap().is_none());
            for child in [&mut meant, &mut other] {
                let _ = child.kill();
                child.wait().unwrap();
            }
        }
    }
}
