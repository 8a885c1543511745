#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of commands that read, release or remove a segment.

use clap::Args;

use super::ENVIRONMENT;

/// Which segments to read, and the output format.
#[derive(Debug, Args)]
pub struct Observed {
    /// The segment's name [default: HANGWATCH_SEGMENT, else all readable ones]
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// Write JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The options of `hangwatch status`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{ENVIRONMENT}

Examples:
  hangwatch status
  hangwatch status --segment train --json"))]
pub struct Status {
    /// Which segments, and the output format.
    #[command(flatten)]
    pub observed: Observed,
}

/// The options of `hangwatch rm`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    the segment is removed
  2    the command line is wrong
  125  the segment does not exist, is in use, or belongs to another user

Examples:
  hangwatch rm train
  hangwatch rm --stale")]
pub struct Rm {
    /// The segment's name
    #[arg(value_name = "NAME", required_unless_present = "stale")]
    pub segment: Option<String>,

    /// Remove all unused segments whose run, exec or demo was killed
    #[arg(long, conflicts_with = "segment")]
    pub stale: bool,
}

/// The options of `hangwatch release-brake`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hangwatch status --segment train          what is overdue?
  hangwatch release-brake --segment train")]
pub struct ReleaseBrake {
    /// The segment's name [default: HANGWATCH_SEGMENT]
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,
}
