//! What an acquire and its release cost, beside a bare clock read: a quick look, `cargo bench` tells
//! more.

use std::time::{Duration, Instant};

use hangwatch::{ClockKind, CreateOptions, Segment, WorkerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = format!("pair-{}", std::process::id());
    let segment = Segment::create(&name, CreateOptions::default())?;
    let first = hangwatch::sys::clock::sample_pair();
    std::thread::sleep(Duration::from_millis(50));
    let second = hangwatch::sys::clock::sample_pair();
    let at = |sample: hangwatch::sys::clock::CounterSample| {
        (sample.counter, hangwatch::Nanos(sample.monotonic_ns))
    };
    let calibration = hangwatch_core::calibration::Calibration::between(at(first), at(second));
    segment.words().publish_calibration(calibration.expect("the clock runs"));
    let kinds = [ClockKind::Counter, ClockKind::System, ClockKind::Coarse];
    let only = std::env::args().nth(2).map(|n| n.parse::<usize>().unwrap());
    for kind in
        kinds.into_iter().enumerate().filter(|(i, _)| only.is_none_or(|o| o == *i)).map(|(_, k)| k)
    {
        let worker = WorkerOptions::new().clock(kind).attach(name.as_str())?;
        std::thread::spawn(move || {
            let scope = worker.scope("pair").unwrap();
            let count: u32 = std::env::args().nth(1).map_or(3_000_000, |n| n.parse().unwrap());
            let start = Instant::now();
            for _ in 0..count {
                drop(scope.expires(Duration::from_secs(30)).unwrap());
            }
            let pair = start.elapsed() / count;
            let start = Instant::now();
            for _ in 0..count {
                std::hint::black_box(hangwatch::sys::clock::monotonic_ns());
            }
            println!("{kind:?}: pair {pair:?}, clock read {:?}", start.elapsed() / count);
        })
        .join()
        .unwrap();
    }
    Segment::remove(&name)?;
    Ok(())
}
