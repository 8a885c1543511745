//! The options of `hangwatch demo` and of its workers.

use std::path::PathBuf;

use clap::Args;

use super::Evidence;

/// The options of `hangwatch demo`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    only the worker that hung was killed, and the results of the others are
       right, or their files changed meanwhile
  125  anything else

Examples:
  hangwatch demo
  hangwatch demo --workers 8 /usr/share/doc")]
pub struct Demo {
    /// The directory whose files the workers hash
    ///
    /// Files that change meanwhile are not compared, and the output says so.
    #[arg(id = "hashed", value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,

    /// How many workers to start, 4 to 64
    #[arg(long, value_name = "N", default_value_t = 4,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(4..=64))]
    pub workers: u32,

    /// What is captured of the worker that hangs, and where it is stored.
    #[command(flatten)]
    pub evidence: Evidence,
}

/// The options of one worker of the demo; the demo starts it.
#[derive(Debug, Args)]
pub struct DemoWorker {
    /// How the worker ends. Standard input names the files that it hashes.
    #[arg(long, value_enum)]
    pub fate: Fate,
}

/// How a worker of the demo ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fate {
    /// It finishes.
    Finish,
    /// Two of its threads take two locks in opposite order.
    Deadlock,
    /// It aborts.
    Crash,
}
