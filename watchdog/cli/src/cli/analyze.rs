//! The options of `hangwatch analyze`.

use std::path::PathBuf;

use clap::Args;

/// The options of `hangwatch analyze`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hangwatch analyze /tmp/nccl_trace_rank_*     the dumps of one host
  hangwatch analyze dumps/ --json              the dumps of all hosts")]
pub struct Analyze {
    /// Dumps of one hang, or directories of them; the last number in a file's name is the rank
    #[arg(value_name = "DUMP", required = true)]
    pub paths: Vec<PathBuf>,

    /// Write JSON instead of text
    #[arg(long)]
    pub json: bool,
}
