#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! Which segment is meant: the options of the commands that look at one, or act on one.

use clap::Args;

use super::ENVIRONMENT;

/// Which segments are read, and how they are shown.
#[derive(Debug, Args)]
pub struct Observed {
    /// The segment's name, else HANGWATCH_SEGMENT's; absent, every one this user may read
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
    /// Which segments, and how they are shown.
    #[command(flatten)]
    pub observed: Observed,
}

/// The options of `hangwatch rm`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    the segment is gone
  2    the command line is wrong
  125  there is no such segment, it is in use, or it is another user's

Examples:
  hangwatch rm train
  hangwatch rm --stale")]
pub struct Rm {
    /// The segment's name
    #[arg(value_name = "NAME", required_unless_present = "stale")]
    pub segment: Option<String>,

    /// Remove every segment whose maker was killed and that is not in use
    #[arg(long, conflicts_with = "segment")]
    pub stale: bool,
}

/// The options of `hangwatch release-brake`.
#[derive(Debug, Args)]
pub struct ReleaseBrake {
    /// The segment's name, else HANGWATCH_SEGMENT's
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,
}
