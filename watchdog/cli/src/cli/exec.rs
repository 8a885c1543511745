//! What may be said to `hangwatch exec`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use super::value::ReapSignal;
use super::{DURATIONS, ENVIRONMENT, EXIT_CODES, Evidence, Log, NO_HEADING, Reap, value};

const SIGNALS: &str = "\
Signals and ends:
  SIGINT, SIGTERM, SIGHUP and SIGQUIT go to the command and to all its
  descendants. Descendants that live when the command ends after such a signal
  keep the deadline; a second signal kills them. Other signals go to the
  command. If exec itself is killed (SIGKILL), the kernel kills the command,
  unless it is a set-user-ID program; its descendants go on without a deadline.
  What a command leaves running when it ends by itself goes on, too. Time in
  which exec was stopped or frozen does not count.";

/// The options of `hangwatch exec`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{SIGNALS}

{DURATIONS}

{ENVIRONMENT}

{EXIT_CODES}

Examples:
  hangwatch exec 30s make test
  hangwatch exec -k 10s 5m ./backup.sh
  hangwatch exec --deadline 1h --scope nightly --segment ci -- ./nightly"),
  override_usage = "hangwatch exec [OPTIONS] DURATION CMD [ARG]...\n       \
                    hangwatch exec [OPTIONS] --deadline DURATION [--] CMD [ARG]...")]
pub struct Exec {
    /// How long the command may run; the name of this option may be left out
    #[arg(long, value_name = "DURATION", value_parser = value::duration,
          allow_hyphen_values = true)]
    pub deadline: Duration,

    /// The scope the deadline is listed under [default: the command's name]
    #[arg(long, value_name = "SCOPE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub scope: Option<String>,

    /// The segment to arm the timer in, else HANGWATCH_SEGMENT's; absent, one of its own
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// How the removal is done.
    #[command(flatten)]
    pub reap: Reap,

    /// Send TERM first (or --signal), and KILL this long after, as timeout(1) does
    #[arg(short = 'k', long, value_name = "DURATION", value_parser = value::duration_or_zero,
          conflicts_with = "grace", allow_hyphen_values = true, help_heading = "Kills")]
    pub kill_after: Option<Duration>,

    /// End as the command ended, even if its deadline passed
    #[arg(short = 'p', long, help_heading = "Kills")]
    pub preserve_status: bool,

    /// Has no effect; timeout(1) has it, and here the command always stays in the foreground
    #[arg(short = 'f', long, help_heading = "Kills")]
    pub foreground: bool,

    /// What is captured before it, and where it is kept.
    #[command(flatten)]
    pub evidence: Evidence,

    /// How the log is written.
    #[command(flatten)]
    pub log: Log,

    /// The command to run, with its arguments
    #[arg(last = true, required = true, value_name = "CMD", help_heading = NO_HEADING)]
    pub command: Vec<OsString>,
}

impl Exec {
    /// `-k` is a grace after a signal that can be caught: TERM, unless another one is asked for.
    pub(super) fn apply_kill_after(&mut self) {
        let Some(grace) = self.kill_after else { return };
        self.reap.grace = grace;
        if self.reap.signal == ReapSignal::Signal(Signal::KILL) {
            self.reap.signal = ReapSignal::Signal(Signal::TERM);
        }
    }
}
