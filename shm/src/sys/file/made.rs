//! The length that a segment's file was made with, kept beside its contents.
//!
//! Whoever may write a segment can give its file another length and its header another geometry, and the
//! next watchdog would take both for true. So the maker keeps the length in an extended attribute: under
//! `trusted.`, which root alone may write, where it is root; else under `user.`, which protects only
//! against those who do not know of it. Where the file system has no attributes (tmpfs before Linux 6.6 has
//! no `user.`), nothing is kept.

use std::os::fd::OwnedFd;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::reopen_path;

/// The attributes, the one that is believed first.
const NAMES: [&str; 2] = ["trusted.hangwatch.bytes", "user.hangwatch.bytes"];

/// Keeps the length of a new file, where that can be done.
pub(super) fn keep(fd: &OwnedFd, len: u64) {
    for name in NAMES {
        if rustix::fs::fsetxattr(fd, name, &len.to_le_bytes(), XattrFlags::CREATE).is_ok() {
            return;
        }
    }
}

/// The length that a file was made with, by an `O_PATH` descriptor; `None` where that was not kept, or not
/// by its owner.
///
/// # Errors
/// Where it was kept and cannot be read.
pub(super) fn read(handle: &OwnedFd) -> Result<Option<u64>, Errno> {
    for name in NAMES {
        let mut bytes = [0; size_of::<u64>()];
        match rustix::fs::getxattr(reopen_path(handle), name, &mut bytes) {
            Ok(length) if length == bytes.len() => return Ok(Some(u64::from_le_bytes(bytes))),
            // None of ours.
            Ok(_) | Err(Errno::RANGE) => return Err(Errno::INVAL),
            // Not there; or this user may not see it, or nobody has any here.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}
