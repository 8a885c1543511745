//! Whether a process sits in a frozen cgroup: it then misses its deadlines
//! through no fault of its own.
//!
//! Both hierarchies are asked, version 2 (`cgroup.events`) and the freezer of
//! version 1 (`freezer.state`). A frozen ancestor counts in both.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::proc::read_bytes;
use hangwatch::sys::proc_file::{self, ORDINARY_BYTES, is_gone};

/// Where the mounts of this process are told.
const MOUNTS: &str = "/proc/thread-self/mountinfo";
/// The longest list of mounts that is read, bytes.
const MOUNTS_BYTES: u64 = 16 << 20;

/// The mounts of this process. Any user may have a part in what it says (a FUSE mount): it is bytes.
fn mounts() -> io::Result<Vec<u8>> {
    proc_file::whole(MOUNTS, MOUNTS_BYTES)
}

/// The lines of a file.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n')
}

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
    let Some(cgroups) = read_bytes(pid, "cgroup")? else { return Ok(Frozen::No) };
    let mounts = mounts()?;
    let mut answer = Frozen::No;
    for (hierarchy, cgroup) in lines(&cgroups).filter_map(parse_membership) {
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
    let Some(cgroups) = read_bytes(pid, "cgroup")? else { return Ok(None) };
    let mounts = mounts()?;
    let mut unified = lines(&cgroups).filter_map(parse_membership);
    let found = unified.find(|(hierarchy, _)| *hierarchy == Hierarchy::V2);
    let found = found.filter(|(_, cgroup)| *cgroup != b"/");
    Ok(found.and_then(|(hierarchy, cgroup)| {
        lines(&mounts).find_map(|line| directory(line, hierarchy, cgroup))
    }))
}

/// Asks about many processes, and remembers where the cgroups' files are: the list
/// of mounts costs more than all the rest.
#[derive(Debug, Default)]
pub struct Freezers {
    /// By the text of `/proc/PID/cgroup`: the files to ask, and whether all that
    /// should be are there.
    known: HashMap<Vec<u8>, Vec<(Hierarchy, PathBuf)>>,
}

/// Memberships kept at most; beyond, all are forgotten and found again.
const KNOWN: usize = 1024;

