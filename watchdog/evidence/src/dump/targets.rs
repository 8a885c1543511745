//! Which processes are meant: by pid, name, segment or control group.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use hangwatch::sys::lock::{Holder, holder};
use hangwatch::sys::proc_file;
use hangwatch::{Segment, lane_lock_byte};

/// Processes of a name, segment or group that are looked at, at most.
const PROCESSES: usize = 256;
/// Control groups below one that are looked at, at most.
const GROUPS: usize = 1024;
/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Why a process cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// No process has this pid.
    #[error("there is no process {0}: it has ended, or is in another PID namespace")]
    NoProcess(u32),
    /// It is a thread, not a process.
    #[error("{tid} is a thread of process {pid}; name the process")]
    Thread {
        /// The number that was given.
        tid: u32,
        /// Its process.
        pid: u32,
    },
    /// It is part of the kernel.
    #[error("process {0} is a thread of the kernel, which has no stack of a program")]
    Kernel(u32),
    /// It is who asks.
    #[error("process {0} is hangwatch itself")]
    Own(u32),
    /// No process is called so.
    #[error("there is no process called {0:?}")]
    NoName(String),
    /// There is no such control group, or nobody in it.
    #[error("no process is in the control group {0}")]
    NoGroup(String),
    /// Nobody is attached to the segment.
    #[error("segment {0:?} has no worker")]
    NoWorker(String),
}

/// The processes that one word means: a pid, or a name.
///
/// # Errors
/// [`NoTarget`].
pub fn of_word(word: &str) -> Result<Vec<u32>, NoTarget> {
    if word.is_empty() {
        return Err(NoTarget::NoName(String::new()));
    }
    if let Ok(pid) = word.parse() {
        return check(pid).map(|()| vec![pid]);
    }
    let own = std::process::id();
    let pids: Vec<u32> =
        pids().filter(|&pid| pid != own && is_called(pid, word)).take(PROCESSES).collect();
    if pids.is_empty() { Err(NoTarget::NoName(word.to_owned())) } else { Ok(pids) }
}

/// Whether a process can be looked at.
fn check(pid: u32) -> Result<(), NoTarget> {
    if pid == std::process::id() {
        return Err(NoTarget::Own(pid));
    }
    let Ok(status) = proc_file::text(format!("/proc/{pid}/status")) else {
        return Err(NoTarget::NoProcess(pid));
    };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match field("Tgid:").and_then(|group| group.parse().ok()) {
        Some(group) if group != pid => Err(NoTarget::Thread { tid: pid, pid: group }),
        _ if field("Kthread:") == Some("1") => Err(NoTarget::Kernel(pid)),
        _ => Ok(()),
    }
}

/// The pids of all processes.
fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether it is called so: its kernel's name, or its program's, or that of the script it interprets.
fn is_called(pid: u32, name: &str) -> bool {
    let comm = proc_file::text(format!("/proc/{pid}/comm")).unwrap_or_default();
    let arguments = proc_file::text(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let last = |word: &str| word.rsplit('/').next().unwrap_or_default() == name;
    // A kernel thread has no arguments, and is not meant.
    !arguments.is_empty() && (comm.trim_end() == name || arguments.split('\0').take(2).any(last))
}

/// The workers of a segment, by the kernel's word.
///
/// # Errors
/// [`NoTarget::NoWorker`].
pub fn of_segment(segment: &Segment) -> Result<Vec<u32>, NoTarget> {
    let mut workers = Vec::new();
    for view in segment.picture().lanes {
        if let Ok(Holder::Process(pid)) = holder(segment.file(), lane_lock_byte(view.lane)) {
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            if !workers.contains(&pid) && workers.len() < PROCESSES {
                workers.push(pid);
            }
        }
    }
    if workers.is_empty() {
        Err(NoTarget::NoWorker(segment.name().to_owned()))
    } else {
        Ok(workers)
    }
}

/// The processes of a control group and of those below it.
///
/// # Errors
/// [`NoTarget::NoGroup`].
pub fn of_group(name: &str) -> Result<Vec<u32>, NoTarget> {
    let root = Path::new(CGROUPS);
    let path = if name.starts_with(CGROUPS) {
        PathBuf::from(name)
    } else {
        root.join(name.trim_start_matches('/'))
    };
    let (mut members, mut groups) = (Vec::new(), VecDeque::from([path]));
    let mut seen = 0;
    while let Some(group) = groups.pop_front() {
        seen += 1;
        if seen > GROUPS {
            break;
        }
        let list = proc_file::text(group.join("cgroup.procs")).unwrap_or_default();
        members
            .extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(|&pid| pid != 0));
        let below = fs::read_dir(&group).into_iter().flatten().filter_map(Result::ok);
        groups.extend(
            below.filter(|it| it.file_type().is_ok_and(|it| it.is_dir())).map(|it| it.path()),
        );
    }
    members.truncate(PROCESSES);
    if members.is_empty() { Err(NoTarget::NoGroup(name.to_owned())) } else { Ok(members) }
}

/// The descendants of processes, nearest first.
pub fn below(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = pids().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut found: Vec<u32> = Vec::new();
    let mut open: VecDeque<u32> = roots.iter().copied().collect();
    while let Some(parent) = open.pop_front() {
        for &(pid, _) in parents.iter().filter(|(_, of)| *of == parent) {
            if !found.contains(&pid) && !roots.contains(&pid) && found.len() < PROCESSES {
                found.push(pid);
                open.push_back(pid);
            }
        }
    }
    found.retain(|&pid| pid != std::process::id());
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = proc_file::text(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_says_why() {
        assert_eq!(of_word("4194305"), Err(NoTarget::NoProcess(4_194_305)));
        let own = std::process::id();
        assert_eq!(of_word(&own.to_string()), Err(NoTarget::Own(own)));
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        if thread != own {
            let error = of_word(&thread.to_string());
            assert_eq!(error, Err(NoTarget::Thread { tid: thread, pid: own }));
        }
        assert!(matches!(of_word("no such process"), Err(NoTarget::NoName(_))));
        assert!(matches!(of_group("no/such/group"), Err(NoTarget::NoGroup(_))));
    }

    #[test]
    fn a_process_is_found_by_its_name_and_below_its_parent() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        // A child is known by its program's name once it runs it.
        let is_there = || of_word("sleep").is_ok_and(|pids| pids.contains(&child.id()));
        while !is_there() {
            std::thread::yield_now();
        }
        let found = below(&[std::process::id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{found:?}");
    }
}
