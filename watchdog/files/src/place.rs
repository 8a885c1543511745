//! Opens a directory whose path no other user can change: for incidents, and for Unix sockets.
//!
//! `open` walks the path from the root, one directory at a time, and checks each through a descriptor. Only
//! root and this user may own a directory or link on the way, and no other user may write to it, unless it is
//! sticky. Callers write beneath the returned descriptor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use crate::beneath;

/// The most symbolic links that are followed; the same as in the kernel.
const LINKS: usize = 40;
/// The most components of a path; the kernel refuses longer paths.
const COMPONENTS: usize = 4096;

/// Why a directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another user owns a directory or link on the way.
    #[error(
        "{} belongs to uid {uid}, who could put anything in its place; chown it to the watchdog's \
         user, or name another directory",
        path.display()
    )]
    Owner {
        /// The directory or link.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Other users can write to a directory on the way.
    #[error(
        "{} may be written to by others (mode {mode:04o}); chmod go-w it, or name another directory",
        path.display()
    )]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The kernel returned an error.
    #[error("cannot open {}: {source}", path.display())]
    Failed {
        /// The directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// What to do about missing directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Create them for this user only.
    Make,
    /// Stop at the last existing directory.
    Stop,
    /// Return an error.
    Refuse,
}

/// Opens the directory `dir` after checking every directory and link on the way.
///
/// # Errors
/// [`PlaceError`].
pub fn open(dir: &Path, absent: Absent) -> Result<OwnedFd, PlaceError> {
    Walk::new(dir)?.go(absent)
}

/// Opens the directory of one incident beneath an open directory, or creates it if `absent` says so.
///
/// Also returns whether it was created.
///
/// # Errors
/// [`PlaceError`] with the name as its path.
pub fn own(
    parent: BorrowedFd<'_>,
    name: &str,
    absent: Absent,
) -> Result<(OwnedFd, bool), PlaceError> {
    let path = Path::new(name);
    let failed = |source: io::Error| PlaceError::Failed { path: path.to_owned(), source };
    if !beneath::is_one_name(path) {
        return Err(failed(io::ErrorKind::InvalidInput.into()));
    }
    let is_new = absent == Absent::Make
        && match rustix::fs::mkdirat(parent, path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error.into())),
        };
    let dir = beneath::directory(parent, path).map_err(failed)?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| failed(error.into()))?;
    judge(&stat, path)?;
    Ok((dir, is_new))
}

/// A walk along a path.
struct Walk {
    /// The current directory.
    at: OwnedFd,
    path: PathBuf,
    /// The remaining components, the next one last.
    left: Vec<OsString>,
    links: usize,
}

impl Walk {
    fn new(dir: &Path) -> Result<Walk, PlaceError> {
        // For a relative path the working directory must be checked, too.
        let begin = if dir.is_absolute() {
            PathBuf::new()
        } else {
            let failed = |source| PlaceError::Failed { path: dir.to_owned(), source };
            std::env::current_dir().map_err(failed)?
        };
        let mut walk = Walk { at: root()?, path: PathBuf::from("/"), left: Vec::new(), links: 0 };
        walk.push(&begin.join(dir))?;
        Ok(walk)
    }

    /// Puts a path before the remaining components.
    fn push(&mut self, path: &Path) -> Result<(), PlaceError> {
        let components = path.components().rev().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::new("..").to_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        });
        self.left.extend(components);
        if self.left.len() > COMPONENTS {
            return Err(self.failed(Errno::NAMETOOLONG));
        }
        Ok(())
    }

    fn go(mut self, absent: Absent) -> Result<OwnedFd, PlaceError> {
        self.judge_here()?;
        while let Some(name) = self.left.pop() {
            if name == ".." {
                self.step(Path::new(".."))?;
                continue;
            }
            let name = Path::new(&name);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match rustix::fs::openat(&self.at, name, flags, Mode::empty()) {
                Err(Errno::NOENT) if absent == Absent::Stop => break,
                Err(Errno::NOENT) if absent == Absent::Make => {
                    self.make(name)?;
                    rustix::fs::openat(&self.at, name, flags, Mode::empty())
                }
                found => found,
            };
            self.path.push(name);
            let found = found.map_err(|error| self.failed(error))?;
            let stat = rustix::fs::fstat(&found).map_err(|error| self.failed(error))?;
            judge(&stat, &self.path)?;
            if beneath::file_type(&stat) == FileType::Symlink {
                self.follow(found.as_fd())?;
            } else {
                self.at = found;
                self.check_directory(&stat)?;
            }
        }
        self.step(Path::new("."))?; // readable, to list and to sync
        Ok(self.at)
    }

    /// Goes to `.` or `..`.
    fn step(&mut self, name: &Path) -> Result<(), PlaceError> {
        let flags = match name.to_str() {
            Some(".") => OFlags::RDONLY,
            _ => OFlags::PATH,
        };
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let found = rustix::fs::openat(&self.at, name, flags, Mode::empty());
        self.at = found.map_err(|error| self.failed(error))?;
        if name == Path::new("..") {
            self.path.pop();
        }
        self.judge_here()
    }

    fn make(&self, name: &Path) -> Result<(), PlaceError> {
        match rustix::fs::mkdirat(&self.at, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()), // another watchdog may have made it
            Err(source) => {
                Err(PlaceError::Failed { path: self.path.join(name), source: source.into() })
            }
        }
    }

    /// Follows a link, which only root or this user can have created (checked before).
    fn follow(&mut self, link: BorrowedFd<'_>) -> Result<(), PlaceError> {
        self.links += 1;
        if self.links > LINKS {
            return Err(self.failed(Errno::LOOP));
        }
        let target = rustix::fs::readlinkat(link, "", Vec::new());
        let target = target.map_err(|error| self.failed(error))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        self.path.pop();
        if target.is_absolute() {
            (self.at, self.path) = (root()?, PathBuf::from("/"));
        }
        self.push(&target)
    }

    fn judge_here(&self) -> Result<(), PlaceError> {
        let stat = rustix::fs::fstat(&self.at).map_err(|error| self.failed(error))?;
        judge(&stat, &self.path)
    }

    fn check_directory(&self, stat: &Stat) -> Result<(), PlaceError> {
        if beneath::file_type(stat) == FileType::Directory {
            return Ok(());
        }
        Err(self.failed(Errno::NOTDIR))
    }

    fn failed(&self, error: Errno) -> PlaceError {
        PlaceError::Failed { path: self.path.clone(), source: error.into() }
    }
}

