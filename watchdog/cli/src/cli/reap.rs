//! The options for the signals of a kill, and for the log; `run` and `exec` share them.

use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use super::value::{self, ReapSignal};
use hangwatch_log::Format;

/// The signals of a kill.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Kills")]
pub struct Reap {
    /// The first signal of a kill: a name or number, or none
    ///
    /// none: overdue workers are reported and not signalled. A timer may name another first
    /// signal.
    #[arg(short = 's', long, value_name = "SIGNAL", value_parser = value::reap_signal,
          default_value = "KILL", allow_hyphen_values = true)]
    pub signal: ReapSignal,

    /// The time from a first signal other than KILL to KILL; at least 100ms
    #[arg(long, value_name = "DURATION", value_parser = value::duration_or_zero,
          default_value = "0s", allow_hyphen_values = true)]
    pub grace: Duration,
}

impl Reap {
    /// Whether a grace is set that has no effect: the first signal is KILL, or there is none.
    pub(crate) fn grace_is_in_vain(&self) -> bool {
        let blunt = [ReapSignal::Signal(Signal::KILL), ReapSignal::NotifyOnly];
        !self.grace.is_zero() && blunt.contains(&self.signal)
    }
}

/// The options for the log.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// The format of the log, which goes to standard error
    #[arg(
        long = "log-format",
        visible_alias = "log",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub format: Format,
}
