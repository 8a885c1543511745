//! The worker's clock: the counter where it can be trusted, the system clock, or the coarse one.

use hangwatch_core::calibration::{Calibration, ClockKind, TOLERANCE_NS, VALID_NS};
use hangwatch_core::segment::Segment;
use hangwatch_core::time::{Nanos, UNIT_NS, Units};

use crate::sys::clock::{self, ClockId};

/// How often a calibration is tried before the system clock is used instead: one try may have been
/// interrupted between its two readings.
const TRIES: u32 = 3;

/// One thread's clock over one segment.
#[derive(Debug)]
pub(crate) struct Timing {
    kind: ClockKind,
    /// The system's clock that is read where the counter is not.
    system: ClockId,
    /// What a deadline is put off by so that it is never early, ns: the clock's resolution, and
    /// what rounds it up to a whole unit.
    round_up_ns: u64,
    calibration: Calibration,
    /// Counts after the calibration's own for which it is trusted; 0 where there is none.
    valid_counts: u64,
    /// Without a calibration: when to try for one again.
    retry_at: Nanos,
}

impl Timing {
    /// A clock of `kind`; the counter only where the kernel's own clock is that counter.
    pub(crate) fn new(kind: ClockKind) -> Timing {
        let kind = match kind {
            ClockKind::Counter if !clock::counter_is_system_clock() => ClockKind::System,
            kind => kind,
        };
        let resolution_ns = match kind {
            ClockKind::System => 0,
            ClockKind::Counter => TOLERANCE_NS,
            ClockKind::Coarse => clock::coarse_resolution_ns(),
        };
        Timing {
            kind,
            system: match kind {
                ClockKind::Coarse => ClockId::MonotonicCoarse,
                ClockKind::System | ClockKind::Counter => ClockId::Monotonic,
            },
            round_up_ns: resolution_ns + (UNIT_NS - 1),
            calibration: Calibration::default(),
            valid_counts: 0,
            retry_at: Nanos(0),
        }
    }

    /// Which clock it is.
    pub(crate) fn kind(&self) -> ClockKind {
        self.kind
    }

    /// When a deadline `allowance_ns` from `now` is due: never early by the clock's resolution.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn deadline(&self, now: Nanos, allowance_ns: u64) -> Units {
        // No addition can wrap: the time is below 2^60 ns, the allowance below 2^59. `now` is added
        // last, for it is ready last: the release's locked instruction waits for this chain.
        let ahead_ns = allowance_ns + self.round_up_ns;
        Units::begun_by(Nanos(now.0 + ahead_ns))
    }

    /// The time.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    pub(crate) fn now(&mut self, segment: &Segment<'_>) -> Nanos {
        match self.kind {
            ClockKind::Counter => {
                let counter = clock::counter();
                let counts = counter.wrapping_sub(self.calibration.counter);
                if counts < self.valid_counts {
                    self.calibration.time(counter)
                } else {
                    self.recalibrate(segment)
                }
            }
            // One call for both: a second would spill every register around it once more.
            ClockKind::System | ClockKind::Coarse => Nanos(clock::read_ns(self.system)),
        }
    }

    /// The calibration has come of age: takes the published one, if it tells the time.
    #[cold]
    fn recalibrate(&mut self, segment: &Segment<'_>) -> Nanos {
        let now = Nanos(clock::monotonic_ns());
        if now < self.retry_at {
            return now;
        }
        for _ in 0..TRIES {
            let (counter, now) = (clock::counter(), Nanos(clock::monotonic_ns()));
            let published = segment.calibration();
            if let Some(calibration) = published.filter(|made| made.holds_at(counter, now)) {
                self.calibration = calibration;
                let age = counter.wrapping_sub(calibration.counter);
                self.valid_counts = age.saturating_add(calibration.counts(VALID_NS));
                return now;
            }
        }
        // Absent, stale or absurd: the system clock until the next try.
        self.valid_counts = 0;
        self.retry_at = now.plus(VALID_NS);
        now
    }
}
