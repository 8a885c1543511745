//! The segment as this process sees it: [`Mapping`], a shared mapping whose
//! every word is an atomic, or a [`ReadOnlyMapping`] of it.
//!
//! The one place that turns mapped memory into references. No `&[u8]`, no
//! plain integers: another process writes here at any time. Made from a
//! [`SegmentFile`](super::file::SegmentFile) or any descriptor of enough length.
#![expect(unsafe_code, reason = "the cast from mapped memory to atomics")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// Why a segment could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The length is nothing, or no whole number of 64-bit words.
    #[error("cannot map a segment of {len} bytes: the length must be a positive multiple of 8")]
    Length {
        /// The length asked for, in bytes.
        len: usize,
    },
    /// The kernel refused.
    #[error(
        "cannot map {len} bytes of the segment: {source}; \
         check the address-space limit (ulimit -v) and vm.max_map_count"
    )]
    Map {
        /// The length asked for, in bytes.
        len: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The mapping could not be kept from forked children.
    #[error(
        "cannot keep the segment's mapping from forked children (MADV_DONTFORK): {source}; \
         hangwatch needs a kernel that offers it"
    )]
    DontFork {
        /// What the kernel said.
        source: io::Error,
    },
}

/// A shared, writable mapping, absent from forked children (`MADV_DONTFORK`).
///
/// Dropping it unmaps. A forked child must not drop one it was born with: the
/// range is not mapped there and may have been given to something else. Long
/// lived mappings are [leaked](Mapping::leak) for that reason.
///
/// Reading a page whose file was truncated raises SIGBUS; nothing here guards
/// against that.
#[derive(Debug)]
pub struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Maps the first `len` bytes of `file` for reading and writing.
    ///
    /// # Errors
    /// [`MapError`]; nothing is left mapped.
    pub fn new(file: impl AsFd, len: usize) -> Result<Self, MapError> {
        if len == 0 || !len.is_multiple_of(size_of::<AtomicU64>()) {
            return Err(MapError::Length { len });
        }
        let map = MmapOptions::new()
            .len(len)
            .map_raw(file.as_fd().as_raw_fd())
            .map_err(|source| MapError::Map { len, source })?;
        map.advise(Advice::DontFork).map_err(|source| MapError::DontFork { source })?;
        Ok(Self { map })
    }

    /// The whole mapping as 64-bit words.
    #[expect(clippy::cast_ptr_alignment, reason = "mmap gives page-aligned addresses")]
    pub fn words(&self) -> &[AtomicU64] {
        let count = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: the mapping is `count` words long, page-aligned, readable and
        // writable for as long as `self` is borrowed; an atomic may be written
        // by others at any time and has no invalid bit pattern.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), count) }
    }

    /// The whole mapping as 64-bit words, never to be unmapped.
    pub fn leak(self) -> &'static [AtomicU64] {
        let words: *const [AtomicU64] = self.words();
        std::mem::forget(self);
        // SAFETY: the mapping behind `words` is forgotten, so nothing unmaps it
        // for the rest of this process's life.
        unsafe { &*words }
    }

    /// As [`doorbell`], of this mapping.
    pub fn doorbell(&self, byte_offset: usize) -> &AtomicU32 {
        doorbell(self.words(), byte_offset)
    }
}

/// Unmaps what [`Mapping::leak`] gave.
///
/// # Safety
/// `words` are the whole of a leaked mapping, in the process that mapped it, and are not used again.
pub unsafe fn unmap(words: &'static [AtomicU64]) {
    let start = words.as_ptr().cast_mut().cast();
    // SAFETY: the caller's. A refusal leaves the mapping as it is.
    let _ = unsafe { rustix::mm::munmap(start, size_of_val(words)) };
}

/// A shared mapping that nothing can be written through. Dropping it unmaps.
///
/// A forked child has one of its own, to drop or to keep. Of truncation holds what is said at
/// [`Mapping`].
#[derive(Debug)]
pub struct ReadOnlyMapping {
    map: MmapRaw,
}

impl ReadOnlyMapping {
    /// Maps the first `len` bytes of `file` for reading.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn new(file: impl AsFd, len: usize) -> Result<Self, MapError> {
        if len == 0 || !len.is_multiple_of(size_of::<AtomicU64>()) {
            return Err(MapError::Length { len });
        }
        let mapped = MmapOptions::new().len(len).map_raw_read_only(file.as_fd().as_raw_fd());
        Ok(Self { map: mapped.map_err(|source| MapError::Map { len, source })? })
    }

    /// Where it lies.
    pub fn range(&self) -> Range<usize> {
        let start = self.map.as_ptr().addr();
        start..start + self.map.len()
    }

    /// The whole mapping as 64-bit words, to be loaded from.
    ///
    /// The standard library promises only relaxed loads from memory that cannot be written. On the
    /// architectures there are (see `sys`), a load of 64 bits is a plain one at every ordering.
    ///
    /// # Safety
    /// Nothing may be stored to them, nor swapped or exchanged: the process would die of it.
    #[expect(clippy::cast_ptr_alignment, reason = "mmap gives page-aligned addresses")]
    pub unsafe fn words(&self) -> &[AtomicU64] {
        let count = self.map.len() / size_of::<AtomicU64>();
        // SAFETY: as in `Mapping::words`; the caller only loads.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast::<AtomicU64>(), count) }
    }
}

