//! The watchdog's lock: a segment has one watchdog, and the kernel says which process it is.
//!
//! A POSIX lock does not tell two servers of one process apart, so the process keeps a list as well.

use std::os::fd::AsFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use hangwatch::sys::file::FileId;
use hangwatch::sys::fork::Canary;
use hangwatch::sys::lock::{self, Holder};
use hangwatch::{Segment, WATCHDOG_LOCK_BYTE};

use super::error::ServeError;

/// The segments this process serves, with the fork canary's generation: a forked child serves none.
static SERVED: Mutex<Vec<(u32, FileId)>> = Mutex::new(Vec::new());
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to serve a segment. Released on drop.
pub(super) struct WatchLock {
    segment: Segment,
    canary: Canary,
}

fn served() -> MutexGuard<'static, Vec<(u32, FileId)>> {
    SERVED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn canary(segment: Segment) -> Result<Canary, ServeError> {
    Canary::arm().map_err(|source| ServeError::Canary { segment: segment.name(), source })
}

impl WatchLock {
    /// Takes the lock if it is free.
    pub(super) fn take(segment: Segment) -> Result<WatchLock, ServeError> {
        let canary = canary(segment)?;
        let key = (canary.generation(), segment.file().id());
        let mut served = served();
        let taken = |pid| ServeError::AlreadyServed { segment: segment.name(), pid };
        if served.contains(&key) {
            return Err(taken(Some(std::process::id())));
        }
        let failed = |source| ServeError::Lock { segment: segment.name(), source };
        if !lock::try_lock(segment.file().as_fd(), WATCHDOG_LOCK_BYTE).map_err(failed)? {
            let pid = match segment.watchdog().map_err(failed)? {
                Holder::Process(pid) => Some(pid.as_raw_pid().unsigned_abs()),
                _ => None,
            };
            return Err(taken(pid));
        }
        served.push(key);
        Ok(WatchLock { segment, canary })
    }

    /// Waits for the lock, without a time limit.
    pub(super) fn wait(segment: Segment) -> Result<WatchLock, ServeError> {
        let canary = canary(segment)?;
        let key = (canary.generation(), segment.file().id());
        let mut list = served();
        while list.contains(&key) {
            list = GIVEN_BACK.wait(list).unwrap_or_else(PoisonError::into_inner);
        }
        // Entered first: the kernel would grant the lock to a second server of this process as well.
        list.push(key);
        drop(list);
        let lock = WatchLock { segment, canary };
        lock::lock_wait(segment.file().as_fd(), WATCHDOG_LOCK_BYTE)
            .map_err(|source| ServeError::Lock { segment: segment.name(), source })?;
        Ok(lock)
    }
}

impl Drop for WatchLock {
    fn drop(&mut self) {
        if self.canary.forked() {
            return; // the lock belongs to the parent
        }
        let key = (self.canary.generation(), self.segment.file().id());
        let mut served = served();
        // It only fails if the descriptor was closed, which released the lock.
        let _ = lock::unlock(self.segment.file().as_fd(), WATCHDOG_LOCK_BYTE);
        served.retain(|other| *other != key);
        GIVEN_BACK.notify_all();
    }
}
