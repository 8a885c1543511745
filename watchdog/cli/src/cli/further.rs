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
    /// Who is reaped with a worker [default: tree with a command, else process]
    ///
    /// process: nobody. tree: its descendants, such as the children of a data loader. group: these,
    /// and the process group that the worker leads, also those whose parent has
    /// ended. cgroup: these, and by cgroup.kill all that is in a cgroup of version 2
    /// in which there are only the worker and its descendants. Where the worker leads
    /// no group, or its cgroup is not its own, it is the tree, and the log says why.
    /// They are listed before the first signal, for which that takes up to 50ms, and
    /// killed when the worker is sent KILL or has died of a gentler signal. Other
    /// workers of the segment, with what descends from them, and the watchdog with
    /// all above it are never among them.
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
    /// It runs when the reap has come to its end, or the expiry was only reported, and
    /// the evidence is written, and can neither stop nor delay a reap. Of a worker that
    /// SIGKILL does not end it runs as soon as that is found (unkillable), and once more
    /// at its death. With --evidence off, it is told what is known without. For simple
    /// scripts there are HANGWATCH_PID, HANGWATCH_SCOPE, HANGWATCH_RANK,
    /// HANGWATCH_OUTCOME, HANGWATCH_INCIDENT (the incident's directory, which
    /// `hangwatch show` takes) and HANGWATCH_SEGMENT in its environment; what is not
    /// known is empty. Its standard output is dropped; its exit status and the beginning
    /// of its standard error go to the log. Up to 8 run at once. What is reported of a
    /// worker without a pause is told together, once a second.
    #[arg(long, value_name = "CMD", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub on_expire: Option<String>,

    /// How long one may take, then it is killed with all its descendants
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
