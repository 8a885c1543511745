//! Which locks a process itself holds, as its own `fdinfo` tells.
//!
//! `F_GETLK` names a holder by the pid it had when it took the lock. If that
//! process shared its file table with a sibling and died, the lock lives on
//! under a pid that another process may have by now. `/proc/PID/fdinfo` lists
//! the locks of the file table that the process really has: the newcomer's
//! does not list this one.
//!
//! What a process has open, and how many locks it takes, is its own choice, so both are bounded here. A
//! lock is listed by the descriptors that it was taken by and their copies, so those of the file are read;
//! of all others no more is asked than which file they refer to. (To read their `fdinfo` could wait for
//! ever: that of an epoll instance takes a lock which its owner can hold.)

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::process::Pid;

use hangwatch::sys::file::FileId;
use hangwatch::sys::maps::{parse_device, task_dirs};
use hangwatch::sys::proc_file::{self, is_gone};

/// How many descriptors of a process are looked at, where the first guess is wrong.
const MOST_DESCRIPTORS: usize = 4096;
/// How many of them are read, since they refer to the file. A worker has one, or one for each copy of this
/// library in it.
const MOST_OF_THE_FILE: usize = 64;
/// How much is read of them together, bytes: some 60,000 locks, of which a worker has one a thread.
const FDINFO_BYTES: u64 = 4 << 20;

