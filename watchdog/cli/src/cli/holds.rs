//! The options for overdue workers that are stopped, traced or frozen.

use clap::Args;

/// Whether an overdue worker that is stopped, traced or frozen is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Treatment {
    /// It is killed like any other worker.
    Reap,
    /// It is reported once, and not killed while it is stopped, traced or frozen.
    Report,
}

impl From<Treatment> for hangwatch_server::Treatment {
    fn from(treatment: Treatment) -> Self {
        match treatment {
            Treatment::Reap => Self::Reap,
            Treatment::Report => Self::Report,
        }
    }
}

/// What happens to an overdue worker that is stopped, traced or frozen.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Stopped, traced and frozen workers")]
pub struct Holds {
    /// An overdue worker that is stopped (SIGSTOP): kill it (reap), or only report it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "reap",
        hide_possible_values = true
    )]
    pub stopped: Treatment,

    /// An overdue worker under a debugger: kill it (reap), or only report it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "report",
        hide_possible_values = true
    )]
    pub traced: Treatment,

    /// An overdue worker in a frozen cgroup: kill it (reap), or only report it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "report",
        hide_possible_values = true
    )]
    pub frozen: Treatment,
}
