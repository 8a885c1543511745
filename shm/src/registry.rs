//! The segments that a process has open: one [`Attachment`] each, found again after a fork.
//!
//! A process holds one descriptor of a segment: its locks fall when *any* descriptor of the file is
//! closed. So every open goes through the registry here, and what it gives lives as long as the process,
//! except where [`close_unused`] closes a segment that no thread of the process attached to.
#![expect(unsafe_code, reason = "a registry is leaked, and found again through an atomic pointer")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::attachment::Attachment;
use crate::error::OpenError;
use crate::lane::LanePool;
use crate::mapped::{Mapped, checked, close_if_unused, lock};
use crate::sys::file::{self, FileId, SegmentFile};
use crate::sys::fork::Canary;

/// The segments of one process; a forked child begins with an empty one of its own.
pub(crate) struct Registry {
    pub(crate) canary: Canary,
    pub(crate) segments: Mutex<Vec<&'static Attachment>>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

/// The segment of `lanes` in the calling process: in a forked child its mapping there.
pub(crate) fn attachment_of(lanes: &LanePool) -> Result<&'static Attachment, OpenError> {
    let mapped = &lanes.mapped;
    let registry = registry(&mapped.name)?;
    let mut segments = lock(&registry.segments);
    if let Some(known) = segments.iter().find(|known| known.mapped().key() == mapped.key()) {
        return Ok(known);
    }
    // The inherited descriptor, unless the child closed it and something else has its number.
    let file = match mapped.file.inherited() {
        Some(file) => file,
        None => file::open(&mapped.name)
            .map_err(|source| OpenError::File { name: mapped.name.clone(), source })?,
    };
    register(&mut segments, &mapped.name, file, registry.canary)
}

impl LanePool {
    /// These lanes in the calling process: these, or in a forked child those of its own mapping.
    pub(crate) fn here(&'static self) -> Result<&'static LanePool, OpenError> {
        if self.mapped.canary.forked() { Ok(&attachment_of(self)?.lanes) } else { Ok(self) }
    }
}

impl Attachment {
    /// This segment in the calling process: itself, or in a forked child its mapping there.
    pub(crate) fn here(&'static self) -> Result<&'static Attachment, OpenError> {
        if self.mapped().canary.forked() { attachment_of(&self.lanes) } else { Ok(self) }
    }
}

/// Closes and unmaps what this process has open under `name`, if `is_unused` says so while nobody can
/// open a segment; not segments that a thread of this process attached to. Returns what it said.
///
/// # Safety
/// As [`Segment::close_unused`](crate::Segment::close_unused).
pub(crate) unsafe fn close_unused(
    name: &str,
    is_unused: impl FnOnce() -> bool,
) -> Result<bool, OpenError> {
    let mut segments = lock(&registry(name)?.segments);
    if !is_unused() {
        return Ok(false);
    }
    let never_attached =
        |known: &&'static Attachment| known.mapped().name == name && known.lanes.is_unused();
    let unused: Vec<&'static Attachment> =
        segments.extract_if(.., |known| never_attached(known)).collect();
    for attachment in unused {
        // SAFETY: leaked by `register` in this very process (a child has a registry of its own), out
        // of the registry now, and the caller vouches that no other reference is left.
        drop(unsafe { Box::from_raw(std::ptr::from_ref(attachment).cast_mut()) });
    }
    Ok(true)
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
    what: impl FnOnce(Option<&'static Attachment>) -> T,
) -> Result<T, OpenError> {
    let segments = lock(&registry(name)?.segments);
    Ok(what(segments.iter().find(|known| known.mapped().file.id() == id).copied()))
}

/// Maps, checks and keeps an open file.
pub(crate) fn register(
    segments: &mut Vec<&'static Attachment>,
    name: &str,
    file: SegmentFile,
    canary: Canary,
) -> Result<&'static Attachment, OpenError> {
    let file = Unregistered(Some(file));
    let mapping = file.map().map_err(|source| OpenError::Map { name: name.to_owned(), source })?;
    checked(name, mapping.words())?;
    let words: &'static [AtomicU64] = mapping.leak();
    let mapped = Mapped::new(name, file.keep(), words, canary)?;
    let attachment: &'static Attachment = Box::leak(Box::new(Attachment::new(mapped)));
    segments.push(attachment);
    Ok(attachment)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock_bytes::lane_lock_byte;
    use crate::segment::{CreateOptions, Segment};
    use crate::sys::lock::{Holder, holder, try_lock};
    use hangwatch_test_children::fork;

    /// The fault: the descriptor was closed, and with it fell what the other copy had locked.
    #[test]
    fn a_segment_that_is_closed_leaves_a_second_copy_of_the_library_its_locks() {
        let name = format!("test-second-copy-{}", std::process::id());
        Segment::create(&name, CreateOptions::default()).unwrap();
        // As another copy in this process has it: with a descriptor and a mapping of its own.
        let other = file::open(&name).unwrap();
        let mapping = other.map().unwrap();
        assert!(try_lock(&other, lane_lock_byte(7)).unwrap());
        // SAFETY: no thread of this process refers to a segment of that name.
        assert!(unsafe { Segment::close_unused(&name, || true) }.unwrap());
        let other = std::mem::ManuallyDrop::new(other); // not closed by the child
        let own = rustix::process::getpid();
        let child = fork(move || {
            let held = holder(&*other, lane_lock_byte(7)).unwrap();
            i32::from(held != Holder::Process(own))
        });
        assert_eq!(child.exit_status(), 0, "the lock has fallen");
        drop(mapping);
        Segment::remove(&name).unwrap();
    }
}
