//! The number by which the watchdog knows a process that it has admitted.

/// A process the watchdog has admitted: an index into the admitter's list, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);
