//! The named file behind a segment: made whole or not at all, opened
//! suspiciously.
//!
//! [`create`] prepares a file that has no name and gives it one only when it is
//! complete. [`look`] examines what a name stands for without opening it, and
//! [`Found::open`] opens exactly that. Names are checked in
//! [`name`](super::name); the memory is mapped by
//! [`mapping`](super::mapping).
//!
//! **Closing a [`SegmentFile`] gives up every lock this process holds on that
//! segment**, whichever descriptor took it. So one descriptor a segment a
//! process, never closed: look first, compare [`FileId`], and open only what is
//! not open yet. Looking takes no lock away.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{Gid, getegid, geteuid, getgroups};

use super::host::page_size;
use super::mapping::{MapError, Mapping, Prefault};
use super::name::{NameError, SEGMENT_DIR, file_name, segment_name};

/// The largest file taken for a segment, in bytes: far above any real one, far
/// below what could exhaust an address space.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 36;

/// Which file a descriptor or a lock is about: two names, or one name at two
/// times, are the same file exactly if these are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device, as `stat` gives it.
    pub dev: u64,
    /// The inode number on that device.
    pub ino: u64,
}

/// An open segment file. See the module's warning about closing it.
#[derive(Debug)]
pub struct SegmentFile {
    fd: OwnedFd,
    id: FileId,
    len: u64,
}

impl SegmentFile {
    /// Which file this is.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// The file's length in bytes when it was opened or made.
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Maps the whole file.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(&self, prefault: Prefault) -> Result<Mapping, MapError> {
        let len = usize::try_from(self.len).map_err(|_| MapError::Length { len: usize::MAX })?;
        Mapping::new(&self.fd, len, prefault)
    }
}

impl AsFd for SegmentFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why a segment could not be made. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It cannot be called that.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The length is not a whole number of pages within the bound.
    #[error(
        "cannot make {path}: {len} bytes is not a multiple of the page ({page} bytes) \
         up to {MAX_SEGMENT_BYTES}; change the number of lanes, timers or ring records"
    )]
    Length {
        /// The segment's file.
        path: PathBuf,
        /// The length asked for, in bytes.
        len: u64,
        /// The page size in bytes.
        page: u64,
    },
    /// The name is taken.
    #[error(
        "cannot make {path}: it exists already; use it, choose another name, \
         or remove it with `hangwatch rm` if nobody uses it"
    )]
    AlreadyExists {
        /// The segment's file.
        path: PathBuf,
    },
    /// Not enough room for the whole segment.
    #[error(
        "cannot make {path}: it needs {needed} bytes and {free} are free; enlarge {} \
         (in a container: --shm-size), remove what fills it, or ask for fewer lanes",
        .path.parent().unwrap_or(.path).display()
    )]
    NoSpace {
        /// The segment's file.
        path: PathBuf,
        /// The segment's length in bytes.
        needed: u64,
        /// What the file system has left, in bytes.
        free: u64,
    },
    /// The group is not one this process may give a file to.
    #[error("cannot give {path} to group {gid}: {source}; name a group that you are a member of")]
    Group {
        /// The segment's file.
        path: PathBuf,
        /// The group asked for.
        gid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// It could not be mapped to be initialised.
    #[error("cannot make {path}: {source}")]
    Map {
        /// The segment's file.
        path: PathBuf,
        /// Why.
        source: MapError,
    },
    /// Any other refusal of the kernel.
    #[error(
        "cannot make {path}: {step} failed: {source}; hangwatch needs a writable tmpfs \
         (O_TMPFILE) at {} and a mounted /proc",
        .path.parent().unwrap_or(.path).display()
    )]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// Which call it was.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Makes the segment `name` in `/dev/shm`: `len` bytes, preallocated, zeroed,
/// then whatever `init` writes, and only then visible under its name.
///
/// `mode` is set as given (the umask does not apply); `gid` is the group that
/// may be allowed by it.
///
/// # Errors
/// [`CreateError`]; nothing is left half-made, even if the process is killed.
pub fn create(
    name: &str,
    len: u64,
    mode: u32,
    gid: Option<u32>,
    init: impl FnOnce(&[AtomicU64]),
) -> Result<SegmentFile, CreateError> {
    create_in(Path::new(SEGMENT_DIR), name, len, mode, gid, init)
}

