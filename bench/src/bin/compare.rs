//! hangwatch beside its peers: measures, and writes the page, the figures and the plots.
//!
//! `cargo xtask bench` runs it, with the Python peers between its two halves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand};
use hangwatch_bench::compare::results::{Comparison, Results};
use hangwatch_bench::compare::{
    Mode, fleet, life, machine, markdown, observed, peers, plot, producers, signals, tables, ticks,
    worker,
};
use hangwatch_bench::process;

/// hangwatch beside its peers, in one run
#[derive(Debug, Parser)]
#[command(name = "compare")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Measures what is written in Rust, into a JSON file
    Measure {
        /// The file to write
        #[arg(long)]
        out: PathBuf,
        /// Few turns and sizes: a look, in a minute or two
        #[arg(long)]
        quick: bool,
        /// Only these parts: worker, producers, table, tick, signal, life, observed, fleet
        #[arg(long)]
        only: Vec<String>,
        /// Ten million timers too
        #[arg(long)]
        huge: bool,
    },
    /// Takes in what peers measured, and writes RESULTS.md, results.json and the plots
    Report {
        /// What `measure` wrote
        #[arg(long)]
        measured: PathBuf,
        /// JSON lines of a peer's program
        #[arg(long)]
        peer: Vec<PathBuf>,
        /// The folder to write into
        #[arg(long)]
        into: PathBuf,
    },
}

type Failed = Box<dyn std::error::Error>;
type Part = fn(Mode, bool) -> Result<Vec<Comparison>, Failed>;

const PARTS: [(&str, Part); 8] = [
    ("worker", |mode, _| Ok(worker::compare(mode))),
    ("producers", |mode, _| Ok(producers::compare(mode))),
    ("table", |mode, huge| Ok(tables::compare(mode, huge))),
    ("tick", |mode, _| Ok(ticks::compare(mode))),
    ("signal", |mode, _| signals::compare(mode)),
    ("life", |mode, _| life::compare(mode)),
    ("observed", |mode, _| observed::compare(mode)),
    ("fleet", |mode, _| Ok(vec![fleet::compare(mode)?])),
];

fn main() -> ExitCode {
    let done = process::play_role().and_then(|()| match Cli::parse().what {
        What::Measure { out, quick, only, huge } => {
            let mode = if quick { Mode::Quick } else { Mode::Full };
            measure(mode, huge, &only, &out)
        }
        What::Report { measured, peer, into } => report(&measured, &peer, &into),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and writes down each part when it is done.
fn measure(mode: Mode, huge: bool, only: &[String], out: &Path) -> Result<(), Failed> {
    let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = only.iter().find(|name| !parts.contains(&name.as_str())) {
        return Err(format!("there is no part {unknown:?}; parts are {}", parts.join(", ")).into());
    }
    let mut results = Results {
        taken_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        mode: mode.name().to_owned(),
        machine: machine::look(),
        comparisons: Vec::new(),
    };
    for (name, part) in PARTS {
        if only.is_empty() || only.iter().any(|wanted| wanted == name) {
            eprintln!("{name}");
            results.comparisons.extend(part(mode, huge)?);
            results.machine.load_after = machine::load();
            fs::write(out, serde_json::to_string_pretty(&results)? + "\n")?;
        }
    }
    Ok(())
}

fn report(measured: &PathBuf, files: &[PathBuf], into: &PathBuf) -> Result<(), Failed> {
    let mut results: Results = serde_json::from_str(&fs::read_to_string(measured)?)?;
    for file in files {
        peers::take_in(file, &mut results.comparisons)?;
    }
    fs::create_dir_all(into)?;
    plot::draw_all(&results.comparisons, &into.join("plots"))?;
    fs::write(into.join("results.json"), serde_json::to_string_pretty(&results)? + "\n")?;
    fs::write(into.join("RESULTS.md"), markdown::page(&results))?;
    eprintln!("wrote {}", into.join("RESULTS.md").display());
    Ok(())
}
