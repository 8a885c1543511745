//! Whether a process sits in a frozen cgroup: it then misses its deadlines
//! through no fault of its own.
//!
//! Both hierarchies are asked, version 2 (`cgroup.events`) and the freezer of
//! version 1 (`freezer.state`). A frozen ancestor counts in both.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::process::{is_gone, read};

/// Where the mounts of this process are told.
const MOUNTS: &str = "/proc/thread-self/mountinfo";

/// Whether a process is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// It is, or is about to be.
    Yes,
    /// It is not, or it is gone.
    No,
    /// Its cgroup is not to be seen from here (not mounted, or of another
    /// container).
    Unknown,
}

/// Whether the process is in a frozen cgroup.
///
/// # Errors
/// Where `/proc` or the cgroup's files refuse.
pub fn frozen(pid: Pid) -> io::Result<Frozen> {
    let Some(cgroups) = read(pid, "cgroup")? else { return Ok(Frozen::No) };
    let mounts = fs::read_to_string(MOUNTS)?;
    let mut answer = Frozen::No;
    for (hierarchy, cgroup) in cgroups.lines().filter_map(parse_membership) {
        match frozen_in(&mounts, hierarchy, cgroup)? {
            Frozen::Yes => return Ok(Frozen::Yes),
            Frozen::No => {}
            Frozen::Unknown => answer = Frozen::Unknown,
        }
    }
    Ok(answer)
}

/// The directory of the process's cgroup of version 2. `None` if it is gone, or its cgroup is not to
/// be seen from here, or is the root of the hierarchy, which is nobody's own.
///
/// # Errors
/// Where `/proc` refuses.
pub fn unified_directory(pid: Pid) -> io::Result<Option<PathBuf>> {
    let Some(cgroups) = read(pid, "cgroup")? else { return Ok(None) };
    let mounts = fs::read_to_string(MOUNTS)?;
    let mut unified = cgroups.lines().filter_map(parse_membership);
    let found = unified.find(|(hierarchy, _)| *hierarchy == Hierarchy::V2);
    let found = found.filter(|(_, cgroup)| *cgroup != "/");
    Ok(found.and_then(|(hierarchy, cgroup)| {
        mounts.lines().find_map(|line| directory(line, hierarchy, cgroup))
    }))
}

/// Asks about many processes, and remembers where the cgroups' files are: the list
/// of mounts costs more than all the rest.
#[derive(Debug, Default)]
pub struct Freezers {
    /// By the text of `/proc/PID/cgroup`: the files to ask, and whether all that
    /// should be are there.
    known: HashMap<String, Vec<(Hierarchy, PathBuf)>>,
}

/// Memberships kept at most; beyond, all are forgotten and found again.
const KNOWN: usize = 1024;

impl Freezers {
    /// As [`frozen`].
    ///
    /// # Errors
    /// Where `/proc` or the cgroup's files refuse.
    pub fn frozen(&mut self, pid: Pid) -> io::Result<Frozen> {
        let Some(cgroups) = read(pid, "cgroup")? else { return Ok(Frozen::No) };
        if !self.known.contains_key(&cgroups) {
            let answer = frozen(pid)?;
            if answer != Frozen::Unknown {
                self.learn(cgroups)?;
            }
            return Ok(answer);
        }
        for (hierarchy, file) in &self.known[&cgroups] {
            match fs::read_to_string(file) {
                Ok(text) if says_frozen(*hierarchy, &text) => return Ok(Frozen::Yes),
                Ok(_) => {}
                // Gone, or mounted elsewhere by now.
                Err(_) => {
                    self.known.remove(&cgroups);
                    return frozen(pid);
                }
            }
        }
        Ok(Frozen::No)
    }

    fn learn(&mut self, cgroups: String) -> io::Result<()> {
        let mounts = fs::read_to_string(MOUNTS)?;
        let found =
            cgroups.lines().filter_map(parse_membership).filter_map(|(hierarchy, cgroup)| {
                let dir = mounts.lines().find_map(|line| directory(line, hierarchy, cgroup))?;
                let file = dir.join(hierarchy.file());
                // The root of a hierarchy has no such file: it cannot be frozen.
                file.exists().then_some((hierarchy, file))
            });
        let found = found.collect();
        if self.known.len() >= KNOWN {
            self.known.clear();
        }
        self.known.insert(cgroups, found);
        Ok(())
    }
}

