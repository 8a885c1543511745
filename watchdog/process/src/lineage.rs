//! Who descends from this process, read from `/proc`.
//!
//! `/proc` is no snapshot: processes end, are reaped and change parents while it is read.
//! So `living_descendants` only proposes, and `line_of` proves, for one process
//! that is held through a pidfd.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use hangwatch::sys::proc_file::is_gone;
use rustix::process::Pid;

use crate::pidfd::{OpenPidfdError, Pidfd};
use crate::proc::{self, State};

/// The kernel knows no more processes than this: a bound against a /proc that lies.
pub(crate) const PROCESSES_AT_MOST: usize = 4_194_304;
/// The most that is read of a file in `/proc`, bytes: the pids of as many children.
const FILE_BYTES: u64 = 8 * PROCESSES_AT_MOST as u64;
/// How often the processes above this one are listed anew because one of them ended meanwhile.
const OWN_LINE_LOOKS: usize = 100;
/// What most files in `/proc` fit into, bytes: more takes more reads.
const PROC_BYTES: usize = 4 << 10;

/// What tells a process from any other that has had, or will have, the same pid, as long
/// as pids do not come round within one clock tick (10 ms).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The pid, in the PID namespace of this process.
    pub pid: Pid,
    /// Clock ticks after boot.
    pub start: u64,
}

/// A process as `/proc/PID/stat` describes it at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// The process.
    pub identity: Identity,
    /// What is said of it.
    pub stat: proc::Stat,
}

impl Stat {
    /// Reads it; `None` if there is no such process, or `/proc` hides it from this user (`hidepid`).
    ///
    /// # Errors
    /// `/proc/PID/stat` cannot be read though the process is there, or is not understood.
    pub fn read(pid: Pid) -> io::Result<Option<Self>> {
        let of =
            |stat: proc::Stat| Self { identity: Identity { pid, start: stat.start_ticks }, stat };
        match proc::Stat::of(pid) {
            Err(error) if is_hidden(&error) => Ok(None),
            stat => Ok(stat?.map(of)),
        }
    }
}

impl std::ops::Deref for Stat {
    type Target = proc::Stat;

    fn deref(&self) -> &proc::Stat {
        &self.stat
    }
}

/// What can be known about a process: unlike [`Stat::read`], it tells a hidden one from a dead one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sight {
    /// What `/proc` says about it.
    Seen(Stat),
    /// It is alive, and `/proc` hides it from this user (`hidepid`).
    Hidden,
    /// It is dead, or no process has this pid.
    Gone,
}

impl Sight {
    /// Looks at the process that has this pid now.
    ///
    /// # Errors
    /// `/proc` refuses for another reason, or no descriptor is left.
    pub(crate) fn of(pid: Pid) -> io::Result<Sight> {
        // Twice: the pid may pass to another process between the read and the handle.
        for _ in 0..2 {
            if let Some(stat) = Stat::read(pid)? {
                return Ok(Sight::Seen(stat));
            }
            if open_living(pid)?.is_none() {
                return Ok(Sight::Gone);
            }
        }
        Ok(Sight::Hidden)
    }
}

/// A handle on the process that has this pid now; `None` if it is dead or there is none.
///
/// # Errors
/// No descriptor is left, or the kernel refuses.
pub(crate) fn open_living(pid: Pid) -> io::Result<Option<Pidfd>> {
    match Pidfd::open(pid) {
        Ok(pidfd) => Ok(Some(pidfd).filter(|pidfd| !pidfd.is_dead())),
        Err(OpenPidfdError::Gone { .. }) => Ok(None),
        Err(OpenPidfdError::NoDescriptors { source, .. } | OpenPidfdError::Io { source, .. }) => {
            Err(source)
        }
    }
}

/// The children of this process, living or not, and those adopted by it. Never misses one
/// while nobody but the caller reaps: the kernel hands orphans over before their parent
/// can be reaped.
///
/// # Errors
/// `/proc` cannot be read.
pub fn own_children() -> io::Result<Vec<Pid>> {
    Ok(Children::new()?.of(rustix::process::getpid())?.unwrap_or_default())
}

/// Every living descendant of the given children of this process, parents first.
///
/// May miss one whose parent ends meanwhile; it is one of [`own_children`] afterwards, or
/// a descendant of one of these.
pub(super) fn living_descendants(roots: &[Pid]) -> io::Result<Vec<Stat>> {
    walk(&Children::new()?, roots.to_vec())
}

/// Every living process of a process group, except those that `/proc` hides.
///
/// # Errors
/// `/proc` cannot be read.
pub fn members_of_group(group: Pid) -> io::Result<Vec<Stat>> {
    let mut members = Vec::new();
    for pid in numbers_in("/proc")?.unwrap_or_default() {
        let stat = Stat::read(pid)?.filter(|stat| stat.group == Some(group) && !stat.is_dead());
        members.extend(stat);
    }
    Ok(members)
}