/// The 32-bit word at `byte_offset`: the futex that a doorbell is.
///
/// The 64-bit word around it must be touched in no other way: an atomic is read
/// and written at one width only. The layout gives the doorbell a word of its
/// own; whoever uses the slice promises to leave that word alone.
///
/// # Panics
/// If `byte_offset` is not a multiple of 4 inside `words`. Offsets come from
/// the layout, never from shared memory.
pub fn doorbell(words: &[AtomicU64], byte_offset: usize) -> &AtomicU32 {
    assert!(
        byte_offset.is_multiple_of(size_of::<AtomicU32>()) && byte_offset < size_of_val(words),
        "doorbell at byte {byte_offset} of {}",
        size_of_val(words)
    );
    let word = words[byte_offset / size_of::<AtomicU64>()].as_ptr().cast::<u32>();
    // Half of a word, so the index below is 0 or 1.
    let half = byte_offset % size_of::<AtomicU64>() / size_of::<AtomicU32>();
    // SAFETY: `word` points to two u32 and `half` is 0 or 1.
    let half = unsafe { word.add(half) };
    // SAFETY: aligned, inside the words that are borrowed, and by the promise
    // above accessed as an atomic of this width only.
    unsafe { AtomicU32::from_ptr(half) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use hangwatch_test_children::{fork, shm_file};

    const LEN: usize = 8192;

    #[test]
    fn two_mappings_of_one_file_share_their_words() {
        let file = shm_file(LEN as u64);
        let one = Mapping::new(&file, LEN).unwrap();
        let other = Mapping::new(&file, LEN).unwrap();
        one.words()[1023].store(7, Relaxed);
        assert_eq!(other.words().len(), LEN / 8);
        assert_eq!(other.words()[1023].load(Relaxed), 7);
    }

    #[test]
    fn a_leaked_mapping_outlives_its_file() {
        let file = shm_file(LEN as u64);
        let words = Mapping::new(&file, LEN).unwrap().leak();
        drop(file);
        words[0].store(3, Relaxed);
        assert_eq!(words[0].load(Relaxed), 3);
    }

    #[test]
    fn the_doorbell_is_the_half_word_at_its_offset() {
        let file = shm_file(LEN as u64);
        let mapping = Mapping::new(&file, LEN).unwrap();
        mapping.doorbell(64).store(1, Relaxed);
        mapping.doorbell(68).store(2, Relaxed);
        let bytes = mapping.words()[8].load(Relaxed).to_ne_bytes();
        assert_eq!(bytes[..4], 1u32.to_ne_bytes());
        assert_eq!(bytes[4..], 2u32.to_ne_bytes());
    }

    #[test]
    #[should_panic(expected = "doorbell at byte 8192")]
    fn a_doorbell_outside_the_mapping_is_refused() {
        let file = shm_file(LEN as u64);
        let mapping = Mapping::new(&file, LEN).unwrap();
        mapping.doorbell(LEN);
    }

    #[test]
    fn a_forked_child_has_no_mapping() {
        let file = shm_file(LEN as u64);
        let mapping = Mapping::new(&file, LEN).unwrap();
        let first = mapping.words().as_ptr();
        let child = fork(|| {
            // msync reports ENOMEM for pages that are not mapped; touching
            // them would end the child.
            // SAFETY: msync writes nothing to user memory and checks the range.
            let rc = unsafe { libc::msync(first.cast_mut().cast(), LEN, libc::MS_ASYNC) };
            i32::from(rc == 0)
        });
        assert_eq!(child.exit_status(), 0);
    }

    #[test]
    fn bad_lengths_and_bad_files_are_refused() {
        let file = shm_file(LEN as u64);
        for len in [0, 1, 12] {
            let error = Mapping::new(&file, len).unwrap_err();
            assert!(matches!(error, MapError::Length { .. }), "{error}");
        }
        let (read_end, _write_end) = std::io::pipe().unwrap();
        let error = Mapping::new(&read_end, LEN).unwrap_err();
        assert!(matches!(error, MapError::Map { .. }), "{error}");
    }
}
