//! Opening a segment's file: suspiciously, and without touching what it is not.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid, getgroups};

use super::super::host::{advice, page_size};
use super::super::name::{NameError, SEGMENT_DIR, file_name};
use super::{FileId, MAX_SEGMENT_BYTES, SegmentFile, file_id, is_good_length, made, reopen_path};

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
    /// Its pages are not all there: no segment is made like that, and touching one that is not there
    /// may take memory that nobody has, or raise SIGBUS.
    #[error(
        "refused {path}: of its {len} bytes {allocated} are allocated, and a segment is made whole; it was \
         changed since: remove it with `hangwatch rm` and make it anew"
    )]
    Sparse {
        /// The segment's file.
        path: PathBuf,
        /// The file's length in bytes.
        len: u64,
        /// How many of them are there.
        allocated: u64,
    },
    /// It has another length than it was made with.
    #[error(
        "refused {path}: it has {len} bytes and was made with {made}; whoever may write it has changed it: \
         end its users, remove it with `hangwatch rm` and make it anew"
    )]
    Resized {
        /// The segment's file.
        path: PathBuf,
        /// The file's length in bytes.
        len: u64,
        /// The length it was made with.
        made: u64,
    },
    /// Any other refusal of the kernel.
    #[error(
        "cannot open {path}: {step} failed: {source}; {}",
        advice(source, "check that /proc is mounted")
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

/// What a name stands for: examined and found fit to be a segment (but see [`examine`]), not opened.
#[derive(Debug)]
pub struct Found {
    /// An `O_PATH` descriptor. Closing one releases no locks.
    handle: OwnedFd,
    path: PathBuf,
    id: FileId,
    len: u64,
    allocated: u64,
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
        self.open_for(OFlags::RDWR)
    }

    /// As [`Found::open`], for reading only. Its locks can be asked about, and none taken.
    ///
    /// # Errors
    /// As [`Found::open`].
    pub fn open_read_only(self) -> Result<SegmentFile, OpenError> {
        self.open_for(OFlags::RDONLY)
    }

    fn open_for(self, access: OFlags) -> Result<SegmentFile, OpenError> {
        let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
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
    let found = examine_in(dir, name)?;
    if !is_good_length(found.len) {
        return Err(OpenError::BadSize { path: found.path, len: found.len, page: page_size() });
    }
    if found.allocated < found.len {
        let Found { path, len, allocated, .. } = found;
        return Err(OpenError::Sparse { path, len, allocated });
    }
    match made::read(&found.handle) {
        Ok(Some(made)) if made != found.len => {
            Err(OpenError::Resized { path: found.path, len: found.len, made })
        }
        Ok(_) => Ok(found),
        Err(errno) => Err(open_error("getxattr", found.path, errno)),
    }
}

/// As [`look`], whatever its length: a segment that was cut short is none any more, but whoever had
/// it open still has its locks.
///
/// # Errors
/// [`OpenError`].
pub fn examine(name: &str) -> Result<Found, OpenError> {
    examine_in(Path::new(SEGMENT_DIR), name)
}

fn examine_in(dir: &Path, name: &str) -> Result<Found, OpenError> {
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
    let (len, blocks) = (stat.st_size.cast_unsigned(), stat.st_blocks.cast_unsigned());
    Ok(Found { handle, path, id: file_id(&stat), len, allocated: blocks * 512 })
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

fn open_error(step: &'static str, path: PathBuf, errno: Errno) -> OpenError {
    match errno {
        Errno::NOENT => OpenError::NotFound { path },
        Errno::ACCESS | Errno::PERM => OpenError::PermissionDenied { path },
        // O_PATH with O_NOFOLLOW yields the link itself, so this is a loop
        // among the directories above it.
        other => OpenError::Io { path, step, source: other.into() },
    }
}
