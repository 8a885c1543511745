//! What a process keeps of a segment beside its lanes: keyed timers and pauses.
//!
//! Only the data; [`keyed`](crate::keyed) and [`pause`](crate::pause) have the rules.

use std::collections::HashMap;
use std::sync::Mutex;

use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::TimerWord;

use crate::lane::{Armed, LaneOptions, LanePool};
use crate::mapped::Mapped;

/// A segment as this process uses it.
pub(crate) struct Attachment {
    pub(crate) lanes: LanePool,
    /// The armed keyed timers of this process, by scope name: names beyond the segment's table share
    /// `(other)` there, but not here.
    pub(crate) keyed: Mutex<HashMap<String, (Armed, TimerWord)>>,
    /// The timers that pauses hold up.
    pub(crate) paused: Mutex<Paused>,
}

/// The timers of this process that a pause holds up, by lane and index.
#[derive(Default)]
pub(crate) struct Paused {
    pub(crate) timers: HashMap<(u32, u16), HeldUp>,
    /// How many pauses there were: each has a number.
    pub(crate) pauses: u64,
}

/// A timer that one or more pauses hold up.
pub(crate) struct HeldUp {
    /// The timer, and the word that the pauses left in it.
    pub(crate) timer: (Armed, TimerWord),
    pub(crate) options: &'static LaneOptions,
    /// When it was due before the first of the pauses.
    pub(crate) due: Units,
    /// When that began.
    pub(crate) since: Nanos,
    /// The most that they may take together, ns: those that have ended, too.
    pub(crate) most_ns: u64,
    /// Those that last, with the most that each may take, ns.
    pub(crate) lasting: Vec<(u64, u64)>,
}

impl Attachment {
    pub(crate) fn new(mapped: Mapped) -> Attachment {
        Attachment {
            lanes: LanePool::new(mapped),
            keyed: Mutex::default(),
            paused: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn mapped(&self) -> &Mapped {
        &self.lanes.mapped
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.mapped().fmt(f)
    }
}
