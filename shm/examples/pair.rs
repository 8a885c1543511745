//! What an acquire and its release cost with each clock, beside a bare clock read: a quick look,
//! `cargo bench` tells more. Arguments: pairs a round (default 20,000), and which clock (0 to 2).

use std::hint::black_box;
use std::time::{Duration, Instant};

use hangwatch::sys::clock;
use hangwatch::{ClockKind, CreateOptions, Nanos, Scope, Segment, WorkerOptions};
use hangwatch_core::calibration::Calibration;

const ROUNDS: usize = 101;
const CLOCKS: [ClockKind; 3] = [ClockKind::Counter, ClockKind::System, ClockKind::Coarse];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let pairs = args.next().transpose()?.unwrap_or(20_000);
    let only = args.next().transpose()?;
    let name = format!("pair-{}", std::process::id());
    let segment = Segment::create(&name, CreateOptions::default())?;
    calibrate(segment);
    for (index, kind) in CLOCKS.into_iter().enumerate() {
        if only.is_some_and(|only| only != index) {
            continue;
        }
        let worker = WorkerOptions::new().clock(kind).attach(name.as_str())?;
        // A thread each: a lane has one clock.
        let time = move || time_beside_clock(worker.scope("pair").expect("a name"), pairs);
        let (pair_ns, clock_ns) = std::thread::spawn(time).join().expect("it ran");
        let ratio = pair_ns / clock_ns;
        println!("{kind:?}: pair {pair_ns:.1} ns, clock {clock_ns:.1} ns, ratio {ratio:.2}");
    }
    Segment::remove(&name)?;
    Ok(())
}

/// Publishes the counter's rate, as a watchdog would.
fn calibrate(segment: Segment) {
    let sample = || {
        let sample = clock::sample_pair();
        (sample.counter, Nanos(sample.monotonic_ns))
    };
    let first = sample();
    std::thread::sleep(Duration::from_millis(50));
    let calibration = Calibration::between(first, sample()).expect("the clock runs");
    segment.words().publish_calibration(calibration);
}

/// The medians of many short rounds of either, in turn: what disturbs one disturbs the other.
fn time_beside_clock(scope: Scope, pairs: usize) -> (f64, f64) {
    let mut rounds = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rounds.0.push(ns_each(pairs, || {
            let guard = scope.expires(Duration::from_secs(30)).expect("a free timer");
            black_box(&guard);
        }));
        rounds.1.push(ns_each(pairs, || {
            black_box(clock::monotonic_ns());
        }));
    }
    (median(rounds.0), median(rounds.1))
}

#[expect(clippy::cast_precision_loss, reason = "a count of a few million")]
fn ns_each(count: usize, mut once: impl FnMut()) -> f64 {
    let start = Instant::now();
    (0..count).for_each(|_| once());
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}
