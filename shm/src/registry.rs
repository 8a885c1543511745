//! What a process keeps of the segments it has open: one [`Shared`] each, found again after a fork.
//!
//! A process holds one descriptor of a segment: its locks fall when *any* descriptor of the file is
//! closed. So every open goes through the registry here, and what it gives lives as long as the process,
//! except where [`Segment::close_unused`] closes a segment that no thread of the process attached to.
#![expect(unsafe_code, reason = "a registry is leaked, and found again through an atomic pointer")]

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hangwatch_core::wire::segment::{DOORBELL_AT_WORD, FormatError, Segment as Words};
use hangwatch_core::wire::time::Nanos;
use rustix::process::getpid;

use crate::error::OpenError;
use crate::keyed::Keyed;
use crate::lane::{LaneOptions, LaneOwner};
use crate::pause::Paused;
use crate::returned::Returned;
use crate::segment::Segment;
use crate::spilled::Spilled;
use crate::sys::file::{self, FileId, SegmentFile};
use crate::sys::fork::Canary;
use crate::sys::mapping::{Prefault, doorbell, unmap};
use crate::sys::maps::writes_segment;
use crate::sys::{clock, futex, host};

/// What this process knows about one segment.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) file: SegmentFile,
    pub(crate) words: Words<'static>,
    pub(crate) doorbell: &'static AtomicU32,
    pub(crate) canary: Canary,
    /// Serialises claims and detaches of this process: its locks are one per process, not a thread.
    pub(crate) claims: Mutex<()>,
    /// Lanes whose thread ended with timers armed: they stay enforced, the next thread goes on.
    pub(crate) orphans: Mutex<Vec<LaneOwner>>,
    /// Timers whose handle ended while they were condemned.
    pub(crate) returned: Returned,
    pub(crate) keyed: Mutex<Keyed>,
    /// The timers that pauses hold up.
    pub(crate) paused: Mutex<Paused>,
    /// Names of scopes, held by this process, that the segment's table has no room for.
    pub(crate) spilled: Mutex<Spilled>,
    /// What workers of this process attached with, each kind once.
    attachments: Mutex<Vec<&'static LaneOptions>>,
}

/// The segments of one process; a forked child begins with an empty one of its own.
pub(crate) struct Registry {
    pub(crate) canary: Canary,
    pub(crate) segments: Mutex<Vec<&'static Shared>>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl Shared {
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

    /// `options`, kept for the process's life like the segment itself: guards refer to them.
    pub(crate) fn keep(&self, options: LaneOptions) -> &'static LaneOptions {
        let mut kept = lock(&self.attachments);
        if let Some(same) = kept.iter().find(|kept| ***kept == options) {
            return same;
        }
        let options: &'static LaneOptions = Box::leak(Box::new(options));
        kept.push(options);
        options
    }

    /// Tells this segment from any other, in this process and its children.
    #[inline]
    pub(crate) fn key(&self) -> u64 {
        self.words.fixed().incarnation
    }

    /// This segment in the calling process: itself, or in a forked child its mapping there.
    pub(crate) fn here(&'static self) -> Result<&'static Shared, OpenError> {
        if !self.canary.forked() {
            return Ok(self);
        }
        let registry = registry(&self.name)?;
        let mut segments = lock(&registry.segments);
        if let Some(shared) = segments.iter().find(|shared| shared.key() == self.key()) {
            return Ok(shared);
        }
        // The inherited descriptor, unless the child closed it and something else has its number.
        let inherited = self.file.inherited();
        let file = match inherited {
            Some(file) => file,
            None => file::open(&self.name)
                .map_err(|source| OpenError::File { name: self.name.clone(), source })?,
        };
        register(&mut segments, &self.name, file, registry.canary).map(Segment::shared)
    }
}

