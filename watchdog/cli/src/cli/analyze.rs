//! Options of `hangwatch analyze`.

use std::path::PathBuf;

use clap::Args;

/// Which dumps to read.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  hangwatch analyze /tmp/nccl_trace_rank_*     the dumps of one host
  hangwatch analyze dumps/ --json              those gathered from all hosts")]
pub struct Analyze {
    /// Dumps of one hang, or directories that hold them; a file's last number is its rank
    #[arg(value_name = "DUMP", required = true)]
    pub paths: Vec<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
