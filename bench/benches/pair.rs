//! Acquire and release on the worker with each clock, beside a bare `clock_gettime`.

use criterion::{Criterion, criterion_group, criterion_main};
use hangwatch_bench::pair::{Bench, CLOCKS, clock_read, pair};

fn pairs(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("pair");
    group.bench_function("clock_gettime", |bencher| bencher.iter(clock_read));
    for kind in CLOCKS {
        bench.calibrate();
        let name = format!("{kind:?}").to_lowercase();
        // A calibration holds for three seconds: renewed between the samples, as a watchdog would.
        group.bench_function(name, |bencher| {
            bench.with_scope(kind, |scope| {
                bencher.iter_custom(|count| {
                    bench.calibrate();
                    let start = std::time::Instant::now();
                    (0..count).for_each(|_| pair(&scope));
                    start.elapsed()
                });
            });
        });
    }
    group.finish();
}

criterion_group!(benches, pairs);
criterion_main!(benches);