/// A hierarchy in which processes can be frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hierarchy {
    V1Freezer,
    V2,
}

impl Hierarchy {
    fn file(self) -> &'static str {
        match self {
            Hierarchy::V1Freezer => "freezer.state",
            Hierarchy::V2 => "cgroup.events",
        }
    }
}

fn frozen_in(mounts: &str, hierarchy: Hierarchy, cgroup: &str) -> io::Result<Frozen> {
    let Some(dir) = mounts.lines().find_map(|line| directory(line, hierarchy, cgroup)) else {
        return Ok(Frozen::Unknown);
    };
    match fs::read_to_string(dir.join(hierarchy.file())) {
        Ok(text) if says_frozen(hierarchy, &text) => Ok(Frozen::Yes),
        Ok(_) => Ok(Frozen::No),
        // The root of a hierarchy has no such file: it cannot be frozen.
        Err(error) if is_gone(&error) && cgroup == "/" => Ok(Frozen::No),
        Err(error) if is_gone(&error) => Ok(Frozen::Unknown),
        Err(error) => Err(error),
    }
}

fn says_frozen(hierarchy: Hierarchy, text: &str) -> bool {
    match hierarchy {
        // FREEZING is not to be waited for: it may last, and means no better.
        Hierarchy::V1Freezer => matches!(text.trim_end(), "FROZEN" | "FREEZING"),
        Hierarchy::V2 => text.lines().any(|line| line == "frozen 1"),
    }
}

/// A line of `/proc/PID/cgroup`, `number:controllers:cgroup`, if it is about a
/// hierarchy that freezes.
fn parse_membership(line: &str) -> Option<(Hierarchy, &str)> {
    let mut fields = line.splitn(3, ':');
    let (number, controllers, cgroup) = (fields.next()?, fields.next()?, fields.next()?);
    if number == "0" && controllers.is_empty() {
        Some((Hierarchy::V2, cgroup))
    } else if controllers.split(',').any(|controller| controller == "freezer") {
        Some((Hierarchy::V1Freezer, cgroup))
    } else {
        None
    }
}

/// The directory of `cgroup`, if the mount told by this line of `mountinfo`
/// shows it: `id parent device root point options [tags] - type source options`.
fn directory(mount: &str, hierarchy: Hierarchy, cgroup: &str) -> Option<PathBuf> {
    let (mount, kind) = mount.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (fs_type, options) = (kind.next()?, kind.nth(1)?);
    let right = match hierarchy {
        Hierarchy::V2 => fs_type == "cgroup2",
        Hierarchy::V1Freezer => {
            fs_type == "cgroup" && options.split(',').any(|option| option == "freezer")
        }
    };
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
    let below = Path::new(cgroup).strip_prefix(root).ok()?;
    // A cgroup outside our cgroup namespace is told as `/../other`.
    let inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (right && inside).then(|| Path::new(&point).join(below))
}

