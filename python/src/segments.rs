//! The segments that this process's watchdogs made or serve, and when one can be closed.
//!
//! A process that makes a watchdog each time it restarts its workers must not collect descriptors and
//! mappings. A segment is closed when nothing here uses it any more, unless a thread of this process
//! attached to it: the kernel would drop that thread's lock with the descriptor.
//!
//! The map is locked for a moment, and with the interpreter's lock held, so a fork never finds it locked.
#![expect(unsafe_code, reason = "a segment is closed when it is known to be unused")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hangwatch::sys::lock;
use hangwatch::{MAKER_LOCK_BYTE, Segment};
use pyo3::prelude::*;

/// How often each name is in use: by `make_segment` and by servers, until `leave`. At 0 it is to be closed.
static USES: Mutex<Option<HashMap<String, usize>>> = Mutex::new(None);
/// Threads that look into some segment for a moment. (A forked child may find one too many: then it
/// closes nothing.)
static LOOKING: AtomicUsize = AtomicUsize::new(0);

/// Does something with segments without the interpreter's lock; none is closed meanwhile. What keeps one
/// beyond that counts as a use, or attaches.
pub(crate) fn looking<T: Send>(py: Python<'_>, look: impl FnOnce() -> T + Send) -> T {
    struct Looking;
    impl Drop for Looking {
        fn drop(&mut self) {
            LOOKING.fetch_sub(1, Ordering::SeqCst);
        }
    }
    // SeqCst: with the registry's lock, which both then take, whoever closes a segment sees this, or
    // this thread no longer finds the segment.
    LOOKING.fetch_add(1, Ordering::SeqCst);
    let _looking = Looking;
    py.detach(look)
}

/// Notes one use of `name`, until [`leave`]. Before the segment is opened.
pub(crate) fn join(_: Python<'_>, name: &str) {
    change(|uses| *uses.entry(name.to_owned()).or_default() += 1);
}

/// Gives one use back. The last one closes the segment.
pub(crate) fn leave(py: Python<'_>, name: &str) {
    let unused = change(|uses| {
        if let Some(left) = uses.get_mut(name) {
            *left = left.saturating_sub(1);
        }
        let unused = uses.iter().filter(|(_, left)| **left == 0);
        unused.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    });
    for name in unused {
        let is_unused = || LOOKING.load(Ordering::SeqCst) == 0;
        // SAFETY: segments of this process are used by its workers, which attach and so keep them open;
        // by those that look, which is asked for; and by those that count their use, of which none is
        // left. Where the canary cannot be armed, the segment stays open.
        let closed = py.detach(|| unsafe { Segment::close_unused(&name, is_unused) });
        if matches!(closed, Ok(true)) {
            change(|uses| uses.retain(|known, left| *known != name || *left > 0));
        }
    }
}

/// How often this process uses `name`.
pub(crate) fn uses(_: Python<'_>, name: &str) -> usize {
    change(|uses| uses.get(name).copied().unwrap_or_default())
}

fn change<T>(change: impl FnOnce(&mut HashMap<String, usize>) -> T) -> T {
    change(USES.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// Makes this process the maker of a segment whose own was killed; whether it is that now.
pub(crate) fn inherit(segment: Segment) -> bool {
    segment.dies_with_maker() && matches!(lock::try_lock(segment.file(), MAKER_LOCK_BYTE), Ok(true))
}

/// The kinds of names that `hangwatch.timer` and `hangwatch.torch` give.
const KINDS: [&str; 3] = ["timer-", "file-", "queue-"];

/// Removes what processes that were killed have left behind: under `name`, or under names of our own
/// making. Whatever cannot be removed is somebody else's.
pub(crate) fn remove_left_behind(name: &str) {
    let names = Segment::list().unwrap_or_default();
    let ours =
        |found: &&String| **found == name || KINDS.iter().any(|kind| found.starts_with(kind));
    for found in names.iter().filter(ours) {
        let _ = Segment::remove_if_stale(found);
    }
}