/// Whether the process now of this pid holds the POSIX write lock on `byte` of
/// `file`, by what its open files list.
///
/// `hint` is the descriptor that most likely refers to the file (the worker
/// leaves its number in the lane); it is only looked at first. All others are
/// looked at if it does not. A process that is gone holds none.
///
/// # Errors
/// Where `/proc` refuses: `EACCES` to all who may not trace the process. Where the process has more
/// descriptors or locks than are looked at.
pub fn lists_lock(pid: Pid, hint: Option<RawFd>, file: FileId, byte: u64) -> io::Result<bool> {
    let mut bounds =
        Bounds { all: MOST_DESCRIPTORS, of_the_file: MOST_OF_THE_FILE, bytes: FDINFO_BYTES };
    let mut lists = |task: &Path, fd: &OsStr| -> io::Result<bool> {
        bounds.all = bounds.all.checked_sub(1).ok_or_else(too_many)?;
        if !refers_to(&task.join("fd").join(fd), file)? {
            return Ok(false);
        }
        bounds.of_the_file = bounds.of_the_file.checked_sub(1).ok_or_else(too_many)?;
        descriptor_lists(&task.join("fdinfo").join(fd), &mut bounds.bytes, file, byte)
    };
    for task in task_dirs(pid)? {
        if let Some(fd) = hint
            && lists(&task, OsStr::new(&fd.to_string()))?
        {
            return Ok(true);
        }
        let entries = match fs::read_dir(task.join("fd")) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            match entry {
                Ok(entry) if lists(&task, &entry.file_name())? => return Ok(true),
                Ok(_) => {}
                Err(error) if is_gone(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

/// How much of a process is looked at still.
struct Bounds {
    all: usize,
    of_the_file: usize,
    bytes: u64,
}

fn too_many() -> io::Error {
    io::Error::other(format!(
        "it has more than {MOST_DESCRIPTORS} descriptors, or {MOST_OF_THE_FILE} of the segment, and the one \
         that its lane names does not list its lock"
    ))
}

/// Whether a descriptor, by its link in `/proc`, refers to `file`.
fn refers_to(link: &Path, file: FileId) -> io::Result<bool> {
    // Not synchronised: a file system that does not answer must not hold up whoever asks.
    match rustix::fs::statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO) {
        Ok(found) => {
            let dev = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
            Ok(FileId { dev, ino: found.stx_ino } == file)
        }
        Err(errno) => {
            let error = io::Error::from(errno);
            // What cannot be asked is not on the file system of the segment, unless it is us who may not.
            let is_ours = error.kind() == io::ErrorKind::PermissionDenied
                || errno == rustix::io::Errno::NOSYS;
            if is_ours { Err(error) } else { Ok(false) }
        }
    }
}

/// Whether this process holds the lock on `byte` of `file`, which `fd` refers
/// to. One descriptor lists all locks of the process on its file.
///
/// # Errors
/// Where `/proc` refuses.
pub(crate) fn own_lists_lock(fd: impl AsFd, file: FileId, byte: u64) -> io::Result<bool> {
    // Not `/proc/self`, which is empty once the first thread has ended.
    let fdinfo = format!("/proc/thread-self/fdinfo/{}", fd.as_fd().as_raw_fd());
    descriptor_lists(Path::new(&fdinfo), &mut { FDINFO_BYTES }, file, byte)
}

fn descriptor_lists(fdinfo: &Path, left: &mut u64, file: FileId, byte: u64) -> io::Result<bool> {
    match proc_file::has_line(fdinfo, left, |line| line_lists(line, file, byte)) {
        // Closed since the directory was read, or never there.
        Err(error) if is_gone(&error) => Ok(false),
        listed => listed,
    }
}

/// Whether a line of an `fdinfo` file lists a write lock on the byte.
fn line_lists(line: &[u8], file: FileId, byte: u64) -> bool {
    std::str::from_utf8(line)
        .ok()
        .and_then(parse_write_lock)
        .is_some_and(|lock| lock.file == file && (lock.first..=lock.last).contains(&byte))
}

/// A range of bytes that one owner holds; the kernel joins neighbours.
#[derive(Debug, PartialEq, Eq)]
struct WriteLock {
    file: FileId,
    first: u64,
    /// Inclusive; `u64::MAX` for a lock to the end of the file.
    last: u64,
}

/// A POSIX write lock from a line as
/// `lock:\t1: POSIX  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`. Anything else,
/// locks of other kinds included, is none.
fn parse_write_lock(line: &str) -> Option<WriteLock> {
    let mut fields = line.strip_prefix("lock:")?.split_ascii_whitespace();
    let (_number, kind, _mode, access) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if (kind, access) != ("POSIX", "WRITE") {
        return None;
    }
    let (_pid, inode) = (fields.next()?, fields.next()?);
    let (device, ino) = inode.rsplit_once(':')?;
    let file = FileId { dev: parse_device(device)?, ino: ino.parse().ok()? };
    let first = fields.next()?.parse().ok()?;
    let last = match fields.next()? {
        "EOF" => u64::MAX,
        last => last.parse().ok()?,
    };
    Some(WriteLock { file, first, last })
}

#[cfg(test)]
mod tests {

    use rustix::process::{geteuid, getpid};

    use super::*;
    use hangwatch::sys::lock::try_lock;
    use hangwatch_test_children::{
        Mark, become_user, fork, fork_headless, fork_holding, ofd_lock, pause_for_ever, shm_file,
    };

    const FILE: FileId = FileId { dev: 0x1a, ino: 5678 };

    #[test]
    fn the_lines_of_write_locks_are_read() {
        let lock = |first, last| Some(WriteLock { file: FILE, first, last });
        for (line, expected) in [
            ("lock:\t1: POSIX  ADVISORY  WRITE 1234 00:1a:5678 7 7", lock(7, 7)),
            ("lock:\t12: POSIX  ADVISORY  WRITE 0 00:1a:5678 0 1023", lock(0, 1023)),
            ("lock:\t1: POSIX  ADVISORY  WRITE 1234 00:1a:5678 4 EOF", lock(4, u64::MAX)),
            ("lock:\t1: POSIX  ADVISORY  READ  1234 00:1a:5678 7 7", None),
            ("lock:\t1: OFDLCK ADVISORY  WRITE -1 00:1a:5678 7 7", None),
            ("lock:\t1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF", None),
            ("lock:\t1: -> POSIX  ADVISORY  WRITE 1234 00:1a:5678 7 7", None),
            ("lock:\t1: POSIX  ADVISORY  WRITE 1234 <none>:0 7 7", None),
            ("lock:\t1: POSIX  ADVISORY  WRITE 1234 00:1a:5678 7", None),
            ("lock:\t1: POSIX  ADVISORY  WRITE 1234 00:1a:5678 -7 x", None),
            ("lock:", None),
            ("flags:\t0100002", None),
            ("", None),
        ] {
            assert_eq!(parse_write_lock(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_byte_must_lie_in_a_lock_of_that_very_file() {
        let text = "pos:\t0\nflags:\t0100002\n\
                    lock:\t1: POSIX  ADVISORY  WRITE 9 00:1a:5678 4 6\n\
                    lock:\t2: POSIX  ADVISORY  WRITE 9 00:1b:5678 8 8\n\
                    lock:\t3: POSIX  ADVISORY  WRITE 9 00:1a:5679 9 9\n";
        let lists = |byte| text.lines().any(|line| line_lists(line.as_bytes(), FILE, byte));
        let listed: Vec<u64> = (0..12).filter(|&byte| lists(byte)).collect();
        assert_eq!(listed, [4, 5, 6]);
    }

    #[test]
    fn a_child_lists_its_own_locks_with_and_without_a_hint() {
        let file = shm_file(4096);
        let id = FileId::of(&file).unwrap();
        // Neighbours join into one range; byte 9 stands alone.
        let child = fork_holding(&file, &[4, 5, 6, 9]);
        for hint in [None, Some(file.as_raw_fd()), Some(0), Some(-1), Some(i32::MAX)] {
            let lists = |byte| lists_lock(child.pid(), hint, id, byte).unwrap();
            let listed: Vec<u64> = (3..11).filter(|&byte| lists(byte)).collect();
            assert_eq!(listed, [4, 5, 6, 9], "{hint:?}");
        }
        assert!(!lists_lock(getpid(), None, id, 4).unwrap(), "not ours");
        let pid = child.pid();
        child.kill();
        assert!(!lists_lock(pid, None, id, 4).unwrap(), "gone");
    }

    #[test]
    fn ones_own_locks_are_listed_and_those_of_descriptions_are_not() {
        let file = shm_file(4096);
        assert!(try_lock(&file, 1).unwrap());
        ofd_lock(&file, 3);
        assert!(lists_lock(getpid(), None, FileId::of(&file).unwrap(), 1).unwrap());
        assert!(own_lists_lock(&file, FileId::of(&file).unwrap(), 1).unwrap());
        assert!(!own_lists_lock(&file, FileId::of(&file).unwrap(), 2).unwrap());
        assert!(!lists_lock(getpid(), None, FileId::of(&file).unwrap(), 3).unwrap());
    }

    #[test]
    fn the_locks_of_a_process_whose_first_thread_has_ended_are_listed() {
        let file = shm_file(4096);
        let child = fork_headless(|| {
            assert!(try_lock(&file, 2).unwrap());
        });
        let hint = Some(file.as_raw_fd());
        assert!(lists_lock(child.pid(), hint, FileId::of(&file).unwrap(), 2).unwrap());
        assert!(lists_lock(child.pid(), None, FileId::of(&file).unwrap(), 2).unwrap());
    }

    /// The reads of a process are counted by its own /proc/thread-self/io: another one's cannot be.
    fn read_calls() -> u64 {
        let io = proc_file::text("/proc/thread-self/io").unwrap();
        let line = io.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap();
        line.parse().unwrap()
    }

    #[test]
    fn many_descriptors_of_the_file_are_read_within_bounds() {
        let file = shm_file(4096);
        let id = FileId::of(&file).unwrap();
        let ready = Mark::new();
        let child = fork(|| {
            for byte in 0..400 {
                assert!(try_lock(&file, 2 * byte).unwrap());
            }
            let copies: Vec<_> = (0..900).map(|_| file.try_clone().unwrap()).collect();
            std::mem::forget(copies);
            ready.send(0);
            pause_for_ever()
        });
        ready.wait();
        let before = read_calls();
        let error = lists_lock(child.pid(), Some(i32::MAX), id, 1).unwrap_err();
        let calls = read_calls() - before;
        assert!(calls < 1000, "{calls} reads for a lock that it does not have");
        assert!(error.to_string().contains("of the segment"), "{error}");
        assert!(lists_lock(child.pid(), Some(i32::MAX), id, 2).unwrap());
    }

    /// As a program does that attaches anew with an earlier one's descriptor open: the kernel joins both
    /// locks, and lists them by the first.
    #[test]
    fn a_lock_is_found_that_another_description_of_the_file_lists() {
        let file = shm_file(4096);
        let id = FileId::of(&file).unwrap();
        let other = std::fs::File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/thread-self/fd/{}", file.as_raw_fd()))
            .unwrap();
        let ready = Mark::new();
        let child = fork(|| {
            assert!(try_lock(&file, 1).unwrap() && try_lock(&other, 2).unwrap());
            ready.send(0);
            pause_for_ever()
        });
        ready.wait();
        for hint in [file.as_raw_fd(), other.as_raw_fd()] {
            assert!(lists_lock(child.pid(), Some(hint), id, 1).unwrap(), "{hint}");
            assert!(lists_lock(child.pid(), Some(hint), id, 2).unwrap(), "{hint}");
        }
    }

    #[test]
    fn more_descriptors_than_are_looked_at_are_an_error_and_no_answer() {
        let file = shm_file(4096);
        let id = FileId::of(&file).unwrap();
        let ready = Mark::new();
        let child = fork(|| {
            let limit = Some(MOST_DESCRIPTORS as u64 + 100);
            let limit = rustix::process::Rlimit { current: limit, maximum: limit };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
            let none = std::fs::File::open("/dev/null").unwrap();
            while let Ok(copy) = none.try_clone() {
                std::mem::forget(copy);
            }
            assert!(try_lock(&file, 2).unwrap());
            ready.send(0);
            pause_for_ever()
        });
        ready.wait();
        let other = FileId { ino: id.ino + 1, ..id };
        let error = lists_lock(child.pid(), None, other, 2).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
        assert!(lists_lock(child.pid(), Some(file.as_raw_fd()), id, 2).unwrap(), "by the hint");
    }

    #[test]
    fn a_process_that_may_not_be_traced_is_refused() {
        if !geteuid().is_root() {
            println!("skipped: needs root to become another user");
            return;
        }
        let own = getpid();
        let child = fork(|| {
            become_user(4002);
            let refused = lists_lock(own, None, FILE, 0).unwrap_err();
            i32::from(refused.kind() != io::ErrorKind::PermissionDenied)
        });
        assert_eq!(child.exit_status(), 0);
    }
}
