//! The mapping of one segment in this process: its words, doorbell, file and fork canary.
//!
//! It lives as long as the process, but for segments that are given up unused
//! ([`Segment::close_unused`](crate::Segment::close_unused)).
#![expect(unsafe_code, reason = "a leaked mapping is unmapped with its only owner")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hangwatch_core::wire::segment::{DOORBELL_AT_WORD, FormatError, Segment as Words};
use hangwatch_core::wire::time::Nanos;
use rustix::process::getpid;

use crate::error::OpenError;
use crate::lock_bytes::WATCHDOG_LOCK_BYTE;
use crate::sys::file::SegmentFile;
use crate::sys::fork::Canary;
use crate::sys::lock::{self as locks, Holder, LockError};
use crate::sys::mapping::{doorbell, unmap};
use crate::sys::maps::writes_segment;
use crate::sys::{clock, futex, host};

/// A segment as this process has it mapped.
pub(crate) struct Mapped {
    pub(crate) name: String,
    /// Closed by [`close_if_unused`] alone.
    pub(crate) file: ManuallyDrop<SegmentFile>,
    pub(crate) words: Words<'static>,
    pub(crate) doorbell: &'static AtomicU32,
    pub(crate) canary: Canary,
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Mapped {
    /// The segment in `words`, a leaked mapping of `file`.
    ///
    /// # Errors
    /// Where the words are no segment of this boot and clock.
    pub(crate) fn new(
        name: &str,
        file: SegmentFile,
        words: &'static [AtomicU64],
        canary: Canary,
    ) -> Result<Mapped, OpenError> {
        let words_of_it = match checked(name, words) {
            Ok(words) => words,
            Err(error) => {
                close_if_unused(file);
                return Err(error);
            }
        };
        Ok(Mapped {
            name: name.to_owned(),
            file: ManuallyDrop::new(file),
            words: words_of_it,
            doorbell: doorbell(words, DOORBELL_AT_WORD * 8),
            canary,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Rings the watchdog's doorbell.
    #[cold]
    pub(crate) fn ring(&self) {
        // Release: pairs with the Acquire of the watchdog's `prepare`: what was rung for is seen.
        self.doorbell.fetch_add(1, Ordering::Release);
        futex::wake(self.doorbell);
    }

    /// Tells this segment from any other, in this process and its children.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        self.words.fixed().incarnation
    }

    /// The watchdog that serves it, by the lock the kernel holds for it.
    pub(crate) fn watchdog(&self) -> Result<Holder, LockError> {
        locks::holder(self.fd(), WATCHDOG_LOCK_BYTE)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: this value alone has this leaked mapping, and nobody refers to it any more.
        unsafe { unmap(self.words.all()) };
        // SAFETY: taken here only, and this value is not used again.
        close_if_unused(unsafe { ManuallyDrop::take(&mut self.file) });
    }
}

/// Closes a file that this copy of the library does not use, unless another copy in this process does:
/// then it stays open for the process's life.
pub(crate) fn close_if_unused(file: SegmentFile) {
    if !matches!(writes_segment(getpid(), file.id()), Ok(false)) {
        std::mem::forget(file);
    }
}

/// The words of a segment of this boot and clock.
pub(crate) fn checked<'w>(name: &str, words: &'w [AtomicU64]) -> Result<Words<'w>, OpenError> {
    let named = || name.to_owned();
    let segment =
        Words::open(words).map_err(|source| OpenError::Format { name: named(), source })?;
    let host = |source| OpenError::Host { name: named(), source };
    if segment.fixed().boot_id != host::boot_id().map_err(host)? {
        return Err(OpenError::OtherBoot { name: named() });
    }
    if segment.fixed().time_namespace != host::time_namespace().map_err(host)? {
        return Err(OpenError::OtherTimeNamespace { name: named() });
    }
    // Of the same boot and the same clock, it was made before now.
    if segment.fixed().created_at > Nanos(clock::monotonic_ns()) {
        return Err(OpenError::Format { name: named(), source: FormatError::Future });
    }
    Ok(segment)
}

/// A lock whose holder panicked still guards sound data here: every change is a single step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
