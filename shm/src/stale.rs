//! Segments that died with their makers: made for one process alone, which was killed before it could
//! remove them.
//!
//! That a maker is dead is the kernel's word: it took a lock on the file before the file had a name,
//! and has it as long as it lives, also where its pid cannot be seen. Whoever removes such a segment
//! takes every lock of its file at once first, so that nobody has any, and nobody gets one meanwhile. A
//! maker's standby has a lock of its own ([`HEIR_LOCK_BYTE`](crate::HEIR_LOCK_BYTE)), and with it the segment.

use std::io;

use hangwatch_core::wire::segment::{DIES_WITH_MAKER, FIXED_WORDS, Fixed};
use rustix::io::pread;
use rustix::process::getpid;

use crate::lock_bytes::MAKER_LOCK_BYTE;
use crate::mapped::lock as lock_mutex;
use crate::registry::registry;
use crate::segment::Segment;
use crate::sys::file::{self, FileId, SegmentFile};
use crate::sys::lock::{self, LockError};
use crate::sys::maps::maps_segment;

/// Why it could not be found out whether a segment died with its maker, or it could not be removed.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StaleError {
    /// The file could not be opened.
    #[error("cannot open segment {name:?}: {source}")]
    File {
        /// The segment.
        name: String,
        /// Why not.
        source: file::OpenError,
    },
    /// Its header could not be read, or this process's own maps.
    #[error("cannot look into segment {name:?}: {source}; check that /proc is mounted")]
    Read {
        /// The segment.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its locks could not be asked for.
    #[error("cannot ask who uses segment {name:?}: {source}")]
    Lock {
        /// The segment.
        name: String,
        /// Why not.
        source: LockError,
    },
    /// It could not be removed.
    #[error(transparent)]
    Remove(#[from] file::RemoveError),
}

crate::error::debug_is_display!(StaleError);

impl Segment {
    /// Removes a segment that died with its maker: made as [`Lifetime::Makers`](crate::Lifetime::Makers) by a process that is
    /// dead, and used by nobody. Whether it was such a one; any other is left as it is.
    ///
    /// # Errors
    /// [`StaleError`]: where that cannot be found out, or it is not ours to remove.
    pub fn remove_if_stale(name: &str) -> Result<bool, StaleError> {
        // Without a registry nobody can say what this process uses: it is left as it is.
        let Ok(registry) = registry(name) else { return Ok(false) };
        // Kept to the end: what this process opens meanwhile would lose its locks when `stale` closes
        // its own descriptor.
        let segments = lock_mutex(&registry.segments);
        remove(name, |id| segments.iter().any(|known| known.mapped().file.id() == id))
    }
}

/// Removes the segment, if it died with its maker; whether it did.
fn remove(name: &str, of_this_process: impl FnOnce(FileId) -> bool) -> Result<bool, StaleError> {
    let named = || name.to_owned();
    let failed = |source| StaleError::File { name: named(), source };
    let unread = |source| StaleError::Read { name: named(), source };
    let found = match file::look(name) {
        Err(
            file::OpenError::NotFound { .. }
            | file::OpenError::BadSize { .. }
            | file::OpenError::Sparse { .. }
            | file::OpenError::Resized { .. },
        ) => return Ok(false),
        found => found.map_err(failed)?,
    };
    let id = found.id();
    // This process's own locks would not be in the way, and would fall when the file is closed. Whoever
    // uses a segment has it mapped, also a second copy of this library.
    if of_this_process(id) || maps_segment(getpid(), id).map_err(unread)? {
        return Ok(false);
    }
    let file = found.open().map_err(failed)?;
    if !dies_with_maker(&file).map_err(unread)? {
        return Ok(false);
    }
    let refused = |source| StaleError::Lock { name: named(), source };
    if !lock::try_lock_from(&file, MAKER_LOCK_BYTE).map_err(refused)? {
        return Ok(false);
    }
    // A second copy of the library may have opened it since, and its locks would fall with this
    // descriptor: then it stays open, and the segment stays.
    if !matches!(maps_segment(getpid(), id), Ok(false)) {
        std::mem::forget(file);
        return Ok(false);
    }
    // Somebody else may have removed it just now, and a third made another of its name.
    if !file::look(name).is_ok_and(|now| now.id() == id) {
        return Ok(false);
    }
    file::remove(name)?;
    Ok(true)
}

/// Whether its header says that it is its maker's alone. Read, not mapped: whoever cuts it short must
/// not end this process.
fn dies_with_maker(file: &SegmentFile) -> io::Result<bool> {
    let mut bytes = [0; FIXED_WORDS * 8];
    if pread(file, &mut bytes, 0)? != bytes.len() {
        return Ok(false);
    }
    let (words, _) = bytes.as_chunks();
    let words = core::array::from_fn(|index| u64::from_ne_bytes(words[index]));
    Ok(Fixed::from_words(words).is_ok_and(|f| f.compatible_features & DIES_WITH_MAKER != 0))
}
