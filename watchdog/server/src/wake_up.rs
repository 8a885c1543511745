//! Wakes a thread that waits for a descriptor, without waiting.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Wakes a thread when asked to, and when it is dropped.
pub(super) struct WakeUp(Arc<OwnedFd>);

impl WakeUp {
    /// Creates it together with the descriptor that becomes readable.
    pub(super) fn new() -> io::Result<(WakeUp, Arc<OwnedFd>)> {
        let wake_fd = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok((WakeUp(Arc::clone(&wake_fd)), wake_fd))
    }

    /// Creates another one for the same descriptor.
    pub(super) fn of(wake_fd: &Arc<OwnedFd>) -> WakeUp {
        WakeUp(Arc::clone(wake_fd))
    }

    /// Makes the descriptor readable. Returns false if the counter is full, in which case it is readable.
    pub(super) fn wake(&self) -> bool {
        rustix::io::write(&self.0, &1u64.to_ne_bytes()).is_ok()
    }
}

impl Drop for WakeUp {
    fn drop(&mut self) {
        self.wake();
    }
}
