//! A segment in memory that a program has by the crate `shared_memory` already.
#![expect(unsafe_code, reason = "the words of a mapping of another crate")]

use std::sync::atomic::{AtomicU64, Ordering};

use hangwatch_core::wire::layout::{Geometry, GeometryError};
use hangwatch_core::wire::segment::Segment as Words;
use shared_memory::Shmem;

use crate::error::CreateError;
use crate::segment::{CreateOptions, Lifetime, Segment};
use crate::sys::file;
use crate::sys::name::file_name;

impl Segment {
    /// The name in the operating system under which the segment `name` is memory of `shared_memory`.
    ///
    /// # Errors
    /// [`CreateError::Shmem`] where no segment can have the name.
    pub fn shmem_id(name: &str) -> Result<String, CreateError> {
        let file = file_name(name);
        file.map(|file| format!("/{file}"))
            .map_err(|why| CreateError::Shmem { id: name.to_owned(), why: why.to_string() })
    }

    /// The bytes that a segment of this geometry needs.
    ///
    /// # Errors
    /// [`GeometryError`] where a size is out of bounds.
    pub fn shmem_bytes(geometry: Geometry) -> Result<usize, GeometryError> {
        Ok(geometry.check()?.bytes())
    }

    /// The segment in `shmem`: made by `options` where its memory is blank, else the one that is there.
    ///
    /// Workers and watchdogs, of this process or others, find it by its name as any other.
    ///
    /// ```
    /// use hangwatch::{CreateOptions, Segment};
    /// use shared_memory::ShmemConf;
    ///
    /// let (name, options) = (format!("doc-shmem-{}", std::process::id()), CreateOptions::default());
    /// let bytes = Segment::shmem_bytes(options.geometry)?;
    /// let shmem = ShmemConf::new().os_id(Segment::shmem_id(&name)?).size(bytes).create()?;
    /// let segment = Segment::from_shmem(shmem, options)?;
    /// assert_eq!(segment.name(), name);
    /// Segment::remove(&name)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Limits
    ///
    /// * `shared_memory` does not preallocate: the memory is allocated here, which fails where `/dev/shm` has
    ///   not enough. Until then, touching it may raise SIGBUS.
    /// * The name exists before the segment is initialised: who opens it in between is told that it is not a
    ///   segment.
    /// * `shared_memory` removes the name when it is dropped. Its locks would fall, too, so it is kept for the
    ///   life of this process, as any segment, and removes nothing: [`Segment::remove`] does.
    /// * [`CreateOptions::mode`] and [`CreateOptions::gid`] are not applied: the mode is `shared_memory`'s, 0600.
    ///   [`Lifetime::Makers`] is refused.
    ///
    /// # Errors
    /// [`CreateError::Shmem`] where its name or size is not a segment's; otherwise as [`Segment::create`] and
    /// [`Segment::open`].
    pub fn from_shmem(mut shmem: Shmem, options: CreateOptions) -> Result<Segment, CreateError> {
        let id = shmem.get_os_id().to_owned();
        let refused = |why: &str| CreateError::Shmem { id: id.clone(), why: why.to_owned() };
        let prefix = Segment::shmem_id("a")?;
        let prefix = prefix.trim_end_matches('a');
        let name = id.strip_prefix(prefix).or_else(|| id.strip_prefix(&prefix[1..]));
        let name = name.ok_or_else(|| refused("name it by Segment::shmem_id"))?;
        let is_blank = {
            let words =
                words(&shmem).ok_or_else(|| refused("its size is no whole number of words"))?;
            words.first().is_some_and(|magic| magic.load(Ordering::Relaxed) == 0)
        };
        if is_blank {
            let (fixed, bytes) = options.fixed(name)?;
            if shmem.len() != bytes {
                return Err(refused(
                    "its size is not that of the geometry: see Segment::shmem_bytes",
                ));
            }
            if options.lifetime == Lifetime::Makers {
                return Err(refused("its name exists before its maker can lock it"));
            }
            file::allocate_named(name, bytes as u64)
                .map_err(|source| CreateError::File { name: name.to_owned(), source })?;
            let words = words(&shmem).expect("as above");
            Words::format(words, fixed).expect("the geometry was checked");
        }
        shmem.set_owner(false);
        let segment = Segment::open(name)?;
        // Dropped, it would close a descriptor of the file, and with it release this process's locks.
        std::mem::forget(shmem);
        Ok(segment)
    }
}

fn words(shmem: &Shmem) -> Option<&[AtomicU64]> {
    let (start, len) = (shmem.as_ptr(), shmem.len());
    let start = std::ptr::NonNull::new(start)?.cast::<AtomicU64>();
    if !len.is_multiple_of(size_of::<AtomicU64>()) {
        return None;
    }
    // SAFETY: a mapping of `len` bytes, page-aligned, readable and writable for as long as `shmem` is
    // borrowed; an atomic may be written by others at any time and has no invalid bit pattern.
    Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), len / size_of::<AtomicU64>()) })
}
