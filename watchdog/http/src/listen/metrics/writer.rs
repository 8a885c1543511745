//! Writes metrics: one value, several values of one name, and histograms.

use std::fmt;

use hangwatch_core::wire::stats::{Counts, bucket};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The upper bounds of the buckets, as powers of two in ns. They are also bounds of the shared histograms, so
/// that every count is exact. From 1 us in steps of 4 to 1 ms, then in steps of 2 to 73 minutes.
const BOUNDS: [u32; 28] = [
    10, 12, 14, 16, 18, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38,
    39, 40, 41, 42,
];

/// Writes one page.
pub(super) struct Writer<'a>(pub(super) DescriptorEncoder<'a>);

impl Writer<'_> {
    pub(super) fn one(
        &mut self,
        name: &str,
        help: &str,
        metric: &impl EncodeMetric,
    ) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, None, metric.metric_type())?)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        self.one(name, help, &ConstCounter::new(count))
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: usize) -> fmt::Result {
        self.one(name, help, &ConstGauge::new(value as u64))
    }

    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, usize)>,
    ) -> fmt::Result {
        let values = values.into_iter();
        self.family(name, help, values.map(|(of, value)| (of, ConstGauge::new(value as u64))))
    }

    /// Writes several metrics of one name, or nothing if there are none.
    pub(super) fn family<L: EncodeLabelSet, M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        metrics: impl IntoIterator<Item = (L, M)>,
    ) -> fmt::Result {
        let mut metrics = metrics.into_iter().peekable();
        let Some((_, first)) = metrics.peek() else { return Ok(()) };
        let mut encoder = self.0.encode_descriptor(name, help, None, first.metric_type())?;
        for (labels, metric) in metrics {
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A histogram of the segment, in the buckets of [`BOUNDS`].
pub(super) struct Histogram<'a>(pub(super) &'a Counts);

impl EncodeMetric for Histogram<'_> {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let Histogram(counts) = *self;
        let mut buckets = Vec::with_capacity(BOUNDS.len() + 1);
        let mut from = 0;
        for bound in BOUNDS {
            let until = bucket(1 << bound);
            // The last duration below the bound: OpenMetrics counts less than or equal.
            buckets.push((seconds((1 << bound) - 1), sum(&counts.buckets[from..until])));
            from = until;
        }
        buckets.push((f64::INFINITY, sum(&counts.buckets[from..])));
        let count = counts.released();
        encoder.encode_histogram::<NoLabelSet>(seconds(counts.sum_ns), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
}

#[expect(clippy::cast_precision_loss, reason = "seconds with a fraction are for reading")]
pub(super) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
