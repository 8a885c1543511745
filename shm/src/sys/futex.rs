//! Sleeping until the doorbell rings, and ringing it.
//!
//! Shared futexes: sleeper and waker are different processes. The protocol
//! around them (who publishes what before, which fence pairs with which) is the
//! doorbell's, not this file's.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU32;

use rustix::io::Errno;
use rustix::thread::futex;

const NS_PER_S: u64 = 1_000_000_000;

/// Every waiter answers every ring.
const ALL: NonZeroU32 = NonZeroU32::MAX;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Somebody rang. (Rarely, nobody did: look, do not trust.)
    Rung,
    /// The word was another than expected, so there was no wait.
    Changed,
    /// The deadline came.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// The kernel could not wait on the word.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot wait for the segment's doorbell: {source}; \
     its file may have been truncated: make the segment anew"
)]
pub struct WaitError {
    /// What the kernel said.
    pub source: io::Error,
}

/// Sleeps until `word` is rung, for as long as it is `expected`, and no longer
/// than to `deadline_ns` (`CLOCK_MONOTONIC`; `None` is for ever).
///
/// A deadline in the past is a [`TimedOut`](Woken::TimedOut) at once.
///
/// # Errors
/// [`WaitError`], at once: a caller that only tries again would spin.
pub fn wait_until(
    word: &AtomicU32,
    expected: u32,
    deadline_ns: Option<u64>,
) -> Result<Woken, WaitError> {
    let deadline = deadline_ns.map(|ns| rustix::time::Timespec {
        tv_sec: (ns / NS_PER_S).cast_signed(),
        tv_nsec: (ns % NS_PER_S).cast_signed(),
    });
    // The bitset form takes an absolute time, on the monotonic clock.
    match futex::wait_bitset(word, futex::Flags::empty(), expected, deadline.as_ref(), ALL) {
        Ok(()) => Ok(Woken::Rung),
        Err(Errno::AGAIN) => Ok(Woken::Changed),
        Err(Errno::TIMEDOUT) => Ok(Woken::TimedOut),
        Err(Errno::INTR) => Ok(Woken::Interrupted),
        Err(other) => Err(WaitError { source: other.into() }),
    }
}

/// Wakes everyone who sleeps on `word`; how many those were.
///
/// Never fails: where the kernel refuses (the page is gone), nobody can be
/// asleep on it either, and that is none.
pub fn wake(word: &AtomicU32) -> usize {
    futex::wake(word, futex::Flags::empty(), i32::MAX.cast_unsigned()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::{Acquire, Release};

    use super::super::clock::monotonic_ns;
    use super::super::mapping::Mapping;
    use super::*;
    use hangwatch_test_children::{fork, shm_file};

    #[test]
    fn a_changed_word_is_not_waited_for() {
        let word = AtomicU32::new(1);
        assert_eq!(wait_until(&word, 0, None).unwrap(), Woken::Changed);
        assert_eq!(wake(&word), 0);
    }

    #[test]
    fn a_wait_lasts_to_its_absolute_deadline_and_not_shorter() {
        let word = AtomicU32::new(0);
        for deadline_ns in [0, monotonic_ns(), monotonic_ns() + 5_000_000] {
            let woken = wait_until(&word, 0, Some(deadline_ns)).unwrap();
            assert_eq!(woken, Woken::TimedOut);
            assert!(monotonic_ns() >= deadline_ns);
        }
    }

    #[test]
    fn a_ring_from_another_process_wakes_through_its_own_mapping() {
        let file = shm_file(4096);
        let mapping = Mapping::new(&file, 4096).unwrap();
        let word = mapping.doorbell(128);
        // The child maps the file itself and rings until it is told that the
        // parent has been woken.
        let child = fork(|| {
            let mapping = Mapping::new(&file, 4096).unwrap();
            let (word, done) = (mapping.doorbell(128), mapping.doorbell(136));
            while done.load(Acquire) == 0 {
                wake(word);
                std::thread::yield_now();
            }
            0
        });
        let woken = wait_until(word, 0, None).unwrap();
        mapping.doorbell(136).store(1, Release);
        assert_eq!(woken, Woken::Rung);
        assert_eq!(child.exit_status(), 0);
    }

    #[test]
    fn a_word_whose_page_is_gone_is_an_error_and_not_a_spin() {
        let file = shm_file(4096);
        let mapping = Mapping::new(&file, 4096).unwrap();
        file.set_len(0).unwrap();
        let error = wait_until(mapping.doorbell(0), 0, Some(0)).unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(libc::EFAULT));
        assert_eq!(wake(mapping.doorbell(0)), 0);
    }
}