/// As [`create`], in another directory on a tmpfs.
///
/// # Errors
/// [`CreateError`].
pub fn create_in(
    dir: &Path,
    name: &str,
    len: u64,
    mode: u32,
    gid: Option<u32>,
    init: impl FnOnce(&[AtomicU64]),
) -> Result<SegmentFile, CreateError> {
    let path = dir.join(file_name(name)?);
    let page = page_size();
    if !is_good_length(len) {
        return Err(CreateError::Length { path, len, page });
    }
    let failed = |step| {
        let path = path.clone();
        move |source: Errno| CreateError::Io { path, step, source: source.into() }
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    let fd = rustix::fs::open(dir, flags, private).map_err(failed("open with O_TMPFILE"))?;
    if let Some(gid) = gid {
        rustix::fs::fchown(&fd, None, Some(Gid::from_raw(gid))).map_err(|source| {
            CreateError::Group { path: path.clone(), gid, source: source.into() }
        })?;
    }
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed("fchmod"))?;
    allocate(&fd, len).map_err(|errno| match errno {
        Errno::NOSPC => {
            CreateError::NoSpace { path: path.clone(), needed: len, free: free_bytes(&fd) }
        }
        other => failed("fallocate")(other),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(failed("fstat"))?;
    let file = SegmentFile { fd, id: file_id(&stat), len };
    let mapping = file
        .map(Prefault::OnUse)
        .map_err(|source| CreateError::Map { path: path.clone(), source })?;
    init(mapping.words());
    drop(mapping);
    // Linking by way of /proc needs no privilege, as AT_EMPTY_PATH would.
    rustix::fs::linkat(CWD, reopen_path(&file.fd), CWD, &path, AtFlags::SYMLINK_FOLLOW).map_err(
        |errno| match errno {
            Errno::EXIST => CreateError::AlreadyExists { path: path.clone() },
            other => failed("linkat")(other),
        },
    )?;
    Ok(file)
}

/// Why a name's file was not opened. It was neither followed nor changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be called that.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such segment.
    #[error(
        "there is no segment {path}; start the watchdog first (`hangwatch run`), \
         or check the name in HANGWATCH_SEGMENT"
    )]
    NotFound {
        /// The segment's file.
        path: PathBuf,
    },
    /// A symbolic link waits under the name.
    #[error(
        "refused {path}: it is a symbolic link, which no segment is; find out who put it there, \
         and remove it"
    )]
    Symlink {
        /// The segment's file.
        path: PathBuf,
    },
    /// A directory, pipe, device or socket waits under the name.
    #[error("refused {path}: it is not a regular file; find out who put it there, and remove it")]
    NotRegular {
        /// The segment's file.
        path: PathBuf,
    },
    /// It is another user's, and no group of ours is allowed.
    #[error(
        "refused {path}: it belongs to user {uid}; run as that user, or have the segment made \
         for a group that you are a member of"
    )]
    ForeignOwner {
        /// The segment's file.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// The file's mode does not allow us.
    #[error(
        "cannot open {path}: permission denied; run as its owner, or have the segment made \
         for a group that you are a member of"
    )]
    PermissionDenied {
        /// The segment's file.
        path: PathBuf,
    },
    /// No segment has this length.
    #[error(
        "refused {path}: {len} bytes is no segment's length (a multiple of the page, \
         {page} bytes, up to {MAX_SEGMENT_BYTES}); remove it with `hangwatch rm` and make it anew"
    )]
    BadSize {
        /// The segment's file.
        path: PathBuf,
        /// The file's length in bytes.
        len: u64,
        /// The page size in bytes.
        page: u64,
    },
    /// Any other refusal of the kernel.
    #[error("cannot open {path}: {step} failed: {source}; check that /proc is mounted")]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// Which call it was.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What a name stands for: examined and found fit to be a segment, not opened.
#[derive(Debug)]
pub struct Found {
    /// An `O_PATH` descriptor. Closing one releases no locks.
    handle: OwnedFd,
    path: PathBuf,
    id: FileId,
    len: u64,
}

impl Found {
    /// Which file the name stands for.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Opens exactly the file that was examined, for reading and writing,
    /// whatever its name stands for by now.
    ///
    /// # Errors
    /// [`OpenError`], most likely that permission is denied.
    pub fn open(self) -> Result<SegmentFile, OpenError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match rustix::fs::open(reopen_path(&self.handle), flags, Mode::empty()) {
            Ok(fd) => Ok(SegmentFile { fd, id: self.id, len: self.len }),
            Err(errno) => Err(open_error("open", self.path, errno)),
        }
    }
}

/// Looks at the segment `name` in `/dev/shm` without opening it.
///
/// # Errors
/// [`OpenError`] if it is not there or not what a segment must be.
pub fn look(name: &str) -> Result<Found, OpenError> {
    look_in(Path::new(SEGMENT_DIR), name)
}

