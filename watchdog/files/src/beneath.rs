//! Opens files by untrusted names.
//!
//! No path is resolved twice: a directory is opened once, a name is looked up beneath it, and checks use the
//! descriptor. [`regular_file`] opens only regular files: links, FIFOs and devices are refused before they are
//! opened.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The flags of a handle.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens `path`, which must stay beneath `root`, as a handle that cannot be read (`O_PATH`).
///
/// No symbolic link is followed.
///
/// # Errors
/// `ELOOP` if a component is a symbolic link, `EXDEV` if the path leaves `root`.
pub fn handle(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, HANDLE, Mode::empty(), within) {
        // A kernel before 5.6, or a seccomp filter.
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(root, path),
        opened => Ok(opened?),
    }
}

/// As [`handle`], without `openat2`: opens one component after the other.
fn step_by_step(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let mut at = rustix::fs::openat(root, ".", HANDLE, Mode::empty())?;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => name,
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(Errno::XDEV.into());
            }
        };
        at = rustix::fs::openat(&at, name, HANDLE | OFlags::NOFOLLOW, Mode::empty())?;
        if file_type(&rustix::fs::fstat(&at)?) == FileType::Symlink {
            return Err(Errno::LOOP.into());
        }
    }
    Ok(at)
}

/// Opens a directory beneath `parent` to read its entries.
///
/// # Errors
/// `ENOTDIR` or `ELOOP` if it is not a directory; other errors of the kernel.
pub fn directory(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    let found = handle(parent, name)?;
    if file_type(&rustix::fs::fstat(&found)?) != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&found, ".", flags, Mode::empty())?)
}

/// Opens a regular file beneath `root` for reading; also returns its metadata.
///
/// # Errors
/// `EINVAL` if it is not a regular file; other errors of the kernel.
pub fn regular_file(root: BorrowedFd<'_>, path: &Path) -> io::Result<(File, Stat)> {
    readable(handle(root, path)?.as_fd())
}

/// Opens the file of a handle for reading, if it is a regular file.
///
/// # Errors
/// As [`regular_file`].
pub fn readable(handle: BorrowedFd<'_>) -> io::Result<(File, Stat)> {
    let stat = rustix::fs::fstat(handle)?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(Errno::INVAL.into());
    }
    // The link in /proc/self/fd leads to this file, even if it was renamed.
    let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(link, flags, Mode::empty())?;
    Ok((file.into(), stat))
}

/// The file type in a `stat`.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether a path is one name, and not `.` or `..`.
pub fn is_one_name(path: &Path) -> bool {
    let mut components = path.components();
    let first = components.next();
    matches!(first, Some(Component::Normal(name)) if name == path.as_os_str())
        && components.next().is_none()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn opened(dir: &tempfile::TempDir, path: &str) -> Result<String, Option<i32>> {
        let root = File::open(dir.path()).unwrap();
        let (mut file, _) =
            regular_file(root.as_fd(), Path::new(path)).map_err(|error| error.raw_os_error())?;
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn only_a_regular_file_beneath_the_directory_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        std::fs::write(dir.path().join("a/file"), "text").unwrap();
        symlink("file", dir.path().join("a/link")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(opened(&dir, "a/file").as_deref(), Ok("text"));
        assert_eq!(opened(&dir, "/a/file").as_deref(), Ok("text"), "beneath it all the same");
        assert_eq!(opened(&dir, "a/link"), Err(Some(libc::ELOOP)));
        assert_eq!(opened(&dir, "b/file"), Err(Some(libc::ELOOP)));
        assert_eq!(opened(&dir, "a/../../etc/passwd"), Err(Some(libc::EXDEV)));
        assert_eq!(opened(&dir, "fifo"), Err(Some(libc::EINVAL)), "it must not wait for a writer");
        assert_eq!(opened(&dir, "a"), Err(Some(libc::EINVAL)));
        let root = File::open(dir.path()).unwrap();
        let step = |path: &str| {
            let found = step_by_step(root.as_fd(), Path::new(path));
            found.map(drop).map_err(|error| error.raw_os_error())
        };
        assert_eq!(step("a/file"), Ok(()));
        for (path, errno) in
            [("a/link", libc::ELOOP), ("b/file", libc::ELOOP), ("a/..", libc::EXDEV)]
        {
            assert_eq!(step(path), Err(Some(errno)), "{path}");
        }
    }

    #[test]
    fn one_name_is_told_from_a_path() {
        let is_one = |path: &str| is_one_name(Path::new(path));
        assert!(is_one("20261123T155237.123456Z-train-7"));
        for other in ["", ".", "..", "/", "a/b", "a/", "/a"] {
            assert!(!is_one(other), "{other}");
        }
    }
}
