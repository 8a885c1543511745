//! The mapped segment: made, opened, removed, listed. What a process keeps of it is in
//! [`registry`](crate::registry).
#![expect(unsafe_code, reason = "who closes a segment vouches that nobody uses it")]

use std::env;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hangwatch_core::wire::layout::{Geometry, limit};
use hangwatch_core::wire::segment::{DIES_WITH_MAKER, Fixed, Segment as Words};
use hangwatch_core::wire::time::{Nanos, duration_ns};

use crate::attachment::Attachment;
use crate::error::{CreateError, OpenError};
use crate::lock_bytes::MAKER_LOCK_BYTE;
use crate::mapped::{Mapped, lock};
use crate::registry::{self, register, registry};
use crate::sys::file::{self, SegmentFile};
use crate::sys::lock::{self, Holder};
use crate::sys::{clock, host};

/// The environment variable that names the segment where nobody else does.
pub const SEGMENT_VARIABLE: &str = "HANGWATCH_SEGMENT";

/// How long a segment's max interval may be: 1 ms to a minute.
pub const MAX_INTERVALS: RangeInclusive<Duration> =
    Duration::from_nanos(*limit::MAX_INTERVAL_NS.start())
        ..=Duration::from_nanos(*limit::MAX_INTERVAL_NS.end());

/// A segment in this process: cheap to copy, valid for the process's life.
///
/// A forked child may use its parent's handle: the segment is mapped anew there on first use. Where that
/// is impossible (the kernel has no memory, or the file is gone and its descriptor closed), what reads or
/// writes the segment panics.
///
/// ```no_run
/// use hangwatch::{CreateOptions, Segment};
///
/// let segment = Segment::create("train", CreateOptions::default())?;
/// println!("{} lanes", segment.geometry().lanes);
/// hangwatch::Segment::remove("train")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Segment {
    attachment: &'static Attachment,
}

/// How a segment is made.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    /// Its sizes.
    pub geometry: Geometry,
    /// The max interval: the longest time between two ticks, one of [`MAX_INTERVALS`].
    pub max_interval: Duration,
    /// The permission bits of its file.
    pub mode: u32,
    /// The group of its file, where not this process's own.
    pub gid: Option<u32>,
    /// How long it is to be there.
    pub lifetime: Lifetime,
}

/// How long a segment is to be there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// Until somebody removes it: watchdogs and workers come and go.
    #[default]
    Kept,
    /// It is its maker's alone. Whoever finds it when its maker is dead and nobody uses it may remove
    /// it: see [`Segment::remove_if_stale`].
    Makers,
}

impl Default for CreateOptions {
    /// 256 lanes of 64 timers, 100 ms, mode 0600.
    fn default() -> Self {
        CreateOptions {
            geometry: Geometry::default(),
            max_interval: Duration::from_millis(100),
            mode: 0o600,
            gid: None,
            lifetime: Lifetime::Kept,
        }
    }
}

impl Segment {
    /// Makes a segment: whole or not at all.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind.
    pub fn create(name: &str, options: CreateOptions) -> Result<Segment, CreateError> {
        let named = || name.to_owned();
        let (fixed, bytes) = options.fixed(name)?;
        let registry = registry(name)?;
        let mut segments = lock(&registry.segments);
        let file = file::create(name, bytes as u64, options.mode, options.gid, |file, words| {
            Words::format(words, fixed).expect("the geometry was checked");
            match options.lifetime {
                Lifetime::Kept => Ok(()),
                // Nobody else has the file yet, so it is free.
                Lifetime::Makers => lock::try_lock(file, MAKER_LOCK_BYTE).map(drop),
            }
        })
        .map_err(|source| CreateError::File { name: named(), source })?;
        // It has its name by now, and nobody would know of it.
        let registered = register(&mut segments, name, file, registry.canary);
        Ok(Segment::of(registered.inspect_err(|_| drop(Segment::remove(name)))?))
    }

