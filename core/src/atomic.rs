//! The atomics everything here is built on: the standard ones, or loom's under `--cfg loom`.
//!
//! Shared words are 64 bits wide and read and written at that width only, with one exception: the
//! doorbell, which the kernel's futex wants at 32 bits and which never appears in a word slice.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Adds to a word that has one writer: a load and a store, no locked instruction.
///
/// Relaxed: a count orders nothing; readers that need a consistent picture compare sequence words.
#[inline]
pub fn add_single_writer(word: &AtomicU64, amount: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}
