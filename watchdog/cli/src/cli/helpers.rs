//! The options of the hidden commands that hangwatch starts itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value;

/// The options of the helper that captures one worker's evidence.
#[derive(Debug, Args)]
pub struct EvidenceHelper {
    /// The worker's pid; its pidfd is the standard input.
    #[arg(long)]
    pub pid: u32,
    /// The time limit.
    #[arg(long, value_parser = value::duration)]
    pub budget: Duration,
    /// The memory limit, bytes.
    #[arg(long, default_value_t = 512 << 20)]
    pub memory: u64,
    /// How many helpers may run at once.
    #[arg(long, default_value_t = 1)]
    pub at_once: u32,
    /// The thread to capture first, by its id in its own PID namespace.
    #[arg(long)]
    pub first_tid: Option<u64>,
    /// Do not stop the worker to copy its native stacks.
    #[arg(long)]
    pub no_stop: bool,
    /// What is redacted besides what looks like a secret.
    #[arg(long, value_name = "REGEX")]
    pub redact: Vec<String>,
}

/// The options of the process that writes incidents.
#[derive(Debug, Args)]
pub struct IncidentWriter {
    /// The directory.
    #[arg(long)]
    pub dir: PathBuf,
    /// How many incidents are kept.
    #[arg(long)]
    pub count: usize,
    /// How much room all incidents may take, bytes.
    #[arg(long)]
    pub bytes: u64,
}

/// The options of the process that reads a file for the watchdog.
#[derive(Debug, Args)]
pub struct FileReader {
    /// The file.
    pub path: PathBuf,
    /// The most that is read, bytes.
    #[arg(long)]
    pub most_bytes: u64,
}

/// The options of the process that finds out what processes wait for.
#[derive(Debug, Args)]
pub struct WaitHelper {
    /// The time limit.
    #[arg(long, value_parser = value::duration)]
    pub budget: Duration,
    /// The pids of the processes.
    pub pids: Vec<u32>,
}
