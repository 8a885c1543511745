//! Who holds the other end: every process's descriptors, by what they are of.
//!
//! All of `/proc/*/fd` is read once, when it is first asked for, within bounds. A descriptor is never
//! opened, nor looked at through its link: that would ask a file system that may hang.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use hangwatch::sys::proc_file;

/// Processes, and descriptors of all of them, that are looked at, at most.
const PROCESSES: usize = 32_768;
const DESCRIPTORS: usize = 1 << 20;
/// Holders of one thing that are told, at most.
const HOLDERS: usize = 64;

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) fd: u32,
}

/// For what a descriptor is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Read,
    Write,
}

/// The descriptors of all processes, by their links.
#[derive(Debug, Default)]
pub(super) struct Holders {
    by_link: HashMap<String, Vec<Holder>>,
    /// Why not all of them were looked at, if so.
    pub(super) incomplete: Option<String>,
}

impl Holders {
    /// Looks at all processes but this one and its parent, which asks for the capture, for so long at most.
    pub(super) fn scan(most: Duration) -> Holders {
        let mut holders = Holders::default();
        let own = [std::process::id(), std::os::unix::process::parent_id()];
        let until = Instant::now() + most;
        let (mut left, mut refused) = (DESCRIPTORS, 0);
        let processes = fs::read_dir("/proc").into_iter().flatten();
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        for (count, pid) in pids.filter(|pid| !own.contains(pid)).enumerate() {
            if left == 0 || count == PROCESSES || Instant::now() > until {
                holders.incomplete = Some("there are too many processes to look at all".to_owned());
                break;
            }
            let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
                refused += 1;
                continue;
            };
            for entry in entries.filter_map(Result::ok).take(left) {
                left -= 1;
                let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
                let Some((fd, link)) = fd.zip(link(&entry.path())) else { continue };
                holders.by_link.entry(link).or_default().push(Holder { pid, fd });
            }
        }
        if refused > 0 && holders.incomplete.is_none() && !rustix::process::geteuid().is_root() {
            holders.incomplete =
                Some("other users' processes may not be looked at without root".to_owned());
        }
        holders
    }

    /// Who has a descriptor of this link.
    pub(super) fn of(&self, link: &str) -> Vec<Holder> {
        self.by_link.get(link).into_iter().flatten().copied().take(HOLDERS).collect()
    }

    /// All, up to so many, that have a descriptor of this link.
    pub(super) fn all_of(&self, link: &str, most: usize) -> Vec<Holder> {
        self.by_link.get(link).into_iter().flatten().copied().take(most).collect()
    }

    /// Who has one that is open for this.
    pub(super) fn open_for(&self, link: &str, mode: Mode) -> Vec<Holder> {
        let all = self.by_link.get(link).into_iter().flatten().copied();
        all.filter(|holder| holder.is_open_for(mode)).take(HOLDERS).collect()
    }
}

impl Holder {
    /// The kernel shows the mode in the permissions of the link itself.
    fn is_open_for(self, mode: Mode) -> bool {
        let path = format!("/proc/{}/fd/{}", self.pid, self.fd);
        let bit = match mode {
            Mode::Read => 0o400,
            Mode::Write => 0o200,
        };
        fs::symlink_metadata(path).is_ok_and(|link| link.permissions().mode() & bit != 0)
    }

    /// A line of what the kernel says about the descriptor.
    pub(super) fn info(self, name: &str) -> Option<String> {
        info(self.pid, self.fd, name)
    }
}

/// What a descriptor is of, by its link.
pub(super) fn link_of(pid: u32, fd: u64) -> Option<String> {
    link(std::path::Path::new(&format!("/proc/{pid}/fd/{fd}")))
}

fn link(path: &std::path::Path) -> Option<String> {
    Some(fs::read_link(path).ok()?.to_string_lossy().into_owned())
}

/// What stands behind a name in the `fdinfo` of a descriptor.
pub(super) fn info(pid: u32, fd: u32, name: &str) -> Option<String> {
    let text = proc_file::text(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    super::task::field(&text, name).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_pipe_are_told_apart_by_their_modes() {
        let (reader, writer) = std::io::pipe().unwrap();
        let fd = |fd: &dyn std::os::fd::AsRawFd| fd.as_raw_fd().unsigned_abs();
        let own = |fd| Holder { pid: std::process::id(), fd };
        assert!(
            own(fd(&reader)).is_open_for(Mode::Read) && !own(fd(&reader)).is_open_for(Mode::Write)
        );
        assert!(
            own(fd(&writer)).is_open_for(Mode::Write) && !own(fd(&writer)).is_open_for(Mode::Read)
        );
        let link = link_of(std::process::id(), fd(&reader).into()).unwrap();
        assert!(link.starts_with("pipe:["), "{link}");
        assert!(own(fd(&reader)).info("flags:").is_some());
    }
}
