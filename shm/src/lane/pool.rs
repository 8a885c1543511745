//! The lanes of one segment that this process has, or may claim.

use std::sync::Mutex;

use super::{LaneOptions, LaneOwner};
use crate::mapped::{Mapped, lock};
use crate::returned::Returned;
use crate::spilled::Spilled;

/// The lanes of a segment, as one process uses them.
pub(crate) struct LanePool {
    pub(crate) mapped: Mapped,
    /// Serialises claims and detaches of this process: its locks are one per process, not a thread.
    pub(super) claims: Mutex<()>,
    /// Lanes whose thread ended with timers armed, or after a meeting: they stay enforced, and the next
    /// thread goes on.
    pub(super) orphans: Mutex<Vec<LaneOwner>>,
    /// Timers whose handle ended while they were condemned.
    pub(super) returned: Returned,
    /// Names of scopes, held by this process, that the segment's table has no room for.
    pub(crate) spilled: Mutex<Spilled>,
    /// The options that workers of this process attached with, each kind once.
    options: Mutex<Vec<&'static LaneOptions>>,
}

impl LanePool {
    pub(crate) fn new(mapped: Mapped) -> LanePool {
        LanePool {
            claims: Mutex::new(()),
            orphans: Mutex::new(Vec::new()),
            returned: Returned::new(mapped.words.geometry()),
            spilled: Mutex::new(Spilled::default()),
            options: Mutex::new(Vec::new()),
            mapped,
        }
    }

    /// `options`, kept for the process's life like the segment itself: guards refer to them.
    pub(crate) fn keep(&self, options: LaneOptions) -> &'static LaneOptions {
        let mut kept = lock(&self.options);
        if let Some(same) = kept.iter().find(|kept| ***kept == options) {
            return same;
        }
        let options: &'static LaneOptions = Box::leak(Box::new(options));
        kept.push(options);
        options
    }

    /// Whether no thread of this process has ever attached to the segment.
    pub(crate) fn is_unused(&self) -> bool {
        lock(&self.options).is_empty()
    }
}

impl std::fmt::Debug for LanePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.mapped.fmt(f)
    }
}
