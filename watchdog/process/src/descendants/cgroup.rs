//! A cgroup of a worker's own: which it is, that nobody else is in it, and its end by `cgroup.kill`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::freezer::unified_directory;
use hangwatch::sys::proc_file;
use rustix::process::Pid;

use super::Excluded;

/// The file that ends all processes of a cgroup at once (Linux 5.14).
const KILL: &str = "cgroup.kill";
/// How deep cgroups are looked into, against a loop of mounts.
const DEPTH: u32 = 64;
/// Cgroups that are looked into, at most: a worker may make as many as it likes below its own.
const CGROUPS: usize = 4_096;
/// The most that is read of the list of one cgroup's members, bytes: some 100,000 of them.
const MEMBERS_BYTES: u64 = 1 << 20;

/// A cgroup in which there is nobody but a worker and its kin.
pub(super) struct Own {
    dir: PathBuf,
}

/// The cgroup of the process `root`, if it is its own; else why it is not.
///
/// # Errors
/// Where `/proc` or the cgroup's files refuse.
pub(super) fn own(
    root: Pid,
    is_kin: impl Fn(Pid) -> bool,
    excluded: &Excluded,
) -> io::Result<Result<Own, String>> {
    let Some(dir) = unified_directory(root)? else {
        return Ok(Err("it is in no cgroup of version 2 that is to be seen from here".to_owned()));
    };
    if !dir.join(KILL).exists() {
        return Ok(Err("the kernel has no cgroup.kill (Linux 5.14)".to_owned()));
    }
    let own = Own { dir };
    let strangers = match own.strangers(|pid| pid == root || is_kin(pid)) {
        Ok(strangers) => strangers,
        Err(error) => return Ok(Err(format!("its cgroup cannot be looked into: {error}"))),
    };
    Ok(match strangers.first() {
        None => Ok(own),
        Some(None) => Err("a process of another PID namespace is in its cgroup".to_owned()),
        Some(Some(pid)) if excluded.own_line.contains(pid) => {
            Err(format!("the watchdog, or who started it, is in its cgroup: process {pid}"))
        }
        Some(Some(pid)) if excluded.is_worker(*pid)? => {
            Err(format!("another worker is in its cgroup: process {pid}"))
        }
        Some(Some(pid)) => {
            Err(format!("process {pid} is in its cgroup, and not below it or not to be signalled"))
        }
    })
}

impl Own {
    /// Ends all that are in it, if that is still nobody but those who `are_kin`; else why not.
    pub(super) fn kill(&self, are_kin: impl Fn(Pid) -> bool) -> Result<(), String> {
        match self.strangers(are_kin) {
            Ok(strangers) if strangers.is_empty() => {}
            Ok(_) => return Err("others have come into its cgroup since".to_owned()),
            Err(error) => return Err(format!("its cgroup cannot be looked into: {error}")),
        }
        let written = fs::write(self.dir.join(KILL), "1");
        written.map_err(|error| format!("its cgroup may not be killed: {error}"))
    }

    /// Who is in it, or in one below it, and is not kin; `None` for one that cannot be seen from here.
    fn strangers(&self, is_kin: impl Fn(Pid) -> bool) -> io::Result<Vec<Option<Pid>>> {
        let mut members = Vec::new();
        collect(&self.dir, DEPTH, &mut 0, &mut members)?;
        members.retain(|pid| !pid.is_some_and(&is_kin));
        Ok(members)
    }
}

fn collect(
    dir: &Path,
    depth: u32,
    cgroups: &mut usize,
    members: &mut Vec<Option<Pid>>,
) -> io::Result<()> {
    *cgroups += 1;
    if *cgroups > CGROUPS {
        return Err(io::Error::other("there are too many cgroups below it"));
    }
    let procs = proc_file::whole(dir.join("cgroup.procs"), MEMBERS_BYTES)?;
    let procs = String::from_utf8_lossy(&procs);
    members.extend(procs.lines().map(|line| Pid::from_raw(line.parse().unwrap_or(0))));
    if depth == 0 {
        return Err(io::Error::other("cgroups lie too deep"));
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), depth - 1, cgroups, members)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(dir: &Path) -> io::Result<usize> {
        let mut members = Vec::new();
        collect(dir, DEPTH, &mut 0, &mut members).map(|()| members.len())
    }

    #[test]
    fn a_cgroup_with_more_members_or_cgroups_than_are_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let procs = dir.path().join("cgroup.procs");
        fs::write(&procs, "1\n2\n").unwrap();
        assert_eq!(members(dir.path()).unwrap(), 2);
        fs::write(&procs, "1\n".repeat(1 << 20)).unwrap();
        assert!(members(dir.path()).unwrap_err().to_string().contains("longer"));
        fs::write(&procs, "").unwrap();
        for number in 0..CGROUPS {
            let below = dir.path().join(number.to_string());
            fs::create_dir(&below).unwrap();
            fs::write(below.join("cgroup.procs"), "").unwrap();
        }
        assert!(members(dir.path()).unwrap_err().to_string().contains("too many"));
    }
}
