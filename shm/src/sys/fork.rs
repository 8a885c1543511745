//! The canary: how a forked child learns that it is one.
//!
//! One private page that the kernel clears in every child (`MADV_WIPEONFORK`,
//! Linux 4.14), whoever forked and by whatever call. A [`Canary`] taken in the
//! parent keeps the page's address and the number that stood there; in the
//! child the number is another, for ever. The check is one load and one
//! comparison.
//!
//! A child that shares its parent's memory (`vfork`, `posix_spawn` before its
//! exec, threads) is no forked child in this sense: the page is the same.
#![expect(unsafe_code, reason = "a page of its own, mapped and never unmapped")]

use std::io;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicPtr, AtomicU32};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::host::page_size;

/// What the kernel writes over the page in a forked child.
const WIPED: u32 = 0;

/// The canary's page, once there is one. An atomic and no lock: a child forked
/// while another thread held the lock could never take it.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());

/// The last generation handed out in this process or in those that it was
/// forked from; copied, not cleared, by fork.
static GENERATION: AtomicU32 = AtomicU32::new(WIPED);

/// The kernel gave no page that it clears on fork.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot set up the page that tells a forked child from its parent ({step}): {source}; \
     hangwatch needs Linux 4.14 or newer"
)]
pub struct CanaryError {
    step: &'static str,
    source: io::Error,
}

/// Belongs to the process it was armed in; knows in any other that it does not.
#[derive(Clone, Copy, Debug)]
pub struct Canary {
    word: &'static AtomicU32,
    /// Not [`WIPED`]; greater in a child than in its parent.
    generation: u32,
}

impl Canary {
    /// The canary of this process: armed on the first call, and anew on the
    /// first call in a forked child.
    ///
    /// # Errors
    /// [`CanaryError`].
    pub fn arm() -> Result<Self, CanaryError> {
        let word = page()?;
        let mut generation = word.load(Acquire);
        if generation == WIPED {
            let next = next_generation();
            // AcqRel, Acquire: threads of one child agree on one generation,
            // the first one's. Nothing else is published by it.
            generation = match word.compare_exchange(WIPED, next, AcqRel, Acquire) {
                Ok(_) => next,
                Err(first) => first,
            };
        }
        Ok(Self { word, generation })
    }

    /// Whether this is a forked child of the process that armed the canary.
    /// Stays true when the child arms one of its own.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "one load on the hot path of every acquire")]
    pub fn forked(&self) -> bool {
        // Relaxed: only a fork changes the word, and the child's one thread
        // comes after its fork.
        self.word.load(Relaxed) != self.generation
    }

    /// Tells the process that armed the canary from those it was forked from
    /// and those forked from it; not from others.
    pub fn generation(&self) -> u32 {
        self.generation
    }
}

fn next_generation() -> u32 {
    // Relaxed: a number to tell apart, nothing is published by it.
    match GENERATION.fetch_add(1, Relaxed).wrapping_add(1) {
        WIPED => GENERATION.fetch_add(1, Relaxed).wrapping_add(1),
        generation => generation,
    }
}

fn page() -> Result<&'static AtomicU32, CanaryError> {
    // Acquire: pairs with the exchange below.
    let known = PAGE.load(Acquire);
    let word = if known.is_null() { publish(map_page()?.as_ptr()) } else { known };
    // SAFETY: the page is mapped, aligned, used as this atomic only, and never
    // unmapped once it is published.
    Ok(unsafe { &*word })
}

/// Makes `fresh` the canary's page, unless another thread was first: then that
/// one's page it is, and `fresh` is unmapped.
fn publish(fresh: *mut AtomicU32) -> *mut AtomicU32 {
    // AcqRel: pairs with the Acquire in `page`. Acquire: likewise, as a reader.
    match PAGE.compare_exchange(null_mut(), fresh, AcqRel, Acquire) {
        Ok(_) => fresh,
        Err(first) => {
            // SAFETY: `fresh` is a whole mapping of one page that nobody else
            // has seen. If it cannot be unmapped, a page is lost, no more.
            let _ = unsafe { rustix::mm::munmap(fresh.cast(), page_size() as usize) };
            first
        }
    }
}

fn map_page() -> Result<NonNull<AtomicU32>, CanaryError> {
    let failed = |step| move |errno: rustix::io::Errno| CanaryError { step, source: errno.into() };
    let len = page_size() as usize;
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    // SAFETY: a fresh anonymous mapping, placed where nothing is.
    let page = unsafe { rustix::mm::mmap_anonymous(null_mut(), len, prot, flags) }
        .map_err(failed("mmap"))?;
    // SAFETY: the page is ours; the advice changes what a child sees, not us.
    let advised = unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) };
    if let Err(errno) = advised {
        // SAFETY: the page is ours and nobody has seen it.
        let _ = unsafe { rustix::mm::munmap(page, len) };
        return Err(failed("MADV_WIPEONFORK")(errno));
    }
    Ok(NonNull::new(page.cast()).expect("mmap places nothing at address zero"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_test_children::fork;

    #[test]
    fn a_process_keeps_its_canary() {
        let one = Canary::arm().unwrap();
        let other = std::thread::spawn(|| Canary::arm().unwrap()).join().unwrap();
        assert_eq!(one.generation(), other.generation());
        assert!(!one.forked() && !other.forked());
    }

    #[test]
    fn a_child_is_told_apart_before_and_after_it_arms_its_own() {
        let parents = Canary::arm().unwrap();
        let child = fork(|| {
            assert!(parents.forked());
            let own = Canary::arm().unwrap();
            assert!(!own.forked());
            assert!(parents.forked());
            assert!(own.generation() > parents.generation());
            let grandchild = fork(|| {
                assert!(parents.forked() && own.forked());
                let third = Canary::arm().unwrap();
                assert!(!third.forked() && parents.forked() && own.forked());
                i32::from(third.generation() <= own.generation())
            });
            grandchild.exit_status()
        });
        assert_eq!(child.exit_status(), 0);
        assert!(!parents.forked());
    }

    #[test]
    fn threads_of_one_child_agree() {
        let parents = Canary::arm().unwrap();
        let child = fork(|| {
            let generations: Vec<u32> = std::thread::scope(|scope| {
                let arm = || Canary::arm().unwrap().generation();
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(arm)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(generations.iter().all(|&one| one == generations[0]), "{generations:?}");
            i32::from(generations[0] <= parents.generation())
        });
        assert_eq!(child.exit_status(), 0);
    }
}