impl Segment {
    /// Closes and unmaps what this process has open under `name`, if `is_unused` says so while nobody can
    /// open a segment. Segments that a thread of this process attached to stay open: their lanes are locked
    /// by this descriptor, and guards refer to them for ever. Whether it was asked, and said yes.
    ///
    /// # Errors
    /// [`OpenError::Canary`].
    ///
    /// # Safety
    /// Where `is_unused` says yes, no thread of this process refers to a [`Segment`] of that name that it
    /// did not attach to, or to anything taken from one.
    #[doc(hidden)]
    pub unsafe fn close_unused(
        name: &str,
        is_unused: impl FnOnce() -> bool,
    ) -> Result<bool, OpenError> {
        let mut segments = lock(&registry(name)?.segments);
        if !is_unused() {
            return Ok(false);
        }
        let never_attached =
            |shared: &&'static Shared| shared.name == name && lock(&shared.attachments).is_empty();
        let unused: Vec<&'static Shared> =
            segments.extract_if(.., |shared| never_attached(shared)).collect();
        for shared in unused {
            // SAFETY: leaked by `register` in this very process (a child has a registry of its own), out
            // of the registry now, and the caller vouches that no other reference is left.
            drop(unsafe { Box::from_raw(std::ptr::from_ref(shared).cast_mut()) });
        }
        Ok(true)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: `register` leaked this mapping for this very value, which nobody refers to any more.
        unsafe { unmap(self.words.all()) };
    }
}

/// The registry of this process.
pub(crate) fn registry(name: &str) -> Result<&'static Registry, OpenError> {
    let canary =
        Canary::arm().map_err(|source| OpenError::Canary { name: name.to_owned(), source })?;
    // Acquire: pairs with the exchange below: the registry is whole.
    let mut seen = REGISTRY.load(Ordering::Acquire);
    loop {
        // SAFETY: null, or leaked by the exchange below (here, or before a fork: the memory is
        // private and was copied), and never freed.
        match unsafe { seen.as_ref() } {
            Some(registry) if registry.canary.generation() == canary.generation() => {
                return Ok(registry);
            }
            _ => {}
        }
        // A child must not touch its parent's registry: a thread that is not there may hold its lock.
        let fresh = Box::into_raw(Box::new(Registry { canary, segments: Mutex::new(Vec::new()) }));
        match REGISTRY.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => seen = fresh,
            Err(other) => {
                // SAFETY: `fresh` came from `into_raw` above and nobody else saw it.
                drop(unsafe { Box::from_raw(fresh) });
                seen = other;
            }
        }
    }
}

/// Does something with the segment that this process has of a file, if any, while it can get none.
pub(crate) fn with_registered<T>(
    name: &str,
    id: FileId,
    what: impl FnOnce(Option<Segment>) -> T,
) -> Result<T, OpenError> {
    let segments = lock(&registry(name)?.segments);
    let used = segments.iter().find(|shared| shared.file.id() == id);
    Ok(what(used.map(|shared| Segment::of(shared))))
}

/// Maps, checks and keeps an open file.
pub(crate) fn register(
    segments: &mut Vec<&'static Shared>,
    name: &str,
    file: SegmentFile,
    canary: Canary,
) -> Result<Segment, OpenError> {
    let named = || name.to_owned();
    let file = Unregistered(Some(file));
    let mapping =
        file.map(Prefault::OnUse).map_err(|source| OpenError::Map { name: named(), source })?;
    checked(name, mapping.words())?;
    let words: &'static [AtomicU64] = mapping.leak();
    let checked = checked(name, words)?;
    let file = file.keep();
    let shared: &'static Shared = Box::leak(Box::new(Shared {
        name: named(),
        file,
        words: checked,
        doorbell: doorbell(words, DOORBELL_AT_WORD * 8),
        canary,
        claims: Mutex::new(()),
        orphans: Mutex::new(Vec::new()),
        returned: Returned::new(checked.geometry()),
        keyed: Mutex::new(Keyed::default()),
        paused: Mutex::new(Paused::default()),
        spilled: Mutex::new(Spilled::default()),
        attachments: Mutex::new(Vec::new()),
    }));
    segments.push(shared);
    Ok(Segment::of(shared))
}

/// An open file that may yet be closed: not where a second copy of this library in this process uses it,
/// whose locks would fall.
struct Unregistered(Option<SegmentFile>);

impl Unregistered {
    fn keep(mut self) -> SegmentFile {
        self.0.take().expect("it is taken once")
    }
}

impl std::ops::Deref for Unregistered {
    type Target = SegmentFile;

    fn deref(&self) -> &SegmentFile {
        self.0.as_ref().expect("it is taken last")
    }
}

impl Drop for Unregistered {
    fn drop(&mut self) {
        if let Some(file) = self.0.take() {
            close_if_unused(file);
        }
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
