//! How many instructions the hot paths execute, by callgrind, beside the committed figures.
//!
//! Wall time is too noisy for CI; these counts repeat. `cargo xtask bench instructions` compares them
//! with `bench/instructions.json`, `--accept` writes that file anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};
use hangwatch::{ClockKind, Scope};
use hangwatch_bench::pair::{Bench, pair};
use hangwatch_bench::stage::{Stage, default_lanes};
use hangwatch_core::shared::calibration::VALID_NS;

/// A count may differ by this fraction from the committed one: compilers differ a little.
const TOLERANCE: f64 = 0.05;
/// Counted twice: what both have in common is not the work's.
const COUNTS: [u32; 2] = [200, 1200];

/// Instruction counts of the hot paths
#[derive(Debug, Parser)]
#[command(name = "instructions")]
struct Cli {
    /// The committed figures
    #[arg(long, default_value = "bench/instructions.json")]
    file: PathBuf,
    /// Write what was counted to that file instead
    #[arg(long)]
    accept: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Does one work so many times: what runs under callgrind
    #[command(hide = true)]
    Run {
        /// Which
        work: String,
        /// How often
        count: u32,
    },
}

type Failed = Box<dyn std::error::Error>;
type Work = fn(u32);

const COUNTER: &str = "pair, counter clock";

const WORKS: [(&str, Work); 7] = [
    (COUNTER, |count| pairs(ClockKind::Counter, count, pair)),
    ("pair, system clock", |count| pairs(ClockKind::System, count, pair)),
    ("pair, coarse clock", |count| pairs(ClockKind::Coarse, count, pair)),
    ("pair, time passed in", |count| {
        let now = hangwatch::now();
        pairs(ClockKind::System, count, |scope| {
            let allowance = Duration::from_hours(1);
            let guard = scope.expires_at(now, allowance).expect("a free timer");
            std::hint::black_box(&guard);
            guard.release_at(now);
        });
    }),
    ("drain and apply, a lane's 64 records", |count| {
        let mut stage = Stage::new(default_lanes(1));
        (0..count).for_each(|_| {
            stage.time_drain(64);
        });
    }),
    ("tick, nothing due, 16 lanes of 64 timers", |count| {
        let mut stage = Stage::new(default_lanes(16));
        (0..count).for_each(|_| {
            stage.time_idle_tick();
        });
    }),
    ("tick, 64 expiries in 16 lanes", |count| {
        let mut stage = Stage::new(default_lanes(16));
        (0..count).for_each(|_| {
            stage.time_mass_expiry(64);
        });
    }),
];

fn pairs(kind: ClockKind, count: u32, once: impl Fn(&Scope) + Sync) {
    Bench::new().with_scope(kind, |scope| {
        if kind == ClockKind::Counter {
            trust_counter(&scope);
        }
        (0..count).for_each(|_| once(&scope));
    });
}

/// Has the worker read both clocks until it trusts the counter: two good readings prove the rate. The
/// first is lost, as Valgrind translates the code between its two clocks.
#[inline(never)]
fn trust_counter(scope: &Scope) {
    for _ in 0..3 {
        pair(scope);
        std::thread::sleep(Duration::from_nanos(VALID_NS + VALID_NS / 10));
    }
    pair(scope);
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.what {
        Some(What::Run { work, count }) => {
            let known = WORKS.iter().find(|(name, _)| *name == work);
            known.map(|(_, work)| work(count)).ok_or_else(|| format!("no work {work:?}").into())
        }
        None => count_all().and_then(|counted| judge(&cli, &counted)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn count_all() -> Result<BTreeMap<String, u64>, Failed> {
    let each = |name: &str| -> Result<u64, Failed> {
        let [few, many] = COUNTS.map(|count| least_collected(name, count));
        Ok((many? - few?) / u64::from(COUNTS[1] - COUNTS[0]))
    };
    WORKS.iter().map(|(name, _)| Ok(((*name).to_owned(), each(name)?))).collect()
}

/// The instructions of a whole run, the least of several: a machine that does other things beside can
/// keep a worker from trusting its counter, and so only ever adds some.
fn least_collected(work: &str, count: u32) -> Result<u64, Failed> {
    let runs = if work == COUNTER { 4 } else { 1 };
    let runs = (0..runs).map(|_| collected(work, count));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    Ok(runs.into_iter().min().expect("it ran"))
}

/// The instructions of a whole run.
fn collected(work: &str, count: u32) -> Result<u64, Failed> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["run", work, &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}; install it"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{work:?} failed under valgrind:\n{text}").into());
    }
    let line = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, number) = line.ok_or_else(|| format!("callgrind told no count:\n{text}"))?;
    Ok(number.trim().parse()?)
}

fn judge(cli: &Cli, counted: &BTreeMap<String, u64>) -> Result<(), Failed> {
    if cli.accept {
        fs::write(&cli.file, serde_json::to_string_pretty(counted)? + "\n")?;
        println!("wrote {}", cli.file.display());
        return Ok(());
    }
    let committed: BTreeMap<String, u64> = serde_json::from_str(&fs::read_to_string(&cli.file)?)?;
    println!("{:<44} {:>9} {:>9} {:>7}", "work", "committed", "counted", "change");
    let mut off = Vec::new();
    for (name, &now) in counted {
        let Some(&before) = committed.get(name) else {
            off.push(name.as_str());
            println!("{name:<44} {:>9} {now:>9}", "-");
            continue;
        };
        #[expect(clippy::cast_precision_loss, reason = "some thousand instructions")]
        let change = now as f64 / before as f64 - 1.0;
        println!("{name:<44} {before:>9} {now:>9} {:>+6.1}%", change * 100.0);
        if change.abs() > TOLERANCE {
            off.push(name);
        }
    }
    if off.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} differ from {} by more than {:.0} %; where that is meant, accept them by `cargo xtask \
         bench instructions --accept` and say in the commit what they bought",
        off.join(", "),
        cli.file.display(),
        TOLERANCE * 100.0
    )
    .into())
}
