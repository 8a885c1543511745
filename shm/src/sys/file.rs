//! The named file behind a segment: made whole or not at all, opened
//! suspiciously.
//!
//! [`create()`] prepares a file that has no name and gives it one only when it is
//! complete. [`look()`] examines what a name stands for without opening it, and
//! [`Found::open`] opens exactly that. Names are checked in
//! [`name`](super::name); the memory is mapped by
//! [`mapping`](super::mapping).
//!
//! **Closing a [`SegmentFile`] gives up every lock this process holds on that
//! segment**, whichever descriptor took it. So one descriptor a segment a
//! process, never closed: look first, compare [`FileId`], and open only what is
//! not open yet. Looking takes no lock away.

mod create;
mod made;
mod open;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use rustix::io::Errno;

#[cfg(feature = "shared_memory")]
pub use self::create::allocate_named;
pub use self::create::{CreateError, create, create_in};
pub use self::open::{Found, OpenError, examine, look, look_in, open, open_in};
use super::host::page_size;
use super::mapping::{MapError, Mapping, ReadOnlyMapping};
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

impl FileId {
    /// Of an open file.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(file: impl AsFd) -> io::Result<FileId> {
        Ok(file_id(&rustix::fs::fstat(file)?))
    }
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

    /// In a forked child: the file by the descriptor it inherited; `None` if the child has closed
    /// that and its number stands for something else by now.
    pub fn inherited(&self) -> Option<Self> {
        let stat = rustix::fs::fstat(&self.fd).ok()?;
        if file_id(&stat) != self.id {
            return None;
        }
        // A number of its own: the parent's value is never dropped here, but might be elsewhere.
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0).ok()?;
        Some(Self { fd, id: self.id, len: self.len })
    }

    /// Maps the whole file.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map(&self) -> Result<Mapping, MapError> {
        let len = usize::try_from(self.len).map_err(|_| MapError::Length { len: usize::MAX })?;
        Mapping::new(&self.fd, len)
    }

    /// Maps the whole file for reading.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn map_read_only(&self) -> Result<ReadOnlyMapping, MapError> {
        let len = usize::try_from(self.len).map_err(|_| MapError::Length { len: usize::MAX })?;
        ReadOnlyMapping::new(&self.fd, len)
    }
}

impl AsFd for SegmentFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
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

fn file_id(stat: &Stat) -> FileId {
    FileId { dev: stat.st_dev, ino: stat.st_ino }
}

fn reopen_path(fd: &OwnedFd) -> String {
    // Not `/proc/self`, which is empty once the first thread has ended.
    format!("/proc/thread-self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
mod tests;