/// A path with the octal escapes (`\040` is a space) that `mountinfo` uses.
fn unescape(path: &str) -> String {
    let mut parts = path.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(code) = code {
            plain.push(char::from(code));
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Child, fork, pause_for_ever};
    use super::*;

    const MIXED: &str = "\
24 1 0:21 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
30 24 0:27 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer
35 24 0:32 /docker/a /sys/fs/cg\\040roup rw,relatime master:1 shared:3 - cgroup2 cgroup2 rw
";

    #[test]
    fn memberships_are_read_where_they_freeze() {
        assert_eq!(parse_membership("0::/a/b:c"), Some((Hierarchy::V2, "/a/b:c")));
        assert_eq!(parse_membership("8:freezer:/x"), Some((Hierarchy::V1Freezer, "/x")));
        assert_eq!(parse_membership("8:cpu,freezer:/"), Some((Hierarchy::V1Freezer, "/")));
        for other in ["3:cpu:/x", "1:name=systemd:/", "", "0:", "freezer"] {
            assert_eq!(parse_membership(other), None, "{other}");
        }
    }

    #[test]
    fn a_cgroup_is_found_below_the_root_that_its_mount_shows() {
        let find =
            |hierarchy, cgroup| MIXED.lines().find_map(|line| directory(line, hierarchy, cgroup));
        for (hierarchy, cgroup, expected) in [
            (Hierarchy::V1Freezer, "/x/y", Some("/sys/fs/cgroup/freezer/x/y")),
            (Hierarchy::V1Freezer, "/", Some("/sys/fs/cgroup/freezer")),
            (Hierarchy::V1Freezer, "/../other", None),
            (Hierarchy::V2, "/docker/a/w", Some("/sys/fs/cg roup/w")),
            (Hierarchy::V2, "/docker/b", None),
            (Hierarchy::V2, "/docker/ab", None),
        ] {
            assert_eq!(find(hierarchy, cgroup), expected.map(PathBuf::from), "{cgroup}");
        }
        assert_eq!(frozen_in(MIXED, Hierarchy::V2, "/elsewhere").unwrap(), Frozen::Unknown);
    }

    #[test]
    fn the_states_are_told_apart() {
        for (hierarchy, text, expected) in [
            (Hierarchy::V2, "populated 1\nfrozen 1\n", true),
            (Hierarchy::V2, "populated 1\nfrozen 0\n", false),
            (Hierarchy::V2, "populated 1\n", false),
            (Hierarchy::V1Freezer, "FROZEN\n", true),
            (Hierarchy::V1Freezer, "FREEZING\n", true),
            (Hierarchy::V1Freezer, "THAWED\n", false),
        ] {
            assert_eq!(says_frozen(hierarchy, text), expected, "{text}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for (escaped, plain) in [("a\\040b", "a b"), ("\\134", "\\"), ("a\\9", "a\\9"), ("", "")] {
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn a_process_that_is_gone_is_not_frozen() {
        let child = fork(|| pause_for_ever());
        let pid = child.pid();
        child.kill();
        assert_eq!(frozen(pid).unwrap(), Frozen::No);
    }

    /// A cgroup of a test's own with one child in it; thawed, emptied and
    /// removed when dropped.
    struct Cgroup {
        dir: PathBuf,
        switch: &'static str,
        thaw: &'static str,
        child: Option<Child>,
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = fs::write(self.dir.join(self.switch), self.thaw);
            drop(self.child.take());
            // The kernel takes its time to notice that it is empty.
            while fs::remove_dir(&self.dir).is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy)
            {
                std::thread::yield_now();
            }
        }
    }

    fn check_freezing(hierarchy: Hierarchy) {
        let (switch, freeze, thaw) = match hierarchy {
            Hierarchy::V1Freezer => ("freezer.state", "FROZEN", "THAWED"),
            Hierarchy::V2 => ("cgroup.freeze", "1", "0"),
        };
        let mounts = fs::read_to_string(MOUNTS).unwrap();
        let name = format!("hangwatch-test-{}", std::process::id());
        let root = mounts.lines().find_map(|line| directory(line, hierarchy, "/"));
        let Some(dir) = root.map(|root| root.join(name)) else {
            println!("skipped: {hierarchy:?} is not mounted whole here");
            return;
        };
        if let Err(error) = fs::create_dir(&dir) {
            println!("skipped: may not make {}: {error}", dir.display());
            return;
        }
        let child = fork(|| pause_for_ever());
        let pid = child.pid();
        let cgroup = Cgroup { dir, switch, thaw, child: Some(child) };
        let write = |file: &str, text: &str| fs::write(cgroup.dir.join(file), text).unwrap();
        write("cgroup.procs", &pid.as_raw_pid().to_string());
        assert_eq!(frozen(pid).unwrap(), Frozen::No);
        for (text, state) in [(freeze, Frozen::Yes), (thaw, Frozen::No)] {
            write(switch, text);
            while frozen(pid).unwrap() != state {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_process_frozen_by_version_1_is_seen() {
        check_freezing(Hierarchy::V1Freezer);
    }

    #[test]
    fn a_process_frozen_by_version_2_is_seen() {
        check_freezing(Hierarchy::V2);
    }
}