impl Freezers {
    /// As [`frozen`].
    ///
    /// # Errors
    /// Where `/proc` or the cgroup's files refuse.
    pub fn frozen(&mut self, pid: Pid) -> io::Result<Frozen> {
        let Some(cgroups) = read_bytes(pid, "cgroup")? else { return Ok(Frozen::No) };
        if !self.known.contains_key(&cgroups) {
            let answer = frozen(pid)?;
            if answer != Frozen::Unknown {
                self.learn(cgroups)?;
            }
            return Ok(answer);
        }
        for (hierarchy, file) in &self.known[&cgroups] {
            match proc_file::bytes(file, ORDINARY_BYTES) {
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

    fn learn(&mut self, cgroups: Vec<u8>) -> io::Result<()> {
        let mounts = mounts()?;
        let found =
            lines(&cgroups).filter_map(parse_membership).filter_map(|(hierarchy, cgroup)| {
                let dir = lines(&mounts).find_map(|line| directory(line, hierarchy, cgroup))?;
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

fn frozen_in(mounts: &[u8], hierarchy: Hierarchy, cgroup: &[u8]) -> io::Result<Frozen> {
    let Some(dir) = lines(mounts).find_map(|line| directory(line, hierarchy, cgroup)) else {
        return Ok(Frozen::Unknown);
    };
    match proc_file::bytes(dir.join(hierarchy.file()), ORDINARY_BYTES) {
        Ok(text) if says_frozen(hierarchy, &text) => Ok(Frozen::Yes),
        Ok(_) => Ok(Frozen::No),
        // The root of a hierarchy has no such file: it cannot be frozen.
        Err(error) if is_gone(&error) && cgroup == b"/" => Ok(Frozen::No),
        Err(error) if is_gone(&error) => Ok(Frozen::Unknown),
        Err(error) => Err(error),
    }
}

fn says_frozen(hierarchy: Hierarchy, text: &[u8]) -> bool {
    match hierarchy {
        // FREEZING is not to be waited for: it may last, and means no better.
        Hierarchy::V1Freezer => matches!(text.trim_ascii_end(), b"FROZEN" | b"FREEZING"),
        Hierarchy::V2 => lines(text).any(|line| line == b"frozen 1"),
    }
}

/// A line of `/proc/PID/cgroup`, `number:controllers:cgroup`, if it is about a
/// hierarchy that freezes.
fn parse_membership(line: &[u8]) -> Option<(Hierarchy, &[u8])> {
    let mut fields = line.splitn(3, |&byte| byte == b':');
    let (number, controllers, cgroup) = (fields.next()?, fields.next()?, fields.next()?);
    if number == b"0" && controllers.is_empty() {
        Some((Hierarchy::V2, cgroup))
    } else if controllers.split(|&byte| byte == b',').any(|controller| controller == b"freezer") {
        Some((Hierarchy::V1Freezer, cgroup))
    } else {
        None
    }
}

/// The directory of `cgroup`, if the mount told by this line of `mountinfo`
/// shows it: `id parent device root point options [tags] - type source options`.
fn directory(mount: &[u8], hierarchy: Hierarchy, cgroup: &[u8]) -> Option<PathBuf> {
    let mut fields = mount.split(|&byte| byte == b' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    // Spaces within fields are escaped: the first lone hyphen ends the tags.
    let mut kind = fields.skip_while(|field| *field != b"-").skip(1);
    let (fs_type, options) = (kind.next()?, kind.nth(1)?);
    let right = match hierarchy {
        Hierarchy::V2 => fs_type == b"cgroup2",
        Hierarchy::V1Freezer => {
            let mut options = options.split(|&byte| byte == b',');
            fs_type == b"cgroup" && options.any(|option| option == b"freezer")
        }
    };
    let below = Path::new(OsStr::from_bytes(cgroup)).strip_prefix(unescape(root)).ok()?;
    // A cgroup outside our cgroup namespace is told as `/../other`.
    let inside = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    (right && inside).then(|| Path::new(&unescape(point)).join(below))
}

/// A path with the octal escapes (`\040` is a space) that `mountinfo` uses.
fn unescape(path: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.first_chunk::<3>().filter(|_| byte == b'\\').copied().and_then(octal);
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(plain)
}

fn octal(digits: [u8; 3]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |code, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        code.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use hangwatch_test_children::{Child, fork, mount_small_tmpfs, pause_for_ever};

    const MIXED: &[u8] = b"\
24 1 0:40 / /home/\xff\xfe/mnt rw - fuse.x\xff x\xff rw
24 1 0:21 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
30 24 0:27 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer
35 24 0:32 /docker/a /sys/fs/cg\\040roup rw,relatime master:1 shared:3 - cgroup2 cgroup2 rw
";

    #[test]
    fn memberships_are_read_where_they_freeze() {
        let parse = |line: &'static str| {
            parse_membership(line.as_bytes())
                .map(|(hierarchy, cgroup)| (hierarchy, cgroup.to_vec()))
        };
        assert_eq!(parse("0::/a/b:c"), Some((Hierarchy::V2, b"/a/b:c".to_vec())));
        assert_eq!(parse("8:freezer:/x"), Some((Hierarchy::V1Freezer, b"/x".to_vec())));
        assert_eq!(parse("8:cpu,freezer:/"), Some((Hierarchy::V1Freezer, b"/".to_vec())));
        for other in ["3:cpu:/x", "1:name=systemd:/", "", "0:", "freezer"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_cgroup_is_found_below_the_root_that_its_mount_shows() {
        let find = |hierarchy, cgroup: &str| {
            lines(MIXED).find_map(|line| directory(line, hierarchy, cgroup.as_bytes()))
        };
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
        assert_eq!(frozen_in(MIXED, Hierarchy::V2, b"/elsewhere").unwrap(), Frozen::Unknown);
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
            assert_eq!(says_frozen(hierarchy, text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        for (escaped, plain) in [
            (&b"a\\040b"[..], &b"a b"[..]),
            (b"\\134", b"\\"),
            (b"a\\9", b"a\\9"),
            (b"\\777", b"\\777"),
            (b"\\377\xff", b"\xff\xff"),
            (b"", b""),
        ] {
            assert_eq!(unescape(escaped).as_bytes(), plain);
        }
    }

    /// A line as the kernel writes them, with some bytes changed.
    fn odd_line(line: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        let changes = proptest::collection::vec((0..line.len(), any::<u8>()), 0..8);
        (changes, 0..=line.len()).prop_map(move |(changes, length)| {
            let mut odd = line.to_vec();
            changes.into_iter().for_each(|(at, byte)| odd[at] = byte);
            odd.truncate(length);
            odd
        })
    }

    proptest! {
        #[test]
        fn no_line_whatever_its_bytes_is_too_odd_to_be_read(
            mount in odd_line(b"35 24 0:32 /docker/a /sys/fs/cg\\040roup rw - cgroup2 c rw,freezer"),
            membership in odd_line(b"8:cpu,freezer:/docker/a/w\xff"),
            noise in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            for line in [&mount, &membership, &noise] {
                let _ = (parse_membership(line), unescape(line));
                for hierarchy in [Hierarchy::V2, Hierarchy::V1Freezer] {
                    let _ = (directory(line, hierarchy, &membership), says_frozen(hierarchy, line));
                }
            }
        }
    }

    /// Any user may have a mount in the same namespace whose path is no UTF-8.
    #[test]
    fn a_mount_point_that_is_no_text_hides_no_freezer() {
        let found = lines(MIXED).find_map(|line| directory(line, Hierarchy::V2, b"/docker/a/\xff"));
        assert_eq!(found.unwrap().as_os_str().as_bytes(), b"/sys/fs/cg roup/\xff");
    }

    #[test]
    fn freezers_are_found_beside_a_mount_whose_path_is_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().join(OsStr::from_bytes(b"\xff"));
        fs::create_dir(&point).unwrap();
        let child = fork(|| match mount_small_tmpfs(&point, 4096) {
            Ok(()) => i32::from(frozen(rustix::process::getpid()).is_err()),
            Err(error) => {
                eprintln!("skipped: may not mount: {error}");
                0
            }
        });
        assert_eq!(child.exit_status(), 0);
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
        let mounts = mounts().unwrap();
        let name = format!("hangwatch-test-{}", std::process::id());
        let root = lines(&mounts).find_map(|line| directory(line, hierarchy, b"/"));
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
