//! An observer: a segment mapped to be read only, and given up again.
//!
//! [`Segment`] is for those who use a segment: it stays mapped, and its file open, for the process's
//! life. Who only watches, and for days, would keep the memory of every segment that came and went.
//! An [`Observer`] lets go of it, and cannot write even by mistake: the kernel would not have it.
#![expect(unsafe_code, reason = "the words of a mapping that nothing may be stored to")]

use std::os::fd::AsFd;
use std::time::Duration;

use hangwatch_core::wire::segment::Segment as Words;

use crate::error::OpenError;
use crate::lock_bytes::WATCHDOG_LOCK_BYTE;
use crate::mapped::checked;
use crate::observe::{self, Observation, ScopeView};
use crate::recent::{self, RecordView};
use crate::registry;
use crate::segment::Segment;
use crate::sys::file::{self, SegmentFile};
use crate::sys::lock::{self, Holder};
use crate::sys::mapping::ReadOnlyMapping;

/// A segment that is only looked at.
///
/// ```
/// # let name = format!("doc-observer-{}", std::process::id());
/// # hangwatch::Segment::create(&name, hangwatch::CreateOptions::default())?;
/// let observer = hangwatch::Observer::open(&name)?;
/// for lane in observer.picture()?.lanes {
///     println!("{} waits in {:?}", lane.pid, lane.timers.first());
/// }
/// assert!(observer.is_current());
/// # hangwatch::Segment::remove(&name)?;
/// assert!(!observer.is_current(), "its name was removed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A segment whose file somebody cuts short raises SIGBUS when it is read; see
/// [`Observer::range`].
#[derive(Debug)]
pub struct Observer {
    name: String,
    max_interval: Duration,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// This process uses the segment: its one descriptor must stay open.
    Used(Segment),
    /// Taken (and perhaps leaked) only by `drop`.
    Mapped { file: Option<SegmentFile>, mapping: ReadOnlyMapping },
}

