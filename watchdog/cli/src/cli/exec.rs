//! The options of `hangwatch exec`.

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use rustix::process::Signal;

use super::value::ReapSignal;
use super::{DURATIONS, ENVIRONMENT, EXIT_CODES, Evidence, Log, NO_HEADING, Reap, value};

const SIGNALS: &str = "\
Signals and descendants:
  SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed to the command and to all its
  descendants. If descendants are still running when the command ends after such
  a signal, they keep the deadline, and a second signal kills them. Other signals
  are passed to the command only. If exec itself is killed (SIGKILL), the kernel
  kills the command, unless it is a set-user-ID program; its descendants continue
  without a deadline. If the command ends by itself, its descendants continue.
  Time during which exec was stopped or frozen does not count.";

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
    /// How long the command may run; "--deadline" itself may be left out
    #[arg(long, value_name = "DURATION", value_parser = value::duration,
          allow_hyphen_values = true)]
    pub deadline: Duration,

    /// The scope's name in status and incidents [default: the command's name]
    #[arg(long, value_name = "SCOPE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub scope: Option<String>,

    /// The segment that holds the timer [default: HANGWATCH_SEGMENT, else a new one]
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The signals of a kill.
    #[command(flatten)]
    pub reap: Reap,

    /// Send TERM (or --signal) first, and KILL this much later; as in timeout(1)
    #[arg(short = 'k', long, value_name = "DURATION", value_parser = value::duration_or_zero,
          conflicts_with = "grace", allow_hyphen_values = true, help_heading = "Kills")]
    pub kill_after: Option<Duration>,

    /// End with the command's exit status, even if its deadline passed
    #[arg(short = 'p', long, help_heading = "Kills")]
    pub preserve_status: bool,

    /// No effect, for compatibility with timeout(1): the command always runs in the foreground
    #[arg(short = 'f', long, help_heading = "Kills")]
    pub foreground: bool,

    /// What is captured before the kill, and where it is stored.
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
    /// Makes `-k` a grace after TERM, or after the signal of `--signal`.
    pub(super) fn apply_kill_after(&mut self) {
        let Some(grace) = self.kill_after else { return };
        self.reap.grace = grace;
        if self.reap.signal == ReapSignal::Signal(Signal::KILL) {
            self.reap.signal = ReapSignal::Signal(Signal::TERM);
        }
    }
}
