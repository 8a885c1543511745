#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of `hangwatch run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::config::Origins;
use super::further::Reach;
use super::value::{self, ReapSignal};
use super::{
    Automatic, Cascade, DURATIONS, ENVIRONMENT, EXIT_CODES, Evidence, Further, Holds, Hook, Log,
    NO_HEADING, Reap, SETTINGS,
};
use hangwatch_http::listen::{Address, Audience};
use hangwatch_server::{Ask, Protection};

const SEGMENT_HEADING: &str = "Segment";
const KILLS_HEADING: &str = "Kills";
const WATCHDOG_HEADING: &str = "Watchdog";

/// The options of `hangwatch run`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = format!("\
{DURATIONS}

{SETTINGS}

{ENVIRONMENT}

{EXIT_CODES}

Examples:
  hangwatch run --auto -- torchrun --nproc-per-node 8 train.py
  hangwatch run --signal TERM --grace 10s -- gunicorn app:app
  hangwatch run --segment train --notify-only --log json
  hangwatch run --segment train --standby"))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Run {
    /// The segment's name: letters, digits, '.', '_' and '-'
    ///
    /// Without a command, the default is HANGWATCH_SEGMENT. With a command, that variable is
    /// ignored, because it names the segment of an outer watchdog.
    #[arg(long, value_name = "NAME", help_heading = SEGMENT_HEADING)]
    pub segment: Option<String>,

    /// Lanes (slots for worker threads) of a new segment, 1 to 65536 [default: 256]
    ///
    /// Each worker thread that arms timers takes one. If the segment exists with another
    /// number, run fails.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=65_536),
          help_heading = SEGMENT_HEADING)]
    pub lanes: Option<u32>,

    /// Timers of each lane of a new segment, 1 to 1024 [default: 64]
    ///
    /// A thread that arms more timers at once takes a second lane. If the segment exists
    /// with another number, run fails.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_024),
          help_heading = SEGMENT_HEADING)]
    pub timers: Option<u32>,

    /// Scope names of a new segment, 2 to 32768 [default: 4096]
    ///
    /// Each takes 1.4 KiB. Names beyond this number are still reported when they are
    /// overdue, but share the statistics and timeouts of "(other)". If the segment exists
    /// with another number, run fails.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(2..=32_768),
          help_heading = SEGMENT_HEADING)]
    pub scopes: Option<u32>,

    /// The longest time between two checks by the watchdog, 1ms to 1m [default: 100ms]
    ///
    /// It does not make kills late: a worker that arms a nearer deadline wakes the watchdog,
    /// which costs that worker more. If the segment exists with another value, run fails.
    #[arg(long, value_name = "DURATION", value_parser = value::interval,
          allow_hyphen_values = true, help_heading = SEGMENT_HEADING)]
    pub max_interval: Option<Duration>,

    /// The group whose members may attach, by name or number [default: only this user]
    #[arg(long, value_name = "GROUP", value_parser = value::group,
          help_heading = SEGMENT_HEADING)]
    pub group: Option<u32>,

    /// The signals of a kill.
    #[command(flatten)]
    pub reap: Reap,

    /// Report overdue workers, but send no signal; the same as --signal none
    ///
    /// With --deadlines this is shadow mode: the log says which workers would have been
    /// killed and how late they ended, and `hangwatch shadow` shows the counts.
    #[arg(long, help_heading = KILLS_HEADING,
          conflicts_with_all = ["signal", "grace"], num_args = 0..=1, require_equals = true,
          default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub notify_only: bool,

    /// A file of timeouts for acquires without their own; `hangwatch learn` writes it
    ///
    /// A watchdog without a command reads it again on SIGHUP; running acquires keep their
    /// deadlines. Without this option, the timeouts that an earlier watchdog set in the
    /// segment stay in force.
    #[arg(long, value_name = "FILE", help_heading = "Deadlines")]
    pub deadlines: Option<PathBuf>,

    /// Deadlines for programs that set none.
    #[command(flatten)]
    pub automatic: Automatic,

    /// Kill limiter: kill at most this many in a minute, then nothing more
    ///
    /// If so many deadlines pass together, the timeouts are probably wrong, not the workers.
    /// `hangwatch release-brake` lets the watchdog kill again. Without this option there is
    /// no limiter, but a limiter that engaged under an earlier watchdog stays engaged.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..),
          help_heading = KILLS_HEADING)]
    pub max_reaps: Option<u32>,

    /// Warn once when this fraction of a timer's timeout has passed
    ///
    /// Above 0 and below 1. The worker is not signalled.
    #[arg(long, value_name = "FRACTION", value_parser = value::fraction,
          allow_hyphen_values = true, help_heading = "Deadlines")]
    pub warn_at: Option<f64>,

    /// Which worker is killed first when one holds up the others.
    #[command(flatten)]
    pub cascade: Cascade,

    /// What is killed with a worker.
    #[command(flatten)]
    pub further: Further,

    /// The command that runs for each incident.
    #[command(flatten)]
    pub hook: Hook,

    /// What happens to overdue workers that are stopped, traced or frozen.
    #[command(flatten)]
    pub holds: Holds,

    /// What is captured of an overdue worker.
    #[command(flatten)]
    pub evidence: Evidence,

    /// Do not write the error files of torchrun's workers
    ///
    /// By default the watchdog writes the file that a worker's TORCHELASTIC_ERROR_FILE names
    /// before it signals the worker, so that torchrun's summary names this worker and its
    /// scope, not another rank. Only for workers of this user, in directories of this user,
    /// and never over an existing file.
    #[arg(long, help_heading = "Evidence", num_args = 0..=1, require_equals = true,
          default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub no_error_files: bool,

    /// How the watchdog protects itself.
    #[command(flatten)]
    pub protect: Protect,

    /// Wait until the segment's watchdog ends, then take over at once
    #[arg(long, help_heading = WATCHDOG_HEADING, conflicts_with = "command",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub standby: bool,

    /// With a command: start no second process that takes over if this one is killed
    ///
    /// By default `run -- CMD` starts a small standby. If the watchdog is killed (SIGKILL,
    /// out of memory) or fails, the standby takes over at once and watches until the
    /// command and its last worker have ended. As PID 1, run starts no standby.
    #[arg(long, help_heading = WATCHDOG_HEADING, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub no_standby: bool,

    /// With a command: end when it ends, even if workers are still running
    ///
    /// By default the watchdog continues until the last worker has ended, and then ends with
    /// the command's exit code. The log names the workers that are still running. With this
    /// option their segment stays for another watchdog.
    #[arg(long, help_heading = WATCHDOG_HEADING, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL", requires_if("true", "command"))]
    pub leave_workers: bool,

    /// The HTTP server.
    #[command(flatten)]
    pub listen: Listen,

    /// How the log is written.
    #[command(flatten)]
    pub log: Log,

    /// The settings file.
    #[command(flatten)]
    pub settings: Settings,

    /// The command to run, with its arguments; without one, watch until SIGTERM
    #[arg(last = true, value_name = "CMD", help_heading = NO_HEADING)]
    pub command: Vec<OsString>,

    /// The source of each setting.
    #[arg(skip)]
    pub origins: Origins,
}

