//! Seats and what is said about them: who sits in a lane, what the kernel answered, what has expired.

use crate::watchdog::worker::WorkerId;
use crate::wire::lane::{OwnerWord, TimerDetail};
use crate::wire::time::Nanos;
use crate::wire::timer::TimerWord;

/// One timer that has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredTimer {
    /// Its lane.
    pub lane: u32,
    /// Its index in the lane.
    pub timer: u16,
    /// Its word when it was found.
    pub word: TimerWord,
    /// Its details.
    pub detail: TimerDetail,
    /// Its deadline with every stall credited.
    pub deadline: Nanos,
}

/// What the kernel said about a lane's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// This process holds the lane's lock: signals may go to it.
    Worker(WorkerId),
    /// Its process is dead, or has exec'd into something else: the lane is recycled, nobody signalled.
    Gone,
    /// It lives where it cannot be proved; it is reported, never signalled.
    Unattestable,
    /// No answer yet; it is asked again.
    Unknown,
}

/// What the watchdog is to find out or to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Ask the kernel who owns this lane.
    Admit {
        /// The lane.
        lane: u32,
        /// Its owner word.
        owner: OwnerWord,
    },
    /// A lane is inconsistent and quarantined.
    Quarantined {
        /// The lane.
        lane: u32,
    },
    /// A timer expired whose owner cannot be proved: it is reported, nobody is signalled.
    Unattestable(ExpiredTimer),
    /// A timer has used the fraction of its timeout that `--warn-at` names.
    Warning(ExpiredTimer),
    /// In a shadow: a timer has run beyond its scope's timeout, which `deadline` is the end of.
    Overrun(ExpiredTimer),
    /// In a shadow: a late timer has come to its end.
    EndedLate {
        /// Which.
        timer: ExpiredTimer,
        /// How late it was, ns: to within the watchdog's interval, never too little.
        late_ns: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nobody's, or on its way: nothing is enforced.
    Vacant,
    /// Attached; the kernel has been asked at this time.
    Asked(Nanos),
    Admitted(WorkerId),
    /// The kernel could not say, last asked at this time.
    Unattestable(Nanos),
    /// It was inconsistent; whether its owner lives was last asked at this time.
    Quarantined(Nanos),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) owner: OwnerWord,
    pub(super) phase: Phase,
}

impl Slot {
    pub(super) fn is_quarantined(&self) -> bool {
        matches!(self.phase, Phase::Quarantined(_))
    }

    /// Whether its timers are of any interest.
    pub(super) fn is_taken(&self) -> bool {
        !matches!(self.phase, Phase::Vacant | Phase::Quarantined(_))
    }
}
