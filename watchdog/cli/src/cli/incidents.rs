#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of `incidents`, `show`, `report` and `trace`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{DURATIONS, value};

/// The directory of incidents.
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
    /// Only incidents of this segment
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// Only incidents younger than this: 90s, 30m, 2h, 3days
    #[arg(long, value_name = "DURATION", value_parser = value::duration,
          allow_hyphen_values = true)]
    pub since: Option<Duration>,

    /// Only the newest N incidents
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    /// Write JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// The directory of incidents.
    #[command(flatten)]
    pub place: Where,
}

const WHICH: &str = "\
ID is an incident's name as `hangwatch incidents` lists it, or its beginning if no
other incident begins so, or last for the newest that can be read. An ID with a
slash is the path of an incident's directory.";

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

    /// Show everything: all threads' stacks, all records, all files
    #[arg(long)]
    pub all: bool,

    /// The directory of incidents.
    #[command(flatten)]
    pub place: Where,
}

/// The options of `hangwatch report`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{WHICH}

Only its owner can read the new file, as with the incident itself. Check what it
says about your job before you share it.

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

    /// The directory of incidents.
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
    /// Which incident [default: the segment as it is now]
    #[arg(value_name = "ID", conflicts_with = "segment")]
    pub id: Option<String>,

    /// The segment's name [default: HANGWATCH_SEGMENT]
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The file to write; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// The directory of incidents.
    #[command(flatten)]
    pub place: Where,
}
