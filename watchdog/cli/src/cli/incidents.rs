#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! What may be said of incidents: the options of the commands that list, show and draw them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{DURATIONS, value};

/// Where incidents are.
#[derive(Debug, Args)]
pub struct Where {
    /// The directory of incidents [default: /var/lib/hangwatch/incidents for root, else
    /// $XDG_STATE_HOME/hangwatch/incidents, else ~/.local/state/hangwatch/incidents]
    #[arg(id = "incidents", long = "incidents", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// The options of `hangwatch incidents`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{DURATIONS}

Examples:
  hangwatch incidents
  hangwatch incidents --segment train --since 1h
  hangwatch incidents --json | jq -r '.[].id'"))]
pub struct Incidents {
    /// Only those of this segment
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// Only those of this time until now: 90s, 30m, 2h, 3days
    #[arg(long, value_name = "DURATION", value_parser = value::duration,
          allow_hyphen_values = true)]
    pub since: Option<Duration>,

    /// Only the N newest
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    /// Write JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Where they are.
    #[command(flatten)]
    pub place: Where,
}

const WHICH: &str = "\
An incident is named as `hangwatch incidents` lists it, by any beginning that no
other incident has, or as last: the newest that can be read. A name with a slash
is the path of a directory.";

/// The options of `hangwatch show`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{WHICH}

Examples:
  hangwatch show
  hangwatch show 20261123T1544 --all | less
  hangwatch show ./incidents-of-another-host/20261123T154413Z-train-17"))]
pub struct Show {
    /// Which incident
    #[arg(value_name = "ID", default_value = "last")]
    pub id: String,

    /// Unfold everything: all threads' stacks, all records, all files
    #[arg(long)]
    pub all: bool,

    /// Where they are.
    #[command(flatten)]
    pub place: Where,
}

/// The options of `hangwatch report`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{WHICH}

A new file is readable by its owner alone, as the incident is: read what it says
about your job before you share it.

Examples:
  hangwatch report last -o report.html
  hangwatch report 20261123T1544 -o - > report.html"))]
pub struct Report {
    /// Which incident
    #[arg(value_name = "ID", default_value = "last")]
    pub id: String,

    /// The file to write; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Where they are.
    #[command(flatten)]
    pub place: Where,
}

/// The options of `hangwatch trace`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{WHICH}

Examples:
  hangwatch trace last -o trace.json
  hangwatch trace --segment train -o trace.json"))]
pub struct Trace {
    /// Which incident; absent, the segment as it is now
    #[arg(value_name = "ID", conflicts_with = "segment")]
    pub id: Option<String>,

    /// The segment's name, else HANGWATCH_SEGMENT's
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The file to write; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// Where incidents are.
    #[command(flatten)]
    pub place: Where,
}
