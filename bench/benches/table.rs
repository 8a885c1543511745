//! The table's hot calls beside its nearest contenders. All contenders, sizes
//! and works are in `table_compare` (`bench/TABLE.md`).

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use hangwatch_bench::table::{
    DeadlineIndex, IDLE,
    btree::BTree,
    exact::Exact,
    floor::Floor,
    lazy::LazyMinima,
    random::Random,
    wheel::Wheel,
    work::{filled, later},
};

const SIZES: [usize; 2] = [10_000, 1_000_000];

fn table(criterion: &mut Criterion) {
    for timers in SIZES {
        bench::<Floor>(criterion, timers);
        bench::<Exact>(criterion, timers);
        bench::<LazyMinima>(criterion, timers);
        bench::<Wheel>(criterion, timers);
        bench::<BTree>(criterion, timers);
    }
}

fn bench<I: DeadlineIndex>(criterion: &mut Criterion, timers: usize) {
    let mut random = Random::new(1);
    let mut index: I = filled(timers, &mut random);
    let mut group = criterion.benchmark_group("table");
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600));
    let name = I::NAME.replace(['*', '`', ':'], "");
    let id = |work: &str| BenchmarkId::new(format!("{work}/{name}"), timers);
    group.bench_function(id("churn pair"), |bencher| {
        bencher.iter(|| {
            let id = random.below(timers as u64) as usize;
            index.set(id, IDLE);
            index.set(id, later(0, &mut random));
        });
    });
    group.bench_function(id("re-arm"), |bencher| {
        bencher.iter(|| {
            index.set(random.below(timers as u64) as usize, later(0, &mut random));
        });
    });
    group.bench_function(id("idle tick"), |bencher| {
        bencher.iter(|| {
            index.pop_due(0, |id, _| unreachable!("{id} is not due"));
            index.next_deadline()
        });
    });
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