    /// Opens a segment someone made; the same one again for the same name.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(name: &str) -> Result<Segment, OpenError> {
        let registry = registry(name)?;
        let mut segments = lock(&registry.segments);
        let failed = |source| OpenError::File { name: name.to_owned(), source };
        let found = file::look(name).map_err(failed)?;
        let is_it = |known: &&&'static Attachment| known.mapped().file.id() == found.id();
        if let Some(known) = segments.iter().find(is_it) {
            return Ok(Segment::of(known));
        }
        let file = found.open().map_err(failed)?;
        register(&mut segments, name, file, registry.canary).map(Segment::of)
    }

    /// The segments that this process has open.
    pub(crate) fn opened() -> Result<Vec<Segment>, OpenError> {
        let registry = registry("")?;
        let segments = lock(&registry.segments);
        Ok(segments.iter().map(|known| Segment::of(known)).collect())
    }

    /// The name to use: the given one, or [`SEGMENT_VARIABLE`]'s.
    ///
    /// # Errors
    /// [`OpenError::Unnamed`] where there is neither.
    pub fn name_or_environment(name: Option<&str>) -> Result<String, OpenError> {
        match name {
            Some(name) => Ok(name.to_owned()),
            None => env::var(SEGMENT_VARIABLE)
                .ok()
                .filter(|name| !name.is_empty())
                .ok_or(OpenError::Unnamed),
        }
    }

    /// Removes a segment's name. Whoever has it open keeps it.
    ///
    /// # Errors
    /// Where there is none, or it is not ours to remove.
    pub fn remove(name: &str) -> Result<(), file::RemoveError> {
        file::remove(name)
    }

    /// The names of all segments of this host.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list() -> std::io::Result<Vec<String>> {
        file::list()
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        &self.attachment.mapped().name
    }

    /// Its sizes.
    pub fn geometry(&self) -> Geometry {
        self.attachment.mapped().words.geometry()
    }

    /// Its max interval.
    pub fn max_interval(&self) -> Duration {
        Duration::from_nanos(self.attachment.mapped().words.fixed().max_interval_ns)
    }

    /// The watchdog that serves it, by the lock the kernel holds for it.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn watchdog(&self) -> Result<Holder, lock::LockError> {
        self.here().watchdog()
    }

    /// Whether it is its maker's alone: made as [`Lifetime::Makers`].
    pub fn dies_with_maker(&self) -> bool {
        self.attachment.mapped().words.fixed().compatible_features & DIES_WITH_MAKER != 0
    }

    /// Who made it, where it is its maker's alone and that lives.
    ///
    /// # Errors
    /// Where the kernel cannot be asked.
    pub fn maker(&self) -> Result<Holder, lock::LockError> {
        lock::holder(self.here().file.as_fd(), MAKER_LOCK_BYTE)
    }

    /// Whether the watchdog is this very process, by its own word.
    pub(crate) fn serves_itself(self) -> bool {
        let pid = self.words().watchdog().pid().load(Ordering::Relaxed);
        pid == u64::from(std::process::id())
    }

    /// Rings the watchdog's doorbell: it looks at once.
    #[doc(hidden)]
    pub fn ring(&self) {
        self.here().ring();
    }

    /// The checked words.
    #[doc(hidden)]
    pub fn words(&self) -> Words<'static> {
        self.here().words
    }

    /// The doorbell.
    #[doc(hidden)]
    pub fn doorbell(&self) -> &'static AtomicU32 {
        self.here().doorbell
    }

    /// The file, for locks and identity.
    #[doc(hidden)]
    pub fn file(&self) -> &'static SegmentFile {
        &self.here().file
    }

    /// Closes and unmaps what this process has open under `name`, if `is_unused` says so while nobody can
    /// open a segment. Segments that a thread of this process attached to stay open: their lanes are locked
    /// by this descriptor, and guards refer to them for ever. Returns what `is_unused` said.
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
        // SAFETY: the caller's.
        unsafe { registry::close_unused(name, is_unused) }
    }

    pub(crate) fn attachment(self) -> &'static Attachment {
        self.attachment
    }

    /// The segment as this process has it mapped: a forked child's own, as its parent's mapping is not
    /// there.
    fn here(self) -> &'static Mapped {
        let here = self.attachment.here();
        here.unwrap_or_else(|error| panic!("in a forked child: {error}")).mapped()
    }

    pub(crate) fn of(attachment: &'static Attachment) -> Segment {
        Segment { attachment }
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Segment").field(&self.attachment.mapped().name).finish()
    }
}

impl CreateOptions {
    /// The header of a new segment, and the bytes of its file.
    pub(crate) fn fixed(&self, name: &str) -> Result<(Fixed, usize), CreateError> {
        let options = self;
        let named = || name.to_owned();
        let layout = options
            .geometry
            .check()
            .map_err(|source| CreateError::Geometry { name: named(), source })?;
        let asked = options.max_interval;
        if !MAX_INTERVALS.contains(&asked) {
            return Err(CreateError::MaxInterval { name: named(), asked });
        }
        let host = |source| CreateError::Host { name: named(), source };
        let fixed = Fixed {
            geometry: options.geometry,
            compatible_features: match options.lifetime {
                Lifetime::Kept => 0,
                Lifetime::Makers => DIES_WITH_MAKER,
            },
            incompatible_features: 0,
            boot_id: host::boot_id().map_err(host)?,
            time_namespace: host::time_namespace().map_err(host)?,
            incarnation: incarnation(),
            max_interval_ns: duration_ns(options.max_interval),
            created_at: Nanos(clock::monotonic_ns()),
        };
        Ok((fixed, layout.bytes()))
    }
}

fn incarnation() -> u64 {
    let mut bytes = [0; 8];
    // Only to tell segments apart: the clock does where the kernel has no randomness to give.
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK) {
        Ok(8) => u64::from_ne_bytes(bytes),
        _ => clock::monotonic_ns(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_test_children::fork;

    #[test]
    fn a_forked_child_uses_its_parents_handle() {
        let name = format!("test-forked-handle-{}", std::process::id());
        let segment = Segment::create(&name, CreateOptions::default()).unwrap();
        let before = segment.doorbell().load(Ordering::Relaxed);
        let child = fork(move || {
            segment.ring();
            assert_eq!(segment.picture().lanes.len(), 0);
            assert_eq!(segment.survey().lane_count, 256);
            assert!(segment.recent_records(0, 1).is_empty());
            assert!(segment.watchdog().is_ok() && segment.maker().is_ok());
            assert_eq!(segment.words().lanes_used(), 0);
            let worker = crate::WorkerOptions::new().attach_to(segment).unwrap();
            drop(worker.expires("child", Duration::from_mins(1)).unwrap());
            0
        });
        assert_eq!(child.exit_status(), 0);
        assert_eq!(segment.doorbell().load(Ordering::Relaxed), before + 2, "its ring, its attach");
        Segment::remove(&name).unwrap();
    }
}
