//! The options about what a reap takes along, and what is run for it.

use std::time::Duration;

use clap::Args;

use super::evidence::Evidence;
use super::value;
use hangwatch_process::descendants;
use hangwatch_server::hook::HookOptions;

/// How long after the evidence's budget a hook waits for a disk that is slow.
const WRITTEN: Duration = Duration::from_secs(2);

/// Who is reaped with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Reach {
    /// The worker alone
    Process,
    /// And its descendants
    Tree,
    /// And the process group it leads
    Group,
    /// And the cgroup of its own that it is in
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

/// What a reap takes along.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kills")]
pub struct Further {
    /// What is killed with a worker [default: tree with a command, else process]
    ///
    /// process: nothing. tree: its descendants, such as the children of a data loader.
    /// group: these, and the process group that the worker leads, including processes
    /// whose parent has ended. cgroup: these, and by cgroup.kill everything in a cgroup of
    /// version 2 that holds only the worker and its descendants. Where the worker leads no
    /// group, or its cgroup holds other processes, it is the tree, and the log says why.
    /// They are listed before the first signal, which waits for that, and killed before
    /// the worker gets KILL, or when it has died of a gentler signal. Other workers of the
    /// segment and their descendants, and the watchdog and its ancestors, are excluded.
    #[arg(
        long = "reap",
        value_name = "process|tree|group|cgroup",
        value_enum,
        hide_possible_values = true
    )]
    pub reach: Option<Reach>,
}

/// What is run for each expiry.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Hook")]
pub struct Hook {
    /// Run this for each expiry, by sh, with the incident as JSON on its standard input
    ///
    /// It runs when the kill has ended, or the expiry was only reported, and the evidence
    /// is written. It can neither stop nor delay a kill. For a worker that survives
    /// SIGKILL it runs as soon as that is found (unkillable), and once more at its death.
    /// With --evidence off it gets what is known without evidence. For simple scripts its
    /// environment has HANGWATCH_PID, HANGWATCH_SCOPE, HANGWATCH_RANK, HANGWATCH_OUTCOME,
    /// HANGWATCH_INCIDENT (the incident's directory, for `hangwatch show`) and
    /// HANGWATCH_SEGMENT; what is not known is empty. Its standard output is dropped; its
    /// exit status and the beginning of its standard error go to the log. Up to 8 run at
    /// once. Reports of one worker in quick succession are combined, once a second.
    #[arg(long, value_name = "CMD", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub on_expire: Option<String>,

    /// How long the hook may take; then it is killed with all its descendants
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "30s",
          allow_hyphen_values = true)]
    pub on_expire_timeout: Duration,
}

impl Hook {
    /// What is to be run, if anything is.
    pub fn options(&self, evidence: &Evidence) -> Option<HookOptions> {
        let command = self.on_expire.clone()?.into();
        let patience = evidence.budget.saturating_add(WRITTEN);
        Some(HookOptions { command, timeout: self.on_expire_timeout, patience })
    }
}