fn walk(children: &Children, roots: Vec<Pid>) -> io::Result<Vec<Stat>> {
    let mut found = Vec::new();
    let mut open = roots;
    let mut budget = PROCESSES_AT_MOST;
    while !open.is_empty() && budget > 0 {
        let mut next = Vec::new();
        for pid in open {
            budget = budget.saturating_sub(1);
            let Some(stat) = Stat::read(pid)? else { continue };
            if !stat.is_dead() {
                found.push(stat);
            }
            next.extend(children.of(pid)?.unwrap_or_default());
        }
        open = next;
    }
    Ok(found)
}

/// From whom a process descends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// From a process that was known, by way of these: itself first, if it is not the one.
    Known(Vec<Identity>),
    /// From this process, by way of these: itself first, last the child of this process.
    Ours(Vec<Identity>),
    /// Not from this process; or it is gone; or `/proc` hides one of those above it.
    Foreign,
    /// One of those above it ended meanwhile: to be asked again.
    Changed,
}

/// From whom a process descends: from the next one above it for which `is_known` answers, else from this
/// process.
///
/// The answer is about the process behind a pidfd if the pidfd was opened before the
/// call and a signal sent through it after the call finds the process: then it had its
/// pid all along. The parents are read upwards and then once more from the top down. A
/// process whose parent has the same pid in both readings had the same parent all the
/// time between them (a new parent has been there longer than the old one has been gone),
/// so whatever was read of that parent in between was really read of it; and so on up.
pub(super) fn line_of(pid: Pid, is_known: impl Fn(Identity) -> bool) -> io::Result<Line> {
    let own = rustix::process::getpid();
    let (mut line, mut passed) = (Vec::<Identity>::new(), HashSet::new());
    let mut at = pid;
    let top = loop {
        if at == own {
            break own;
        }
        let Some(stat) = Stat::read(at)?.filter(|_| passed.insert(at)) else {
            return match line.last() {
                // Its parent still, it has not ended: it is hidden.
                Some(below) if parent(below.pid)? == Some(at) => Ok(Line::Foreign),
                Some(_) => Ok(Line::Changed),
                None => Ok(Line::Foreign),
            };
        };
        if is_known(stat.identity) {
            break at;
        }
        let Some(parent) = stat.parent else { return Ok(Line::Foreign) };
        line.push(stat.identity);
        at = parent;
    };
    if pid == own {
        return Ok(Line::Foreign);
    }
    let mut above = top;
    for below in line.iter().rev() {
        // By the same reading it is the process that was read before.
        let same = Stat::read(below.pid)?.filter(|stat| stat.identity == *below);
        if same.and_then(|stat| stat.parent) != Some(above) {
            return Ok(Line::Changed);
        }
        above = below.pid;
    }
    Ok(if top == own { Line::Ours(line) } else { Line::Known(line) })
}

/// This process and those above it, up to the first that `/proc` hides, which is the last one listed.
///
/// # Errors
/// `/proc` cannot be read, or processes above this one end again and again while it is read.
pub fn own_line() -> io::Result<Vec<Pid>> {
    for _ in 0..OWN_LINE_LOOKS {
        let mut line = vec![rustix::process::getpid()];
        loop {
            match Sight::of(line[line.len() - 1])? {
                Sight::Seen(stat) => match stat.parent.filter(|above| !line.contains(above)) {
                    Some(above) => line.push(above),
                    None => return Ok(line),
                },
                Sight::Hidden => return Ok(line),
                // The one below it has another parent now.
                Sight::Gone => break,
            }
        }
    }
    Err(io::Error::other("the processes above the watchdog end while they are listed"))
}

/// The function in the kernel that a process waits in, as far as it may be read.
pub(super) fn wait_channel(pid: Pid) -> Option<String> {
    proc::wchan(pid).ok().flatten()
}

/// The command's name, at most 15 bytes of it.
pub fn command_name(pid: Pid) -> Option<String> {
    proc::comm(pid).ok().flatten()
}

/// Whether the process was started with this in its environment, and that can be read.
pub fn has_in_environment(pid: Pid, assignment: &str) -> bool {
    proc::has_in_environment(pid, assignment).unwrap_or(false)
}

/// A process's soft limit of bytes in POSIX message queues; `None` where there is none or it cannot be
/// read.
pub(super) fn message_queue_limit(pid: Pid) -> Option<u64> {
    let limits = read_proc(&format!("/proc/{pid}/limits")).ok()??;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max msgqueue size"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether the threads of a process that was sent SIGSTOP may still fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Each is stopped, has ended, or sleeps in the kernel and acts on no signal but SIGKILL.
    Still,
    /// None runs, or one sleeps in the kernel and keeps SIGSTOP from the others, which act on it before
    /// they fork; or the process is frozen.
    Waiting,
    /// One runs, or waits for a processor: a fork may be under way.
    Running,
}

