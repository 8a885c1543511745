//! What hangwatch says to the processes that it starts of itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value;

/// Whose evidence a helper captures; the watchdog starts it.
#[derive(Debug, Args)]
pub struct EvidenceHelper {
    /// The worker, whose pidfd is the standard input.
    #[arg(long)]
    pub pid: u32,
    /// How long it may take.
    #[arg(long, value_parser = value::duration)]
    pub budget: Duration,
    /// The memory it may take, bytes.
    #[arg(long, default_value_t = 512 << 20)]
    pub memory: u64,
    /// How many helpers may be at work at once.
    #[arg(long, default_value_t = 1)]
    pub at_once: u32,
    /// The thread to begin with, by its id in its own PID namespace.
    #[arg(long)]
    pub first_tid: Option<u64>,
    /// Do not stop it for its native stacks.
    #[arg(long)]
    pub no_stop: bool,
    /// What is redacted beside the rule.
    #[arg(long, value_name = "REGEX")]
    pub redact: Vec<String>,
}

/// Where incidents are written; the watchdog starts the writer.
#[derive(Debug, Args)]
pub struct IncidentWriter {
    /// The directory.
    #[arg(long)]
    pub dir: PathBuf,
    /// How many are kept.
    #[arg(long)]
    pub count: usize,
    /// What they may take, bytes.
    #[arg(long)]
    pub bytes: u64,
}

/// A file that is read for the watchdog, which starts the reader.
#[derive(Debug, Args)]
pub struct FileReader {
    /// The file.
    pub path: PathBuf,
    /// How much of it at most, bytes.
    #[arg(long)]
    pub most_bytes: u64,
}

/// Whom the processes wait for that are asked about; whoever wants a verdict starts it.
#[derive(Debug, Args)]
pub struct WaitHelper {
    /// How long it may take.
    #[arg(long, value_parser = value::duration)]
    pub budget: Duration,
    /// The processes.
    pub pids: Vec<u32>,
}
