//! How the tick wakes a thread that waits for a descriptor: without waiting.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a thread, at the latest when it is dropped.
pub(super) struct WakeUp(Arc<OwnedFd>);

impl WakeUp {
    /// One, and the descriptor that is readable for whoever it wakes.
    pub(super) fn new() -> io::Result<(WakeUp, Arc<OwnedFd>)> {
        let wake_fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok((WakeUp(Arc::clone(&wake_fd)), wake_fd))
    }

    /// Another one for the same thread.
    pub(super) fn of(wake_fd: &Arc<OwnedFd>) -> WakeUp {
        WakeUp(Arc::clone(wake_fd))
    }

    /// Whether that could be told. (Where it could not, it was told often enough before.)
    pub(super) fn wake(&self) -> bool {
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).is_ok()
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        self.wake();
    }
}
