//! Times the table beside its contenders and prints the tables of
//! `bench/TABLE.md`.
//!
//! ```text
//! cargo run --profile bench -p hangwatch-bench --bin table_compare -- \
//!     [--huge] [--turns N] [--least] [--only TEXT]... [SIZE...]
//! ```
//!
//! Sizes are numbers of timers, 100 to 1,000,000 by default; `--huge` adds ten
//! million. The contenders take turns; the medians over the turns are printed,
//! or with `--least` the least, for a machine that is busy with other things.
//! `--only` keeps the contenders whose names contain one of the texts.

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

const USAGE: &str =
    "usage: table_compare [--huge] [--turns N] [--least] [--only TEXT]... [SIZE...]";

fn main() -> ExitCode {
    let Some(plan) = Plan::parse(env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    for timers in [1, 1_000, 20_000] {
        let report = check_all(timers);
        println!(
            "Checked at {timers} timers: every contender reported the same {} expiries, checksum {:016x}.",
            report.expired, report.checksum
        );
    }
    let runs: Vec<Run> = plan.sizes.iter().map(|&timers| Run::measure(timers, &plan)).collect();
    print_tables(&runs);
    ExitCode::SUCCESS
}

/// What the command line asks for.
#[derive(Clone)]
struct Plan {
    sizes: Vec<usize>,
    turns: usize,
    statistic: Statistic,
    /// Texts in the names of the contenders; empty means all.
    only: Vec<String>,
}

/// What is printed of the turns.
#[derive(Clone, Copy)]
enum Statistic {
    Median,
    Least,
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut plan =
            Self { sizes: Vec::new(), turns: 5, statistic: Statistic::Median, only: Vec::new() };
        let mut huge = false;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--huge" => huge = true,
                "--least" => plan.statistic = Statistic::Least,
                "--turns" => {
                    plan.turns = arguments.next()?.parse().ok().filter(|&turns| turns > 0)?;
                }
                "--only" => plan.only.push(arguments.next()?),
                size => plan.sizes.push(size.parse().ok().filter(|&size| size > 0)?),
            }
        }
        if plan.sizes.is_empty() {
            plan.sizes.extend(SIZES);
        }
        if huge {
            plan.sizes.push(HUGE);
        }
        Some(plan)
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| name.contains(text))
    }
}

/// One size: what every contender needed, turn by turn.
struct Run {
    timers: usize,
    contenders: Vec<(&'static str, Vec<Figures>)>,
    seed: u64,
    plan: Plan,
}

impl Run {
    fn measure(timers: usize, plan: &Plan) -> Self {
        let mut run = Self { timers, contenders: Vec::new(), seed: 0, plan: plan.clone() };
        for turn in 0..plan.turns {
            eprintln!("{timers} timers, turn {} of {}", turn + 1, plan.turns);
            run.seed = turn as u64;
            run.time::<Floor>();
            visit_all(&mut run);
        }
        run
    }

    fn ns(&self, contender: usize, work: usize) -> f64 {
        let turns = self.contenders[contender].1.iter();
        let mut ns: Vec<f64> = turns.map(|figures| figures.ns[work]).collect();
        ns.sort_by(f64::total_cmp);
        match self.plan.statistic {
            Statistic::Median => ns[ns.len() / 2],
            Statistic::Least => ns[0],
        }
    }

    fn time<I: DeadlineIndex>(&mut self) {
        let figures = time_all::<I>(self.timers, self.seed);
        match self.contenders.iter_mut().find(|(name, _)| *name == I::NAME) {
            Some((_, turns)) => turns.push(figures),
            None => self.contenders.push((I::NAME, vec![figures])),
        }
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
        if self.plan.wants(I::NAME) {
            self.time::<I>();
        }
    }
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
