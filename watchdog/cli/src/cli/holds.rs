//! What is done about an overdue worker that something holds up.

use clap::Args;

/// Whether an overdue worker that something holds up is reaped all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Treatment {
    /// It is reaped like any other.
    Reap,
    /// It is reported once, and left alone for as long as it is held up.
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

/// What is done about an overdue worker that something holds up.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Workers that something holds up")]
pub struct Holds {
    /// An overdue worker that is stopped (SIGSTOP): kill it, or report it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "reap",
        hide_possible_values = true
    )]
    pub stopped: Treatment,

    /// An overdue worker that a debugger traces: report it, or kill it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "report",
        hide_possible_values = true
    )]
    pub traced: Treatment,

    /// An overdue worker in a frozen control group: report it, or kill it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "report",
        hide_possible_values = true
    )]
    pub frozen: Treatment,
}
