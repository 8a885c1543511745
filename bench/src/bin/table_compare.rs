//! Times the table beside its contenders and prints the tables of
//! `bench/TABLE.md`.
//!
//!     cargo run --profile bench -p hangwatch-bench --bin table_compare -- [--huge] [--repeats N] [SIZE...]
//!
//! Sizes are numbers of timers, 100 to 1,000,000 by default; `--huge` adds ten
//! million. The contenders take turns, and the medians over the turns are
//! printed.

use std::{env, process::ExitCode};

use hangwatch_bench::table::{
    DeadlineIndex, Visitor,
    check::check_all,
    floor::Floor,
    visit_all,
    work::{Figures, MIXED, WORKS, time_all},
};

const SIZES: [usize; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];
const HUGE: usize = 10_000_000;
/// Works in which the floor, an array store, does the same number of sets.
const FLOOR_WORKS: [&str; 4] =
    ["churn pair", "re-arm", "mixed, with expiry", "heartbeats in order"];

fn main() -> ExitCode {
    let (mut sizes, mut repeats, mut huge) = (Vec::new(), 5, false);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let number = |text: Option<String>| text.and_then(|text| text.parse::<usize>().ok());
        match argument.as_str() {
            "--huge" => huge = true,
            "--repeats" => repeats = number(arguments.next()).unwrap_or(repeats).max(1),
            _ => match number(Some(argument)) {
                Some(size) if size > 0 => sizes.push(size),
                _ => {
                    eprintln!("usage: table_compare [--huge] [--repeats N] [SIZE...]");
                    return ExitCode::from(2);
                }
            },
        }
    }
    if sizes.is_empty() {
        sizes.extend(SIZES);
    }
    if huge {
        sizes.push(HUGE);
    }
    for timers in [1, 1_000, 20_000] {
        let report = check_all(timers);
        println!(
            "Checked at {timers} timers: every contender reported the same {} expiries, checksum {:016x}.",
            report.expired, report.checksum
        );
    }
    let runs: Vec<Run> = sizes.iter().map(|&timers| Run::measure(timers, repeats)).collect();
    print_tables(&runs);
    ExitCode::SUCCESS
}

/// One size: what every contender needed, turn by turn.
struct Run {
    timers: usize,
    contenders: Vec<(&'static str, Vec<Figures>)>,
    seed: u64,
}

impl Run {
    fn measure(timers: usize, repeats: usize) -> Self {
        let mut run = Self { timers, contenders: Vec::new(), seed: 0 };
        for turn in 0..repeats {
            eprintln!("{timers} timers, turn {} of {repeats}", turn + 1);
            run.seed = turn as u64;
            run.visit::<Floor>();
            visit_all(&mut run);
        }
        run
    }

    fn ns(&self, contender: usize, work: usize) -> f64 {
        median(self.contenders[contender].1.iter().map(|figures| figures.ns[work]))
    }

    /// The least over the turns of the longest call: an interrupt is not the
    /// contender's fault, and would have to come every time.
    fn worst_ns(&self, contender: usize, call: usize) -> u64 {
        let turns = self.contenders[contender].1.iter();
        turns.map(|figures| figures.worst_ns[call]).min().unwrap_or(0)
    }
}

impl Visitor for Run {
    fn visit<I: DeadlineIndex>(&mut self) {
        let figures = time_all::<I>(self.timers, self.seed);
        match self.contenders.iter_mut().find(|(name, _)| *name == I::NAME) {
            Some((_, turns)) => turns.push(figures),
            None => self.contenders.push((I::NAME, vec![figures])),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_tables(runs: &[Run]) {
    for (work, name) in WORKS.iter().enumerate() {
        let against_floor = FLOOR_WORKS.contains(name);
        let basis = if against_floor { "the floor" } else { "hangwatch" };
        println!("\n### {name}\n\nns an operation (x {basis})\n");
        print_head(runs);
        let basis = usize::from(!against_floor);
        for (contender, (name, _)) in runs[0].contenders.iter().enumerate().skip(basis) {
            print_row(name, runs, |run| {
                let ns = run.ns(contender, work);
                format!("{} ({:.1})", short(ns), ns / run.ns(basis, work).max(0.01))
            });
        }
    }
    for (call, name) in ["tick", "set"].iter().enumerate() {
        println!("\n### longest single {name} of \"{}\"\n\nmicroseconds\n", WORKS[MIXED]);
        print_head(runs);
        for (contender, (name, _)) in runs[0].contenders.iter().enumerate().skip(1) {
            print_row(name, runs, |run| {
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53 ns")]
                let us = run.worst_ns(contender, call) as f64 / 1e3;
                short(us)
            });
        }
    }
}

fn print_head(runs: &[Run]) {
    print_row("timers", runs, |run| run.timers.to_string());
    print_row("---", runs, |_| "---:".to_owned());
}

fn print_row(name: &str, runs: &[Run], cell: impl Fn(&Run) -> String) {
    let cells: Vec<String> = runs.iter().map(cell).collect();
    println!("| {name} | {} |", cells.join(" | "));
}

/// Three digits or so.
fn short(value: f64) -> String {
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}