impl Observer {
    /// Opens the segment `name` for reading.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(name: &str) -> Result<Observer, OpenError> {
        let failed = |source| OpenError::File { name: name.to_owned(), source };
        let found = file::look(name).map_err(failed)?;
        let source = registry::with_registered(name, found.id(), |used| {
            if let Some(used) = used {
                return Ok(Source::Used(Segment::of(used)));
            }
            let file = found.open_read_only().map_err(failed)?;
            match file.map_read_only() {
                Ok(mapping) => Ok(Source::Mapped { file: Some(file), mapping }),
                Err(source) => Err(OpenError::Map { name: name.to_owned(), source }),
            }
        })??;
        let mut observer = Observer { name: name.to_owned(), max_interval: Duration::ZERO, source };
        observer.max_interval = Duration::from_nanos(observer.words()?.fixed().max_interval_ns);
        Ok(observer)
    }

    /// The segment's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The segment's max interval, as [`Segment::max_interval`].
    pub fn max_interval(&self) -> Duration {
        self.max_interval
    }

    /// Whether the name still stands for this segment: not once it was removed, or made anew.
    pub fn is_current(&self) -> bool {
        let Ok(found) = file::look(&self.name) else { return false };
        match &self.source {
            Source::Used(segment) => segment.file().id() == found.id(),
            Source::Mapped { file, .. } => {
                file.as_ref().is_some_and(|file| file.id() == found.id())
            }
        }
    }

    /// The addresses the segment is mapped at: to know a fault in it by.
    pub fn range(&self) -> std::ops::Range<usize> {
        match &self.source {
            Source::Used(segment) => {
                let words = segment.words();
                words.address()..words.address() + words.layout().bytes()
            }
            Source::Mapped { mapping, .. } => mapping.range(),
        }
    }

    /// Takes a picture, as [`Segment::picture`].
    ///
    /// # Errors
    /// [`OpenError`] where the segment was damaged since.
    pub fn picture(&self) -> Result<Observation, OpenError> {
        let scopes = observe::scope_views(&self.words()?);
        Ok(Observation { scopes, ..self.glance()? })
    }

    /// As [`Observer::picture`] without the scopes' counts, whose sum over all lanes is most of the
    /// work.
    ///
    /// # Errors
    /// As [`Observer::picture`].
    pub fn glance(&self) -> Result<Observation, OpenError> {
        Ok(observe::glance(&self.name, &self.words()?, self.watchdog()))
    }

    /// The flight record of a lane, as [`Segment::recent_records`].
    ///
    /// # Errors
    /// As [`Observer::picture`].
    pub fn recent_records(&self, lane: u32, most: usize) -> Result<Vec<RecordView>, OpenError> {
        Ok(recent::recent_records(&self.words()?, lane, most))
    }

    /// One lane's own counts, of each scope its threads have used since the lane was last recycled.
    /// Empty where there is no such lane.
    ///
    /// # Errors
    /// As [`Observer::picture`].
    pub fn lane_scopes(&self, lane: u32) -> Result<Vec<ScopeView>, OpenError> {
        Ok(observe::lane_scopes(&self.words()?, lane))
    }

    /// Who serves it.
    fn watchdog(&self) -> Holder {
        match &self.source {
            Source::Used(segment) => observe::watchdog_holder(*segment),
            Source::Mapped { file, .. } => file
                .as_ref()
                .and_then(|file| lock::holder(file.as_fd(), WATCHDOG_LOCK_BYTE).ok())
                .unwrap_or(Holder::Free),
        }
    }

    /// The words, checked anew each time: they are not kept, so that they cannot outlive the mapping.
    fn words(&self) -> Result<Words<'_>, OpenError> {
        match &self.source {
            Source::Used(segment) => Ok(segment.words()),
            Source::Mapped { mapping, .. } => {
                // SAFETY: whatever is done with them here and in `observe` loads only.
                let words = unsafe { mapping.words() };
                checked(&self.name, words)
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let Source::Mapped { file, .. } = &mut self.source else { return };
        let Some(file) = file.take() else { return };
        let id = file.id();
        // Closed, it would take the locks with it that this process's lanes have got since. Where
        // nobody can say whether there are any, it is kept.
        let mut kept = Some(file);
        let _ = registry::with_registered(&self.name, id, |used| {
            if used.is_none()
                && let Some(file) = kept.take()
            {
                crate::mapped::close_if_unused(file);
            }
        });
        std::mem::forget(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::CreateOptions;
    use crate::worker::Worker;
    use crate::{Geometry, lane_lock_byte};
    use hangwatch_test_children::fork;

    struct Named(String);

    impl Named {
        /// A segment made by a child, so that this process does not use it.
        fn made_elsewhere(test: &str) -> Named {
            let name = format!("test-observer-{test}-{}", std::process::id());
            let made = name.clone();
            let child = fork(move || {
                let options = CreateOptions { geometry: small(), ..CreateOptions::default() };
                i32::from(Segment::create(&made, options).is_err())
            });
            assert_eq!(child.exit_status(), 0);
            Named(name)
        }
    }

    impl Drop for Named {
        fn drop(&mut self) {
            let _ = Segment::remove(&self.0);
        }
    }

    fn small() -> Geometry {
        Geometry { lanes: 4, timers: 4, records: 16, scopes: 4, lane_scopes: 4 }
    }

    /// The permissions of this process's mappings of a segment.
    fn mapped(name: &str) -> Vec<String> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let ours = maps.lines().filter(|line| line.contains(&format!("/hangwatch.{name}")));
        ours.map(|line| line.split_ascii_whitespace().nth(1).unwrap().to_owned()).collect()
    }

    #[test]
    fn a_segment_is_mapped_to_read_and_given_up() {
        let named = Named::made_elsewhere("given-up");
        let observer = Observer::open(&named.0).unwrap();
        assert_eq!(mapped(&named.0), ["r--s"]);
        assert_eq!(observer.picture().unwrap().lane_count, 4);
        assert!(observer.is_current());
        Segment::remove(&named.0).unwrap();
        assert!(!observer.is_current());
        assert_eq!(observer.glance().unwrap().lane_count, 4, "it can still be read");
        drop(observer);
        assert_eq!(mapped(&named.0), [""; 0]);
        assert!(matches!(Observer::open(&named.0), Err(OpenError::File { .. })));
    }

    #[test]
    fn who_attaches_beside_its_own_observer_keeps_its_locks() {
        let named = Named::made_elsewhere("locks");
        let before = Observer::open(&named.0).unwrap();
        let worker = Worker::attach(named.0.as_str()).unwrap();
        let _guard = worker.expires("scope", Duration::from_mins(1)).unwrap();
        let after = Observer::open(&named.0).unwrap();
        assert!(matches!(after.source, Source::Used(_)));
        assert_eq!(before.glance().unwrap().lanes[0].timers[0].scope, "scope");
        assert_eq!(after.lane_scopes(0).unwrap()[0].counts.acquired, 1);
        assert_eq!(after.lane_scopes(9).unwrap().len(), 0);
        drop((before, after));
        // Only another process is told of this one's locks.
        let file = Segment::open(&named.0).unwrap().file();
        let child = fork(move || {
            i32::from(lock::holder(file.as_fd(), lane_lock_byte(0)).unwrap() == Holder::Free)
        });
        assert_eq!(child.exit_status(), 0);
    }
}