fn root() -> Result<OwnedFd, PlaceError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |error: Errno| PlaceError::Failed { path: "/".into(), source: error.into() };
    rustix::fs::open("/", flags, Mode::empty()).map_err(failed)
}

/// Checks that only root and this user can change what is at `path`.
fn judge(stat: &Stat, path: &Path) -> Result<(), PlaceError> {
    let own = geteuid().as_raw();
    let uid = stat.st_uid;
    if uid != 0 && uid != own && !is_outside_this_namespace(uid) {
        return Err(PlaceError::Owner { path: path.to_owned(), uid });
    }
    if beneath::file_type(stat) == FileType::Symlink {
        return Ok(()); // its mode says nothing
    }
    let mode = Mode::from_raw_mode(stat.st_mode);
    // Root's group counts as root, and a user's private group counts as that user.
    let is_own_group = stat.st_gid == 0 || (stat.st_gid == own && getegid().as_raw() == own);
    let by_others = mode.contains(Mode::WOTH) || (mode.contains(Mode::WGRP) && !is_own_group);
    if by_others && !mode.contains(Mode::SVTX) {
        let mode = mode.as_raw_mode();
        return Err(PlaceError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Whether a uid is the overflow uid, which stands for users without a number in this user namespace.
///
/// In a container these own the host's directories; they belong to whoever created the container.
fn is_outside_this_namespace(uid: u32) -> bool {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    if read("/proc/sys/kernel/overflowuid").trim().parse() != Ok(uid) {
        return false;
    }
    let map = read("/proc/self/uid_map");
    let mut ranges = map.lines().filter_map(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (words.next()?.ok()?, words.next()?, words.next()?.ok()?);
        Some(first..first + count)
    });
    !map.is_empty() && !ranges.any(|range| range.contains(&uid.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn tried(path: &Path) -> Result<(), String> {
        open(path, Absent::Make).map(drop).map_err(|error| error.to_string())
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_is_made_for_its_user_alone_and_links_of_its_user_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        symlink("real", dir.path().join("link")).unwrap();
        symlink(dir.path(), dir.path().join("absolute")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        tried(&dir.path().join("absolute/link/../link/a/b")).unwrap();
        let made = dir.path().join("real/a/b");
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(tried(&dir.path().join("loop/a")).unwrap_err().contains("loop"));
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open_to_all = dir.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        set_mode(&open_to_all, 0o777);
        for path in [open_to_all.clone(), open_to_all.join("below")] {
            let why = tried(&path).unwrap_err();
            assert!(why.contains("chmod") && why.contains("0777"), "{why}");
        }
        assert!(!open_to_all.join("below").exists(), "nothing is made in it");
        set_mode(&open_to_all, 0o1777);
        tried(&open_to_all.join("below")).unwrap();
        if geteuid().is_root() {
            chown(&open_to_all, None, Some(12_345)).unwrap();
            set_mode(&open_to_all, 0o770);
            assert!(tried(&open_to_all).unwrap_err().contains("0770"));
        }
    }

    #[test]
    fn a_directory_or_link_of_another_user_is_refused() {
        if !geteuid().is_root() {
            println!("skipped: only root can give a directory away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        fs::create_dir_all(theirs.join("mine")).unwrap();
        chown(&theirs, Some(65_534), None).unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        std::os::unix::fs::lchown(dir.path().join("link"), Some(65_534), None).unwrap();
        for path in [theirs.clone(), theirs.join("mine"), dir.path().join("link/below")] {
            let why = tried(&path).unwrap_err();
            assert!(why.contains("65534") && why.contains("chown"), "{why}");
        }
    }
}
