//! Calibrates the processor's counter against the monotonic clock, and renews the calibration.
//!
//! [`Calibrator`] runs in the tick. It takes two microseconds and never waits: the doorbell wakes the tick
//! when the next reading is due.

use std::collections::VecDeque;

use hangwatch::sys::clock::{self, CounterSample};
use hangwatch_core::shared::calibration::{Calibration, RENEW_NS};
use hangwatch_core::wire::segment::Segment;
use hangwatch_core::wire::time::Nanos;

/// Minimum time between two readings, ns. At ±50 ns this bounds the error to 5 ppm.
const FIRST_NS: u64 = 20_000_000;
/// Distance between the readings of a settled calibration, ns. NTP changes the clock's rate, so an older
/// reading describes another rate. Over this distance, 50 ns are 0.025 ppm.
const BASE_NS: u64 = 2_000_000_000;
/// A reading that differs this much from the calibration, ns, shows that one of the clocks was stopped or
/// set: twice what NTP can change in [`RENEW_NS`] (1,000 ppm from one rate to the next).
const BROKEN_NS: u64 = RENEW_NS / 500;

/// Maintains the segment's calibration.
#[derive(Debug, Default)]
pub(super) struct Calibrator {
    samples: VecDeque<CounterSample>,
    published: Option<Calibration>,
    due: Nanos,
}

/// Whether the kernel's clock source is the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Counter,
    None,
}

impl Calibrator {
    /// Returns when the next reading is due.
    pub(super) fn due(&self) -> Nanos {
        self.due
    }

    /// Takes a reading and publishes the calibration, if a reading is due.
    pub(super) fn renew(&mut self, now: Nanos, trust: Trust, segment: &Segment<'_>) {
        if now < self.due {
            return;
        }
        if trust == Trust::None {
            self.samples.clear();
            self.withdraw(segment);
            self.due = now.plus(RENEW_NS);
            return;
        }
        if let Some(calibration) = self.take(clock::sample_pair()) {
            segment.publish_calibration(calibration);
            self.published = Some(calibration);
        } else if self.published.is_none() {
            // The first reading of a new base invalidates the earlier calibration.
            self.withdraw(segment);
        }
    }

    /// Publishes that there is no calibration.
    fn withdraw(&mut self, segment: &Segment<'_>) {
        if self.published.take().is_some()
            || segment.calibration().is_some_and(|old| old.multiplier != 0)
        {
            segment.publish_calibration(Calibration::default());
        }
    }

    /// Records a reading. Returns the calibration through it and the oldest reading that is kept.
    fn take(&mut self, sample: CounterSample) -> Option<Calibration> {
        let now = Nanos(sample.monotonic_ns);
        if let Some(published) = self.published
            && published.time(sample.counter).0.abs_diff(now.0) > BROKEN_NS
        {
            self.samples.clear();
            self.published = None;
        }
        while self.samples.len() > 1 && self.samples[1].monotonic_ns + BASE_NS <= now.0 {
            self.samples.pop_front();
        }
        let base = self.samples.front().copied();
        self.samples.push_back(sample);
        let Some(base) = base else {
            self.due = now.plus(FIRST_NS);
            return None;
        };
        // The next reading is due after a multiple of the base, so a short base is used only briefly.
        let base_ns = now.since(Nanos(base.monotonic_ns));
        self.due = now.plus((base_ns * 4).clamp(FIRST_NS, RENEW_NS));
        Calibration::between((base.counter, Nanos(base.monotonic_ns)), (sample.counter, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter of 3 GHz.
    fn sample(at_ns: u64) -> CounterSample {
        CounterSample { counter: at_ns * 3, monotonic_ns: at_ns, uncertainty_ns: 30 }
    }

    #[test]
    fn first_calibration_takes_two_readings() {
        let mut calibrator = Calibrator::default();
        let start = 5_000_000_000;
        assert_eq!(calibrator.take(sample(start)), None);
        let mut at = start;
        let mut intervals = Vec::new();
        for _ in 0..12 {
            intervals.push(calibrator.due().0 - at);
            at = calibrator.due().0;
            let calibration = calibrator.take(sample(at)).unwrap();
            assert!(calibration.time((at + 1_000_000) * 3).0.abs_diff(at + 1_000_000) <= 1);
            calibrator.published = Some(calibration);
        }
        assert_eq!(intervals[..4], [20_000_000, 80_000_000, 400_000_000, 500_000_000]);
        assert!(calibrator.samples.len() <= 8, "the base does not grow for ever");
    }

    #[test]
    fn stopped_counter_is_calibrated_again() {
        let mut calibrator = Calibrator::default();
        calibrator.take(sample(1_000_000_000));
        calibrator.published = calibrator.take(sample(1_500_000_000));
        let stopped = CounterSample { counter: 4_600_000_000, ..sample(9_000_000_000) };
        assert_eq!(calibrator.take(stopped), None, "starts a new base");
        let later = CounterSample { counter: 4_660_000_000, ..sample(9_020_000_000) };
        let calibration = calibrator.take(later).unwrap();
        let told = calibration.time(4_660_000_300);
        assert!(told.0.abs_diff(9_020_000_100) <= 1, "rounded down");
    }
}
