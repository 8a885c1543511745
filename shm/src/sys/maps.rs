//! Which files a process has mapped, by `/proc/PID/maps`.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;

use rustix::process::Pid;

use super::file::FileId;
use super::proc_file::{self, is_gone};
use super::stat::{Stat, State};

/// How much of a process's list of mappings is read at most, bytes: some 300,000 mappings.
const MAPS_BYTES: u64 = 32 << 20;
/// How many threads are looked at for one whose memory and files can be seen.
const MOST_THREADS: usize = 4096;

/// Whether the process has this file mapped. False if it is gone.
///
/// # Errors
/// Where `/proc` refuses, to all who may not trace the process; where it has more mappings than are
/// read, and the file is not among the first of them.
pub fn maps_segment(pid: Pid, file: FileId) -> io::Result<bool> {
    any_mapping(pid, |line| parse_mapped_file(line) == Some(file))
}

/// Whether the process has this file mapped for writing, as who attaches to a segment has. False if it is
/// gone.
///
/// # Errors
/// As [`maps_segment`].
pub fn writes_segment(pid: Pid, file: FileId) -> io::Result<bool> {
    let is_writable = |line: &[u8]| {
        let permissions = line.split(|byte| *byte == b' ').nth(1);
        permissions.is_some_and(|permissions| permissions.get(1) == Some(&b'w'))
    };
    any_mapping(pid, |line| parse_mapped_file(line) == Some(file) && is_writable(line))
}

fn any_mapping(pid: Pid, is_wanted: impl Fn(&[u8]) -> bool) -> io::Result<bool> {
    let mut left = MAPS_BYTES;
    let has_memory = Cell::new(false);
    let is_wanted = |line: &[u8]| {
        has_memory.set(true);
        is_wanted(line)
    };
    // A first thread that is ending has given up its memory before it counts as ended; the others have it.
    for dirs in [task_dirs, thread_dirs] {
        for dir in dirs(pid)? {
            match proc_file::has_line(dir.join("maps"), &mut left, &is_wanted) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if has_memory.get() {
            break;
        }
    }
    Ok(false)
}

/// The directories in `/proc` that stand for the process's memory and open
/// files: its own; if its first thread has ended, those of the others, since
/// its own then shows nothing.
///
/// # Errors
/// Where `/proc` refuses.
pub fn task_dirs(pid: Pid) -> io::Result<Vec<PathBuf>> {
    let own = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
    if Stat::of(pid)?.is_none_or(|stat| stat.state != State::Zombie) {
        return Ok(vec![own]);
    }
    thread_dirs(pid)
}

/// The directories in `/proc` of the process's threads.
///
/// # Errors
/// Where `/proc` refuses.
pub fn thread_dirs(pid: Pid) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) {
        Ok(tasks) => {
            let tasks = tasks.filter_map(|task| Some(task.ok()?.path()));
            Ok(tasks.take(MOST_THREADS).collect())
        }
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The file of a line of `maps`: `start-end perms offset major:minor inode ...`.
fn parse_mapped_file(line: &[u8]) -> Option<FileId> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(3)?).ok()?;
    let inode = std::str::from_utf8(fields.next()?).ok()?;
    let ino = inode.parse().ok()?;
    Some(FileId { dev: parse_device(device)?, ino })
}

/// A device as `/proc` writes it, `major:minor` in hexadecimal.
pub fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(rustix::fs::makedev(number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use hangwatch_test_children::{Mark, fork, fork_headless, pause_for_ever, shm_file};

    use super::super::mapping::Mapping;
    use super::*;

    #[test]
    fn a_line_of_maps_gives_its_file() {
        let line = b"7f00-7f01 rw-s 00000000 00:1a 5678          /dev/shm/a b (deleted)";
        let dev = rustix::fs::makedev(0, 0x1a);
        assert_eq!(parse_mapped_file(line), Some(FileId { dev, ino: 5678 }));
        for bad in [&b""[..], b"7f00-7f01 rw-s 0", b"7f00-7f01 rw-s 0 xx 1", b"\xff \xff \xff \xff"]
        {
            assert_eq!(parse_mapped_file(bad), None);
        }
    }

    #[test]
    fn a_mapping_is_seen_while_it_is_there() {
        let file = shm_file(4096);
        let id = FileId::of(&file).unwrap();
        let (mapped, unmap, unmapped) = (Mark::new(), Mark::new(), Mark::new());
        let child = fork(|| {
            let mapping = Mapping::new(&file, 4096).unwrap();
            mapped.send(0);
            unmap.wait();
            drop(mapping);
            unmapped.send(0);
            pause_for_ever()
        });
        mapped.wait();
        assert!(maps_segment(child.pid(), id).unwrap());
        let other = FileId { ino: id.ino + 1, ..id };
        assert!(!maps_segment(child.pid(), other).unwrap());
        unmap.send(0);
        unmapped.wait();
        assert!(!maps_segment(child.pid(), id).unwrap());
    }

    #[test]
    fn a_mapping_is_seen_after_the_first_thread_has_ended() {
        let file = shm_file(4096);
        let child = fork_headless(|| {
            Mapping::new(&file, 4096).unwrap().leak();
        });
        assert!(maps_segment(child.pid(), FileId::of(&file).unwrap()).unwrap());
    }
}
