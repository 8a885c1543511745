#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of `hangwatch scopes`, `learn` and `shadow`: deadlines one need not guess.

use std::path::PathBuf;

use clap::Args;

use super::{ENVIRONMENT, Observed};

const FORMULA: &str = "\
The suggested deadline:
  factor x (longest acquire seen + resolution of the clock), at least 1s,
  rounded up to a round number. It is never less than what was seen. The factor
  depends on how many acquires have ended, which is the confidence: below 100
  poor, 10 x; below 1,000 fair, 5 x; below 10,000 good, 3 x; else high, 2 x.
  Of n similar acquires, the chance that the next one takes longer than all of
  them is 1 in n + 1. Acquires that were condemned, or still run, do not count.";

/// The options of `hangwatch scopes`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{FORMULA}

A quantile marked with ? has fewer than ten acquires beyond it and says little.

{ENVIRONMENT}

Examples:
  hangwatch scopes
  hangwatch scopes --segment train --json"))]
pub struct Scopes {
    /// Which segments, and how they are shown.
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
    /// Which segments, and how they are shown.
    #[command(flatten)]
    pub observed: Observed,
}

/// The options of `hangwatch learn`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{FORMULA}

{ENVIRONMENT}

Examples:
  hangwatch learn --segment train                  to look at
  hangwatch learn --segment train -o deadlines.toml
  hangwatch learn --segment train -o deadlines.toml --merge
  hangwatch run --segment train --notify-only --deadlines deadlines.toml"))]
pub struct Learn {
    /// The segment's name, else HANGWATCH_SEGMENT's; absent, the only one this user may read
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The file to write; absent, or -, standard output
    ///
    /// An existing file is refused without --merge or --replace. The file is written whole
    /// or not at all.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Change an existing file: raise what is too low, keep the rest
    ///
    /// Scopes that are not in the segment, and comments, stay. A deadline that could be
    /// lower stays, and the output says so.
    #[arg(long, requires = "output", conflicts_with = "replace")]
    pub merge: bool,

    /// With --merge: also lower deadlines that are higher than needed
    #[arg(long, requires = "merge")]
    pub lower: bool,

    /// Replace an existing file
    #[arg(long, requires = "output")]
    pub replace: bool,

    /// Leave out scopes of which fewer acquires have ended
    ///
    /// They are named on standard error.
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 20)]
    pub min_acquires: u64,
}
