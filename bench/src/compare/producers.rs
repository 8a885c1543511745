//! Many producers at once: whether they slow each other.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::Barrier;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use hangwatch::{ClockKind, Segment, WorkerOptions};
use rustix::time::{ClockId, clock_gettime};

use super::Mode;
use super::results::{Comparison, Contender, Side, Spread};
use crate::pair::{Bench, pair};

/// What ratios are to: work that shares nothing.
pub const CONTROL: &str = "control: registers only";
/// hangwatch, a lane each.
pub const LANES: &str = "**hangwatch**, a lane each";

/// How many there are at once.
pub const PRODUCERS: [usize; 5] = [1, 2, 4, 8, 16];
const PAIRS: usize = 100_000;

/// Every number of producers, with every contender in turn.
pub fn compare(mode: Mode) -> Vec<Comparison> {
    let turns = mode.of(41, 5);
    let bench = Bench::new();
    let works: [(&str, Side, Work); 3] = [
        (CONTROL, Side::Limit, Work::Control),
        (LANES, Side::Ours, Work::Lanes(bench.segment())),
        ("crossbeam `ArrayQueue`, shared", Side::Variant, Work::Queue),
    ];
    let mut turns_of = vec![vec![Vec::new(); PRODUCERS.len()]; works.len()];
    for _ in 0..turns {
        for (point, &producers) in PRODUCERS.iter().enumerate() {
            bench.calibrate();
            for (work, turns) in works.iter().zip(&mut turns_of) {
                turns[point].push(turn(&work.2, producers));
            }
        }
    }
    let contender = |(work, turns): (&(&str, Side, Work), &Vec<Vec<f64>>)| Contender {
        name: work.0.to_owned(),
        side: work.1,
        figures: turns.iter().map(|turns| Some(Spread::of(turns))).collect(),
        distribution: Vec::new(),
    };
    vec![Comparison {
        id: "producers".to_owned(),
        title: "Producers at once".to_owned(),
        how: "Each thread does pairs as fast as it can, by the counter; its own processor time is counted, so that \
              threads beyond the cores wait at nobody's cost but share caches and memory. The \
              control is a chain of multiplications in registers of about a pair's length: where it \
              slows down, the machine did. The shared queue is one that overwrites its oldest, so \
              that nobody needs to read; it carries records and no more, so what it costs alone is not what is \
              compared, but what each further producer adds."
            .to_owned(),
        unit: "ns of processor time a pair".to_owned(),
        axis: "producers".to_owned(),
        points: PRODUCERS.map(|number| number.to_string()).to_vec(),
        basis: CONTROL.to_owned(),
        contenders: works.iter().zip(&turns_of).map(contender).collect(),
    }]
}

/// How much more a pair costs at `point` than alone, beyond what the control did.
pub fn slowdown(comparison: &Comparison, point: usize) -> Option<f64> {
    Some(comparison.ratio(LANES, point)? / comparison.ratio(LANES, 0)?)
}

enum Work {
    Control,
    Lanes(Segment),
    Queue,
}

/// The mean processor time of a pair over all producers, ns.
#[expect(clippy::cast_precision_loss, reason = "a few producers")]
fn turn(work: &Work, producers: usize) -> f64 {
    let ready = Arc::new(Barrier::new(producers));
    let shared = Arc::new(ArrayQueue::new(4096));
    let body = |ready: Arc<Barrier>| -> f64 {
        match work {
            Work::Control => cpu_ns(&ready, || {
                let chain = (0..28).fold(black_box(3_u64), |last, _| last.wrapping_mul(last | 1));
                black_box(chain);
            }),
            Work::Lanes(segment) => {
                let worker = WorkerOptions::new()
                    .clock(ClockKind::Counter)
                    .attach_to(*segment)
                    .expect("a free lane");
                let scope = worker.scope("pair").expect("a name");
                cpu_ns(&ready, || pair(&scope))
            }
            Work::Queue => cpu_ns(&ready, || {
                shared.force_push(black_box([1_u64, 2, 3, 4]));
                shared.force_push(black_box([1_u64, 2, 3, 4]));
            }),
        }
    };
    std::thread::scope(|threads| {
        let all: Vec<_> = (0..producers)
            .map(|_| {
                let ready = Arc::clone(&ready);
                threads.spawn(|| body(ready))
            })
            .collect();
        let sum: f64 = all.into_iter().map(|one| one.join().expect("it ran")).sum();
        sum / producers as f64
    })
}

#[expect(clippy::cast_precision_loss, reason = "less than a second")]
fn cpu_ns(ready: &Barrier, mut once: impl FnMut()) -> f64 {
    (0..100).for_each(|_| once());
    ready.wait();
    let before = thread_time();
    (0..PAIRS).for_each(|_| once());
    thread_time().saturating_sub(before).as_nanos() as f64 / PAIRS as f64
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
