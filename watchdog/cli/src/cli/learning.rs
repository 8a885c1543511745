#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of `scopes`, `learn` and `shadow`, which help to choose deadlines.

use std::path::PathBuf;

use clap::Args;

use super::{ENVIRONMENT, Observed};

const FORMULA: &str = "\
The suggested deadline:
  factor x (longest acquire seen + resolution of the clock), at least 1s,
  rounded up to a round number. It is never less than the longest acquire seen.
  The factor depends on how many acquires have ended, which gives the confidence:
  below 100 poor, 10 x; below 1,000 fair, 5 x; below 10,000 good, 3 x; else high,
  2 x. After n similar acquires, the chance that the next one takes longer than
  all of them is 1 in n + 1. Acquires that expired or still run do not count.";

/// The options of `hangwatch scopes`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{FORMULA}

A quantile marked with ? is unreliable: fewer than ten acquires were longer.

{ENVIRONMENT}

Examples:
  hangwatch scopes
  hangwatch scopes --segment train --json"))]
pub struct Scopes {
    /// Which segments, and the output format.
    #[command(flatten)]
    pub observed: Observed,
}

/// The options of `hangwatch shadow`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{ENVIRONMENT}

Example:
  hangwatch run --segment train --notify-only --deadlines deadlines.toml
  hangwatch shadow --segment train                 a day later"))]
pub struct Shadow {
    /// Which segments, and the output format.
    #[command(flatten)]
    pub observed: Observed,
}

/// The options of `hangwatch learn`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{FORMULA}

{ENVIRONMENT}

Examples:
  hangwatch learn --segment train                  print only
  hangwatch learn --segment train -o deadlines.toml
  hangwatch learn --segment train -o deadlines.toml --merge
  hangwatch run --segment train --notify-only --deadlines deadlines.toml"))]
pub struct Learn {
    /// The segment's name [default: HANGWATCH_SEGMENT, else the only readable one]
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The file to write; - for standard output [default: -]
    ///
    /// If the file exists, --merge or --replace is needed. The file is written completely or
    /// not at all.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Update an existing file: raise deadlines that are too low, keep the rest
    ///
    /// Comments, and scopes that are not in the segment, stay. A deadline that could be
    /// lower stays, and the output says so.
    #[arg(long, requires = "output", conflicts_with = "replace")]
    pub merge: bool,

    /// With --merge: also lower deadlines that are higher than needed
    #[arg(long, requires = "merge")]
    pub lower: bool,

    /// Replace an existing file
    #[arg(long, requires = "output")]
    pub replace: bool,

    /// Leave out scopes with fewer ended acquires than this
    ///
    /// Standard error names them.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 20)]
    pub min_acquires: u64,
}
