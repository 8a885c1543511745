//! The hot tick path: every lane attached, every timer armed, the sweep included.

use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hangwatch_bench::stage::{Stage, default_lanes, small_lanes};

fn tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tick");
    group.sample_size(20);
    let mut stage = Stage::new(default_lanes(1024));
    group.bench_function(BenchmarkId::new("idle", 1024), |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| stage.time_idle_tick()).sum());
    });
    for records in [1, 16] {
        let id = BenchmarkId::new(format!("busy, {records} records a lane"), 1024);
        group.bench_function(id, |bencher| {
            bencher.iter_custom(|count| {
                let tick = |_| {
                    stage.write_news(records);
                    let start = Instant::now();
                    stage.tick();
                    start.elapsed()
                };
                (0..count).map(tick).sum()
            });
        });
    }
    group.bench_function(BenchmarkId::new("10,000 expiries", 1024), |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| stage.time_mass_expiry(10_000)).sum());
    });
    let mut stage = Stage::new(small_lanes(16_384));
    group.bench_function(BenchmarkId::new("idle", 16_384), |bencher| {
        bencher.iter_custom(|count| (0..count).map(|_| stage.time_idle_tick()).sum());
    });
    group.finish();
}

criterion_group!(benches, tick);
criterion_main!(benches);