impl Threads {
    /// Of every thread of a process, and how many there are; `None` if it is gone, or hidden.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub fn of(pid: Pid) -> io::Result<Option<(Threads, usize)>> {
        let Some(threads) = numbers_in(&format!("/proc/{pid}/task"))? else { return Ok(None) };
        let (count, mut seen) = (threads.len(), 0);
        let (mut is_any_running, mut is_any_asleep, mut is_any_stuck) = (false, false, false);
        for thread in threads {
            let dir = format!("/proc/{pid}/task/{thread}");
            let stat = match proc::Stat::in_dir(Path::new(&dir)) {
                Ok(Some(stat)) => stat,
                Ok(None) => continue,
                Err(error) if is_hidden(&error) => continue,
                Err(error) => return Err(error),
            };
            seen += 1;
            match stat.state {
                State::Stopped | State::Traced | State::Zombie => {}
                State::Uninterruptible => is_any_stuck = true,
                State::Running => is_any_running = true,
                State::Sleeping | State::Other(_) => is_any_asleep = true,
            }
        }
        let all = match (is_any_running, is_any_asleep) {
            (true, _) if !is_any_stuck => Threads::Running,
            (false, false) => Threads::Still,
            _ => Threads::Waiting,
        };
        Ok((seen > 0).then_some((all, count)))
    }
}

/// Where the children of a process are found.
pub enum Children {
    /// In `/proc/PID/task/TID/children`, of every thread.
    Listed,
    /// In the parents of all processes: for kernels without `CONFIG_PROC_CHILDREN`.
    Scanned(HashMap<Pid, Vec<Pid>>),
}

impl Children {
    /// Prepares to list children. What a kernel without `CONFIG_PROC_CHILDREN` tells is of this moment.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub fn new() -> io::Result<Self> {
        if Path::new("/proc/thread-self/children").exists() {
            Ok(Self::Listed)
        } else {
            scan().map(Self::Scanned)
        }
    }

    /// The children of a process, dead ones included; `None` if it is gone, or hidden. One may be missing
    /// where another of them ends meanwhile; a scan misses those that are hidden.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub fn of(&self, pid: Pid) -> io::Result<Option<Vec<Pid>>> {
        match self {
            Self::Listed => listed(pid),
            Self::Scanned(children) => Ok(Some(children.get(&pid).cloned().unwrap_or_default())),
        }
    }
}

fn listed(pid: Pid) -> io::Result<Option<Vec<Pid>>> {
    let Some(threads) = numbers_in(&format!("/proc/{pid}/task"))? else { return Ok(None) };
    let (mut children, mut is_any_read) = (Vec::new(), false);
    for thread in threads {
        let list = read_proc(&format!("/proc/{pid}/task/{thread}/children"))?;
        is_any_read |= list.is_some();
        children
            .extend(list.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(to_pid));
    }
    Ok(is_any_read.then_some(children))
}

fn scan() -> io::Result<HashMap<Pid, Vec<Pid>>> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for pid in numbers_in("/proc")?.unwrap_or_default() {
        if let Some(parent) = parent(pid)? {
            children.entry(parent).or_default().push(pid);
        }
    }
    Ok(children)
}

fn parent(pid: Pid) -> io::Result<Option<Pid>> {
    Ok(Stat::read(pid)?.and_then(|stat| stat.parent))
}

/// The names in a directory of `/proc` that are numbers; `None` if it is gone, or hidden.
fn numbers_in(dir: &str) -> io::Result<Option<Vec<Pid>>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) || is_hidden(&error) => return Ok(None),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => numbers.extend(entry.file_name().to_str().and_then(to_pid)),
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(Some(numbers))
}

fn to_pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok().filter(|&number: &i32| number > 0)?)
}

/// A file of `/proc`, up to [`FILE_BYTES`]; `None` if its process is gone, or hidden.
fn read_proc(path: &str) -> io::Result<Option<String>> {
    let mut bytes = Vec::with_capacity(PROC_BYTES);
    match File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) || is_hidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `/proc` mounted with `hidepid=1` says so; with `hidepid=2` it says what it says of no process.
fn is_hidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, getpid, getppid};

    use super::{Line, line_of, listed, message_queue_limit, scan};

    #[test]
    fn a_soft_limit_is_read() {
        let own = rustix::process::getrlimit(rustix::process::Resource::Msgqueue).current;
        assert_eq!(message_queue_limit(getpid()), own);
    }

    #[test]
    fn children_are_found_in_the_lists_and_in_a_scan() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let (listed, scanned) = (listed(getpid()), scan());
        let line = line_of(pid, |_| false);
        let known = line_of(pid, |process| process.pid == pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(scanned.unwrap()[&getpid()].contains(&pid));
        // Empty on a kernel without CONFIG_PROC_CHILDREN.
        let listed = listed.unwrap().unwrap_or_default();
        assert!(listed.is_empty() || listed.contains(&pid), "{listed:?}");
        let Line::Ours(line) = line.unwrap() else { panic!("a child is not known as one") };
        assert_eq!(line.iter().map(|process| process.pid).collect::<Vec<_>>(), [pid]);
        assert_eq!(known.unwrap(), Line::Known(Vec::new()));
    }

    #[test]
    fn neither_this_process_nor_those_above_it_descend_from_it() {
        let foreign = |pid| assert_eq!(line_of(pid, |_| false).unwrap(), Line::Foreign);
        foreign(getpid());
        foreign(Pid::INIT);
        if let Some(parent) = getppid() {
            foreign(parent);
        }
    }
}