/// As [`look`], in another directory.
///
/// # Errors
/// [`OpenError`].
pub fn look_in(dir: &Path, name: &str) -> Result<Found, OpenError> {
    let path = dir.join(file_name(name)?);
    // O_PATH opens nothing: no device is woken, no pipe waited for, and with
    // O_NOFOLLOW a link is seen as itself.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::open(&path, flags, Mode::empty())
        .map_err(|errno| open_error("open with O_PATH", path.clone(), errno))?;
    let stat =
        rustix::fs::fstat(&handle).map_err(|errno| open_error("fstat", path.clone(), errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Err(OpenError::Symlink { path }),
        _ => return Err(OpenError::NotRegular { path }),
    }
    if !is_trusted(&stat) {
        return Err(OpenError::ForeignOwner { path, uid: stat.st_uid });
    }
    let len = stat.st_size.cast_unsigned();
    if !is_good_length(len) {
        return Err(OpenError::BadSize { path, len, page: page_size() });
    }
    Ok(Found { handle, path, id: file_id(&stat), len })
}

/// Opens the segment `name` in `/dev/shm`, if it is not open in this process
/// yet: see the module's warning.
///
/// # Errors
/// [`OpenError`].
pub fn open(name: &str) -> Result<SegmentFile, OpenError> {
    look(name)?.open()
}

/// As [`open`], in another directory.
///
/// # Errors
/// [`OpenError`].
pub fn open_in(dir: &Path, name: &str) -> Result<SegmentFile, OpenError> {
    look_in(dir, name)?.open()
}

/// Why a segment's name was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It cannot be called that.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such segment.
    #[error("there is no segment {path}; `hangwatch status` lists those there are")]
    NotFound {
        /// The segment's file.
        path: PathBuf,
    },
    /// It is another user's.
    #[error("cannot remove {path}: permission denied; run as its owner")]
    PermissionDenied {
        /// The segment's file.
        path: PathBuf,
    },
    /// Any other refusal of the kernel.
    #[error("cannot remove {path}: {source}; remove it by hand")]
    Io {
        /// The segment's file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Removes the name of the segment in `/dev/shm`; who has it open keeps it.
/// Whether anybody does is for the caller to find out.
///
/// # Errors
/// [`RemoveError`].
pub fn remove(name: &str) -> Result<(), RemoveError> {
    remove_in(Path::new(SEGMENT_DIR), name)
}

/// As [`remove`], in another directory.
///
/// # Errors
/// [`RemoveError`].
pub fn remove_in(dir: &Path, name: &str) -> Result<(), RemoveError> {
    let path = dir.join(file_name(name)?);
    rustix::fs::unlink(&path).map_err(|errno| match errno {
        Errno::NOENT => RemoveError::NotFound { path },
        Errno::ACCESS | Errno::PERM => RemoveError::PermissionDenied { path },
        other => RemoveError::Io { path, source: other.into() },
    })
}

/// The names of the segments in `/dev/shm`, in order. They are names only:
/// what stands behind them is not examined.
///
/// # Errors
/// Where the directory cannot be read.
pub fn list() -> io::Result<Vec<String>> {
    list_in(Path::new(SEGMENT_DIR))
}

/// As [`list`], of another directory.
///
/// # Errors
/// Where the directory cannot be read.
pub fn list_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(name) = segment_name(&entry?.file_name()) {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_good_length(len: u64) -> bool {
    len > 0 && len <= MAX_SEGMENT_BYTES && len.is_multiple_of(page_size())
}

/// Whether whoever made the file may be trusted with our timers: ourselves,
/// root, or a user who allowed a group that is ours.
fn is_trusted(stat: &Stat) -> bool {
    if stat.st_uid == geteuid().as_raw() || stat.st_uid == 0 {
        return true;
    }
    let group_may = Mode::from_raw_mode(stat.st_mode).contains(Mode::RGRP | Mode::WGRP);
    group_may
        && (stat.st_gid == getegid().as_raw()
            || getgroups().is_ok_and(|ours| ours.iter().any(|gid| gid.as_raw() == stat.st_gid)))
}

fn file_id(stat: &Stat) -> FileId {
    FileId { dev: stat.st_dev, ino: stat.st_ino }
}

fn reopen_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn allocate(fd: &OwnedFd, len: u64) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// What the descriptor's file system has left, in bytes; 0 where it won't say.
fn free_bytes(fd: &OwnedFd) -> u64 {
    rustix::fs::fstatvfs(fd).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

fn open_error(step: &'static str, path: PathBuf, errno: Errno) -> OpenError {
    match errno {
        Errno::NOENT => OpenError::NotFound { path },
        Errno::ACCESS | Errno::PERM => OpenError::PermissionDenied { path },
        // O_PATH with O_NOFOLLOW yields the link itself, so this is a loop
        // among the directories above it.
        other => OpenError::Io { path, step, source: other.into() },
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
