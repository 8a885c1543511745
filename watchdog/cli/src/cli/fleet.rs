#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of `hangwatch fleet`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::{DURATIONS, value};
use hangwatch_http::fleet::Target;

/// The options of `hangwatch fleet`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("whom").args(["urls", "file"]).multiple(true).required(true),
    after_long_help = format!("\
A rank marked > is the suspect: all other ranks of its job have been in one scope
for a second or longer, and this one is not in it. It may be on a host that did
not answer.

A target that is down or slow, or sends a malformed response, is shown as such
and does not delay the others.

{DURATIONS}

Exit codes:
  0    at least one target answered
  2    the command line is wrong
  125  no target answered, or a file of targets cannot be read

Examples:
  hangwatch fleet gpu-1:9469 gpu-2:9469
  hangwatch fleet unix:/run/hangwatch/train.sock
  hangwatch fleet --file targets.json --watch 2s
  hangwatch fleet --file targets.json --json"))]
pub struct Fleet {
    /// Watchdogs that run with --listen: http://HOST:PORT, HOST:PORT, HOST (port 9469) or
    /// unix:/PATH
    #[arg(value_name = "URL")]
    pub urls: Vec<Target>,

    /// A JSON file of targets, as for Prometheus' file_sd_configs; may be given several times
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,

    /// Write JSON instead of a table
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,

    /// Show only the N oldest workers
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub limit: Option<usize>,

    /// How long each target has to answer, counted from its connect
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "1s")]
    pub timeout: Duration,

    /// The most targets to ask at once
    #[arg(long, value_name = "N", default_value_t = 256,
          allow_negative_numbers = true,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub at_once: u32,

    /// Repeat, with this pause between two rounds
    #[arg(long, value_name = "DURATION", value_parser = value::duration,
          num_args = 0..=1, default_missing_value = "2s")]
    pub watch: Option<Duration>,
}
