//! The clock that times an acquire, as a lane and a scope record it.

/// Which clock times an acquire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ClockKind {
    /// `clock_gettime(CLOCK_MONOTONIC)`, about 1 ns of resolution.
    #[default]
    System = 0,
    /// The processor's counter, where the kernel's own clock source is that counter.
    Counter = 1,
    /// `CLOCK_MONOTONIC_COARSE`, one kernel tick (1 to 10 ms) of resolution.
    Coarse = 2,
}

impl ClockKind {
    /// From the wire; anything unknown is the system clock.
    pub fn from_bits(bits: u64) -> ClockKind {
        match bits {
            1 => ClockKind::Counter,
            2 => ClockKind::Coarse,
            _ => ClockKind::System,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            ClockKind::System => "system",
            ClockKind::Counter => "counter",
            ClockKind::Coarse => "coarse",
        }
    }
}
