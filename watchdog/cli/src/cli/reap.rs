//! How a reap is done, and how the log is written: what several commands may be told.

use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use super::value::{self, ReapSignal};
use hangwatch_log::Format;

/// How a reap is done.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Kills")]
pub struct Reap {
    /// The first signal of a kill: a signal's name or number, or none
    ///
    /// none reports the expiry and signals nothing. A timer may ask for a signal of its
    /// own.
    #[arg(short = 's', long, value_name = "SIGNAL", value_parser = value::reap_signal,
          default_value = "KILL", allow_hyphen_values = true)]
    pub signal: ReapSignal,

    /// How long after any other signal KILL follows; at least 100ms
    #[arg(long, value_name = "DURATION", value_parser = value::duration_or_zero,
          default_value = "0s", allow_hyphen_values = true)]
    pub grace: Duration,
}

impl Reap {
    /// A grace that nothing but KILL, or no signal at all, would come before.
    pub(crate) fn grace_is_in_vain(&self) -> bool {
        let blunt = [ReapSignal::Signal(Signal::KILL), ReapSignal::NotifyOnly];
        !self.grace.is_zero() && blunt.contains(&self.signal)
    }
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// The log's format, on standard error
    #[arg(
        long = "log-format",
        visible_alias = "log",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub format: Format,
}
