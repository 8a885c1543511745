//! Draining the rings and applying what they say, per record, every check included.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hangwatch_bench::stage::{LiveProducer, Stage, default_lanes};

fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    group.throughput(Throughput::Elements(1));
    let mut stage = Stage::new(default_lanes(64));
    for records in [16, 256] {
        group.bench_function(format!("drain and apply, quiet, {records} a lane"), |bencher| {
            bencher.iter_custom(|count| {
                let (mut took, mut drained) = (Duration::ZERO, 0);
                while drained < count {
                    let (time, records) = stage.time_drain(records);
                    (took, drained) = (took + time, drained + records as u64);
                }
                scaled(took, count, drained)
            });
        });
    }
    let producer = LiveProducer::start(&mut stage);
    group.bench_function("drain and apply, a producer live", |bencher| {
        bencher.iter_custom(|count| {
            let (took, drained) = stage.time_live_drain(count);
            scaled(took, count, drained)
        });
    });
    drop(producer);
    group.finish();
}

/// The time of `count` of the `drained` records.
#[expect(clippy::cast_precision_loss, reason = "counts of some million")]
fn scaled(took: Duration, count: u64, drained: u64) -> Duration {
    took.mul_f64(count as f64 / drained as f64)
}

criterion_group!(benches, ring);
criterion_main!(benches);
