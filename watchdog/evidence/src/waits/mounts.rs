//! Which file system a path lies on, and who serves it.

use hangwatch::sys::proc_file;

use super::holders::Holders;

/// What is read of the list of mounts, bytes.
const LIST_BYTES: u64 = 1 << 20;

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: String,
    /// `nfs4`, `fuse.sshfs`, `ext4`.
    pub(super) kind: String,
    /// The device, server or program that it comes from.
    pub(super) source: String,
    /// The minor number of its device, by which FUSE knows its connection.
    minor: u32,
}

impl Mount {
    /// The mount that a path of a process lies on.
    pub(super) fn of(pid: u32, path: &str) -> Option<Mount> {
        let text = proc_file::bytes(format!("/proc/{pid}/mountinfo"), LIST_BYTES).ok()?;
        let text = String::from_utf8_lossy(&text);
        let is_above = |mount: &Mount| {
            let rest = path.strip_prefix(mount.point.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || mount.point == "/")
        };
        // Of two at one place the later one covers the earlier.
        text.lines().filter_map(mount).filter(is_above).max_by_key(|mount| mount.point.len())
    }

    /// Whether it is served by a process of this host, by FUSE.
    pub(super) fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.") || self.kind == "fuseblk"
    }

    /// The processes that serve it.
    pub(super) fn servers(&self, holders: &Holders) -> Vec<u32> {
        let all = holders.of("/dev/fuse");
        let connection = |it: &super::holders::Holder| it.info("fuse_connection:");
        let own = |it: &&super::holders::Holder| {
            connection(it).is_some_and(|number| number == self.minor.to_string())
        };
        let mut pids: Vec<u32> = all.iter().filter(own).map(|it| it.pid).collect();
        if pids.is_empty() && !all.iter().any(|it| connection(it).is_some()) {
            // Kernels before 6.17 do not tell: only one that is alone is sure.
            pids = all.iter().map(|it| it.pid).collect();
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

/// `36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw`
fn mount(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let head: Vec<&str> = head.split(' ').collect();
    let mut tail = tail.split(' ');
    Some(Mount {
        point: unescaped(head.get(4)?),
        kind: tail.next()?.to_owned(),
        source: unescaped(tail.next()?),
        minor: head.get(2)?.split_once(':')?.1.parse().ok()?,
    })
}

/// The kernel writes a space as `\040`.
fn unescaped(text: &str) -> String {
    text.replace("\\040", " ").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_is_a_mount() {
        let line = "36 35 0:98 / /mnt/my\\040disk rw shared:1 - fuse.sshfs host:/home rw,user_id=0";
        let mount = mount(line).unwrap();
        assert_eq!((mount.point.as_str(), mount.minor), ("/mnt/my disk", 98));
        assert!(mount.is_fuse() && mount.source == "host:/home");
        assert!(super::mount("malformed").is_none());
    }

    #[test]
    fn every_path_lies_on_a_mount() {
        let pid = std::process::id();
        assert_eq!(Mount::of(pid, "/proc/1/fd").unwrap().kind, "proc");
        assert!(Mount::of(pid, "/procedure").is_none_or(|mount| mount.kind != "proc"));
    }
}
