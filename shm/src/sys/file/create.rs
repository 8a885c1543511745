//! Making a segment's file: whole or not at all.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, getrlimit};

use super::super::host::page_size;
use super::super::lock::LockError;
use super::super::mapping::MapError;
use super::super::name::{NameError, SEGMENT_DIR, file_name};
use super::{MAX_SEGMENT_BYTES, SegmentFile, file_id, is_good_length, made, reopen_path};

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
    /// The limit on the size of files forbids it; the kernel would send SIGXFSZ.
    #[error(
        "cannot make {path}: it needs {needed} bytes and this process may make files of {allowed}; \
         raise the limit (ulimit -f), or ask for fewer lanes"
    )]
    FileLimit {
        /// The segment's file.
        path: PathBuf,
        /// The segment's length in bytes.
        needed: u64,
        /// The limit in bytes.
        allowed: u64,
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
    /// The kernel refused its maker's lock.
    #[error("cannot make {path}: {source}")]
    Lock {
        /// The segment's file.
        path: PathBuf,
        /// Why.
        source: LockError,
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
/// then whatever `init` writes and locks, and only then visible under its name.
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
    init: impl FnOnce(&SegmentFile, &[AtomicU64]) -> Result<(), LockError>,
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
    init: impl FnOnce(&SegmentFile, &[AtomicU64]) -> Result<(), LockError>,
) -> Result<SegmentFile, CreateError> {
    let path = dir.join(file_name(name)?);
    let page = page_size();
    if !is_good_length(len) {
        return Err(CreateError::Length { path, len, page });
    }
    if let Some(allowed) = getrlimit(Resource::Fsize).current.filter(|&allowed| allowed < len) {
        return Err(CreateError::FileLimit { path, needed: len, allowed });
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
    made::keep(&fd, len);
    let file = SegmentFile { fd, id: file_id(&stat), len };
    let mapping = file.map().map_err(|source| CreateError::Map { path: path.clone(), source })?;
    init(&file, mapping.words())
        .map_err(|source| CreateError::Lock { path: path.clone(), source })?;
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

/// Allocates the memory of a file that somebody else made under the name of a segment, and keeps its length.
/// It is no segment yet, so this process has no lock on it that would fall when it is closed here.
///
/// # Errors
/// [`CreateError`].
#[cfg(feature = "shared_memory")]
pub fn allocate_named(name: &str, len: u64) -> Result<(), CreateError> {
    let path = Path::new(SEGMENT_DIR).join(file_name(name)?);
    let failed = |step| {
        let path = path.clone();
        move |source: Errno| CreateError::Io { path, step, source: source.into() }
    };
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed("open"))?;
    allocate(&fd, len).map_err(failed("fallocate"))?;
    made::keep(&fd, len);
    Ok(())
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