impl Run {
    /// The protections asked for.
    pub fn protection(&self) -> Protection {
        let ask = if self.protect.unprotected { Ask::No } else { Ask::Yes };
        Protection {
            lock_memory: ask,
            lower_oom_score: ask,
            realtime_priority: self.protect.realtime,
        }
    }

    /// What is killed with a worker; by default also its descendants, if there is a command.
    pub fn reach(&self) -> Reach {
        let otherwise = if self.command.is_empty() { Reach::Process } else { Reach::Tree };
        self.further.reach.unwrap_or(otherwise)
    }

    /// The first signal of a kill; none with `--notify-only`.
    pub fn reap_signal(&self) -> ReapSignal {
        if self.notify_only { ReapSignal::NotifyOnly } else { self.reap.signal }
    }
}

/// The settings file, and the check of all settings.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Read settings from this TOML file [default: the file that HANGWATCH_CONFIG names]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the settings: print each with its source, and end
    #[arg(long)]
    pub check: bool,
}

/// How the watchdog protects itself.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = WATCHDOG_HEADING)]
pub struct Protect {
    /// Do not lock the watchdog's memory, and do not lower its OOM score
    ///
    /// By default it tries both, and logs once if the kernel refuses one.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub unprotected: bool,

    /// Run the watchdog's main thread at this SCHED_FIFO priority, 1 to 99 [default: none]
    #[arg(long, value_name = "PRIORITY",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub realtime: Option<u8>,
}

/// The HTTP server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct Listen {
    /// Serve /metrics, /healthz and /state over HTTP at this address [default: none]
    ///
    /// Such as 127.0.0.1:9469 (IPv6 in brackets), or unix: and the absolute path of a socket,
    /// such as unix:/run/hangwatch/train.sock, to which its owner and the members of --group
    /// may connect. Every client that can connect can read all pids, commands and scopes.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,

    /// Allow an address for --listen that other hosts can reach
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub listen_anywhere: bool,

    /// The host's name in HTTP responses [default: the kernel's]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub host: Option<String>,
}

impl Listen {
    /// Who may connect.
    pub fn audience(&self) -> Audience {
        if self.listen_anywhere { Audience::Anyone } else { Audience::ThisHost }
    }
}
