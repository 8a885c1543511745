//! The options for what is killed with a worker, and for the hook.

use std::time::Duration;

use clap::Args;

use super::evidence::Evidence;
use super::value;
use hangwatch_process::descendants;
use hangwatch_server::hook::HookOptions;

/// How long after the evidence budget the hook waits for a slow disk.
const WRITTEN: Duration = Duration::from_secs(2);

/// What is killed with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reach {
    /// The worker alone
    Process,
    /// The worker and its descendants
    Tree,
    /// These, and the process group that the worker leads
    Group,
    /// These, and the worker's cgroup, if it holds nothing else
    Cgroup,
}

impl From<Reach> for descendants::Reach {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Process => Self::Process,
            Reach::Tree => Self::Tree,
            Reach::Group => Self::Group,
            Reach::Cgroup => Self::Cgroup,
        }
    }
}

/// What is killed with a worker.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kills")]
pub struct Further {
    /// What is killed with a worker [default: tree with a command, else process]
    ///
    /// process: only the worker. tree: also its descendants, such as the processes of a data
    /// loader. group: also the process group that the worker leads, including processes
    /// whose parent has ended. cgroup: also everything in the worker's cgroup (version 2), if
    /// that holds only the worker and its descendants. If the worker leads no group, or its
    /// cgroup holds other processes, tree is used and the log says why. The processes are
    /// listed before the first signal. They are killed before the worker gets KILL, or after
    /// it died of another signal. Other workers of the segment and their descendants, and
    /// the watchdog and its ancestors, are never killed.
    #[arg(
        long = "reap",
        value_name = "process|tree|group|cgroup",
        value_enum,
        hide_possible_values = true
    )]
    pub reach: Option<Reach>,
}

/// The command that runs for each incident.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hook")]
pub struct Hook {
    /// Run this sh command for each incident, with the incident as JSON on its standard input
    ///
    /// It runs after the kill (or the report, if nothing is killed), when the evidence is
    /// written. It cannot stop or delay a kill. For a worker that survives SIGKILL it runs
    /// when that is found (outcome unkillable), and again when the worker has died. With
    /// --evidence off, the incident holds no evidence. For simple scripts the environment
    /// has HANGWATCH_PID, HANGWATCH_SCOPE, HANGWATCH_RANK, HANGWATCH_OUTCOME,
    /// HANGWATCH_INCIDENT (the incident's directory, for `hangwatch show`) and
    /// HANGWATCH_SEGMENT; unknown values are empty. Standard output is discarded; the exit
    /// status and the beginning of standard error are logged. Up to 8 run at once. Reports
    /// of one worker in quick succession are combined, once a second.
    #[arg(long, value_name = "CMD", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub on_expire: Option<String>,

    /// Time limit of the hook; then it is killed with all its descendants
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "30s",
          allow_hyphen_values = true)]
    pub on_expire_timeout: Duration,
}

impl Hook {
    /// The hook, if there is one.
    pub fn options(&self, evidence: &Evidence) -> Option<HookOptions> {
        let command = self.on_expire.clone()?.into();
        let patience = evidence.budget.saturating_add(WRITTEN);
        Some(HookOptions { command, timeout: self.on_expire_timeout, patience })
    }
}
