//! What hangwatch must reach, measured in one run: `bench/RESULTS.md` holds what it prints.
//!
//! `cargo run --release -p hangwatch-bench --bin targets [FEW]`: with any argument fewer samples are
//! taken, for a quick look.

use std::time::Duration;

use hangwatch::{ClockKind, Geometry};
use hangwatch_bench::measure::{median, quantile};
use hangwatch_bench::pair::Bench;
use hangwatch_bench::stage::{Stage, default_lanes, small_lanes};
use hangwatch_bench::{cost, latency, process};

type Failed = Box<dyn std::error::Error>;

/// How much is measured.
#[derive(Clone, Copy)]
struct Samples {
    /// Rounds of a pair and a clock read.
    pair: usize,
    /// Ticks, and drains.
    ticks: usize,
    /// Signals.
    signals: usize,
    /// How long the idle server is watched.
    idle: Duration,
}

const MANY: Samples = Samples { pair: 501, ticks: 401, signals: 60, idle: Duration::from_secs(10) };
const FEW: Samples = Samples { pair: 51, ticks: 41, signals: 7, idle: Duration::from_secs(2) };

fn main() -> Result<(), Failed> {
    process::play_role()?;
    let samples = if std::env::args().nth(1).is_some() { FEW } else { MANY };
    println!("| what | measured | must reach | better | |");
    println!("| --- | --- | --- | --- | --- |");
    pairs(samples.pair);
    drain(samples.ticks);
    ticks(samples.ticks);
    signals(samples.signals)?;
    idle(samples.idle)?;
    lane_size()?;
    Ok(())
}

/// One line: `measured` against the most it may be.
fn line(what: &str, measured: f64, must: f64, better: f64, unit: &str) {
    let verdict = match measured {
        value if value <= better => "better",
        value if value <= must => "reached",
        _ => "**missed**",
    };
    println!("| {what} | {measured:.2}{unit} | {must:.2}{unit} | {better:.2}{unit} | {verdict} |");
}

fn pairs(rounds: usize) {
    let bench = Bench::new();
    let targets = [
        (ClockKind::Counter, "counter (TSC)", 1.5, 1.3),
        (ClockKind::System, "system, two reads", 2.5, 2.3),
        (ClockKind::Coarse, "coarse", 0.6, 0.5),
    ];
    for (kind, name, must, better) in targets {
        let (pair_ns, clock_ns) = bench.beside_clock(kind, rounds);
        let what = format!(
            "acquire + release, {name}: {pair_ns:.1} ns beside a `clock_gettime` of {clock_ns:.1} ns"
        );
        line(&what, pair_ns / clock_ns, must, better, " x");
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of some thousand")]
fn drain(rounds: usize) {
    let mut stage = Stage::new(default_lanes(64));
    let ns_each: Vec<f64> = (0..rounds)
        .map(|_| {
            let (took, drained) = stage.time_drain(256);
            took.as_secs_f64() * 1e9 / drained as f64
        })
        .collect();
    let ns = median(&ns_each);
    let what = format!("drain and apply, ns a record, quiet producers ({:.0} million/s)", 1e3 / ns);
    line(&what, ns, 1e3 / 300.0, 1e3 / 500.0, " ns");
}

fn ticks(rounds: usize) {
    let us = |took: Duration| took.as_secs_f64() * 1e6;
    let mut stage = Stage::new(default_lanes(1024));
    let idle: Vec<f64> = (0..rounds).map(|_| us(stage.time_idle_tick())).collect();
    line("tick, nothing due, 1,024 lanes x 64 timers", median(&idle), 50.0, 30.0, " us");
    let storm: Vec<f64> = (0..rounds / 10).map(|_| us(stage.time_mass_expiry(10_000))).collect();
    line("tick, 10,000 timers expire at once, signals aside", median(&storm), 5e3, 5e3, " us");
    let mut stage = Stage::new(small_lanes(16_384));
    let idle: Vec<f64> = (0..rounds / 4).map(|_| us(stage.time_idle_tick())).collect();
    line("tick, nothing due, 16,384 lanes x 64 timers", median(&idle), 1e3, 1e3, " us");
}

fn signals(samples: usize) -> Result<(), Failed> {
    for ahead in [Duration::from_millis(5), Duration::from_millis(250)] {
        let late = latency::measure(ahead, samples)?;
        let (ours, limit) = (median(&late.hangwatch), median(&late.limit));
        let what = format!(
            "deadline {ahead:?} ahead to the signal, median: {:.0} us beside the machine's own {:.0} us",
            ours / 1e3,
            limit / 1e3
        );
        line(&what, ours / limit, 1.5, 1.2, " x");
        let (ours, limit) = (quantile(&late.hangwatch, 0.99), quantile(&late.limit, 0.99));
        let what = format!("the same, p99: {:.0} us beside {:.0} us", ours / 1e3, limit / 1e3);
        line(&what, ours / limit, 2.0, 2.0, " x");
    }
    Ok(())
}

fn idle(span: Duration) -> Result<(), Failed> {
    let used = cost::idle_server(1024, span)?;
    line("the watchdog's own, 1,024 idle lanes, of one core", used * 100.0, 0.2, 0.2, " %");
    Ok(())
}

fn lane_size() -> Result<(), Failed> {
    let bytes = Geometry::default().check()?.lane_bytes();
    #[expect(clippy::cast_precision_loss, reason = "some thousand bytes")]
    line("a default lane", bytes as f64 / 1024.0, 32.0, 32.0, " KiB");
    Ok(())
}
