//! Words under a stamp: one writer, any number of readers, nobody waits. A seqlock.
//!
//! The writer changes the stamp to one that means *being written*, writes the words, then publishes the
//! new stamp. A reader that finds the same stamp before and after its copy has copied words that belong
//! to it. (Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012.)

use crate::atomic::{AtomicU64, Ordering, fence};

/// `N` words under a stamp.
#[derive(Clone, Copy)]
pub(crate) struct Stamped<'a, const N: usize> {
    pub(crate) stamp: &'a AtomicU64,
    pub(crate) words: [&'a AtomicU64; N],
}

impl<const N: usize> Stamped<'_, N> {
    /// Writes the words; `writing` is the stamp meanwhile, `written` the one after. One writer's alone.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it is given")]
    pub(crate) fn write(&self, writing: u64, bits: [u64; N], written: u64) {
        self.stamp.store(writing, Ordering::Relaxed);
        // Release fence: the stamp is gone before any new word is there; pairs with the Acquire fence in
        // `read`.
        fence(Ordering::Release);
        for (word, bits) in self.words.iter().zip(bits) {
            word.store(bits, Ordering::Relaxed);
        }
        // Release: the words come before their stamp; pairs with the Acquire load in `stamp`.
        self.stamp.store(written, Ordering::Release);
    }

    /// The stamp, to be passed to [`Stamped::read`].
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "one load")]
    pub(crate) fn stamp(&self) -> u64 {
        // Acquire: pairs with the Release in `write`.
        self.stamp.load(Ordering::Acquire)
    }

    /// A copy of the words, if they belong to `stamp`, which [`Stamped::stamp`] has just returned.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the drain: a call would copy what it returns")]
    pub(crate) fn read(&self, stamp: u64) -> Option<[u64; N]> {
        let bits = self.words.map(|word| word.load(Ordering::Relaxed));
        // Acquire fence: pairs with the Release fence in `write`: if any word was of a later stamp, the
        // stamp is seen changed below.
        fence(Ordering::Acquire);
        (self.stamp.load(Ordering::Relaxed) == stamp).then_some(bits)
    }
}
