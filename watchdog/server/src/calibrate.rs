//! The calibration of the processor's counter: two readings far enough apart, renewed for ever.
//!
//! [`Calibrator`] is the tick's; it reads and publishes within two microseconds and never waits: the
//! doorbell wakes the tick when the next reading is due.

use std::collections::VecDeque;

use hangwatch::sys::clock::{self, CounterSample};
use hangwatch_core::shared::calibration::{Calibration, RENEW_NS};
use hangwatch_core::wire::segment::Segment;
use hangwatch_core::wire::time::Nanos;

/// The least time between two readings, ns: at 50 ns either way, 5 millionths of error.
const FIRST_NS: u64 = 20_000_000;
/// How far apart readings are once there are enough, ns. The kernel steers its clock's rate, so an
/// older one would tell of another rate; over this one, 50 ns are 1/40 of a millionth.
const BASE_NS: u64 = 2_000_000_000;
/// A reading this far from what the last calibration said, ns, means that one of the two clocks was
/// stopped or set: twice what NTP's steering (1,000 ppm from one rate to the next) can do in
/// [`RENEW_NS`].
const BROKEN_NS: u64 = RENEW_NS / 500;

/// Keeps the segment's calibration.
#[derive(Debug, Default)]
pub(super) struct Calibrator {
    samples: VecDeque<CounterSample>,
    published: Option<Calibration>,
    due: Nanos,
}

/// Whether the kernel keeps time by the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    Counter,
    None,
}

impl Calibrator {
    /// When the next reading is due.
    pub(super) fn due(&self) -> Nanos {
        self.due
    }

    /// Reads and publishes, if that is due.
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
            // The first reading of a new base: what an earlier one said holds no longer.
            self.withdraw(segment);
        }
    }

    /// Nobody is to go on with what was published.
    fn withdraw(&mut self, segment: &Segment<'_>) {
        if self.published.take().is_some()
            || segment.calibration().is_some_and(|old| old.multiplier != 0)
        {
            segment.publish_calibration(Calibration::default());
        }
    }

    /// Takes in a reading: the calibration through it and the oldest one kept.
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
        // A short base is trusted for no more than some multiple of itself.
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
    fn the_first_calibration_takes_two_readings_and_later_ones_a_longer_base() {
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
    fn a_counter_that_was_stopped_is_calibrated_anew() {
        let mut calibrator = Calibrator::default();
        calibrator.take(sample(1_000_000_000));
        calibrator.published = calibrator.take(sample(1_500_000_000));
        let stopped = CounterSample { counter: 4_600_000_000, ..sample(9_000_000_000) };
        assert_eq!(calibrator.take(stopped), None, "a base of its own first");
        let later = CounterSample { counter: 4_660_000_000, ..sample(9_020_000_000) };
        let calibration = calibrator.take(later).unwrap();
        let told = calibration.time(4_660_000_300);
        assert!(told.0.abs_diff(9_020_000_100) <= 1, "rounded down");
    }
}
