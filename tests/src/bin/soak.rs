//! The soak: every part in full, or for a time; ends with a table, and with 1 where anything was lost
//! or anybody wrongly killed. Started by `cargo xtask soak`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use hangwatch_tests::random::fresh_seed;
use hangwatch_tests::soak::{self, PARTS, Part};

/// Inject every fault many times, and count what was lost
#[derive(Debug, Parser)]
#[command(name = "cargo xtask soak")]
struct Options {
    /// Do again what a run with this seed did [default: another each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Stop after so many minutes, shared equally by the parts [default: the full counts]
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,

    /// Inject so many faults of a part; may be given several times
    #[arg(long, value_name = "PART=N", value_parser = part_count)]
    count: Vec<(&'static str, u64)>,

    /// Run this part only; may be given several times
    #[arg(long, value_name = "PART", value_parser = part_name)]
    only: Vec<&'static str>,
}

fn part_name(name: &str) -> Result<&'static str, String> {
    let known = || PARTS.iter().map(|part| part.name).collect::<Vec<_>>().join(", ");
    let part = PARTS.iter().find(|part| part.name == name);
    part.map(|part| part.name).ok_or_else(|| format!("the parts are: {}", known()))
}

fn part_count(text: &str) -> Result<(&'static str, u64), String> {
    let (name, count) = text.split_once('=').ok_or("must be PART=N")?;
    Ok((part_name(name)?, count.parse().map_err(|error| format!("{error}"))?))
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(fresh_seed);
    println!("seed {seed}");
    let chosen = |part: &&Part| options.only.is_empty() || options.only.contains(&part.name);
    let parts: Vec<&Part> = PARTS.iter().filter(chosen).collect();
    let from = Instant::now();
    let mut rows = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let left = u32::try_from(parts.len() - index).expect("there are few parts");
        // What a part leaves of its share goes to those after it.
        let until = options.minutes.map(|minutes| {
            let whole = Duration::from_secs_f64(minutes * 60.0);
            Instant::now() + whole.saturating_sub(from.elapsed()) / left
        });
        let given = options.count.iter().rev().find(|(name, _)| *name == part.name);
        let count = given.map_or(part.full, |(_, count)| *count);
        println!("-- {}: {} x {count}", part.name, part.fault);
        let began = Instant::now();
        let tally = soak::run(part, seed, count, until);
        println!("-- {}: {:.1} s, {tally:?}", part.name, began.elapsed().as_secs_f64());
        rows.push((*part, tally));
    }
    println!("{}\nseed {seed}, {:.1} s", soak::table(&rows), from.elapsed().as_secs_f64());
    if rows.iter().all(|(_, tally)| tally.is_clean()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
