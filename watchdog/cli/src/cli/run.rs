#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! What may be said to `hangwatch run`.

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
    /// Without a command, the default is HANGWATCH_SEGMENT. With a command it is not:
    /// that would be the segment of a watchdog around this one.
    #[arg(long, value_name = "NAME", help_heading = SEGMENT_HEADING)]
    pub segment: Option<String>,

    /// Lanes of a new segment, one for each worker thread, 1 to 65536 [default: 256]
    ///
    /// An existing segment keeps its own number, and is refused if this option differs.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=65_536),
          help_heading = SEGMENT_HEADING)]
    pub lanes: Option<u32>,

    /// Timers of each lane of a new segment, 1 to 1024 [default: 64]
    ///
    /// A thread that arms more timers at once takes a second lane. An existing segment
    /// keeps its own number, and is refused if this option differs.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_024),
          help_heading = SEGMENT_HEADING)]
    pub timers: Option<u32>,

    /// Scope names of a new segment, 2 to 32768 [default: 4096]
    ///
    /// Each takes 1.4 KiB. Further names are still reported when they are overdue, but
    /// share the statistics and timeouts of "(other)". An existing segment keeps its own
    /// number, and is refused if this option differs.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(2..=32_768),
          help_heading = SEGMENT_HEADING)]
    pub scopes: Option<u32>,

    /// The longest time between two ticks, 1ms to 1m [default: 100ms]
    ///
    /// Nearer deadlines wake the watchdog, which costs the worker more; so no kill is
    /// late because of this. Fixed for a segment's life: an existing segment keeps its
    /// own value, and is refused if this option differs.
    #[arg(long, value_name = "DURATION", value_parser = value::interval,
          allow_hyphen_values = true, help_heading = SEGMENT_HEADING)]
    pub max_interval: Option<Duration>,

    /// The group whose members may attach, by name or number [default: only this user]
    #[arg(long, value_name = "GROUP", value_parser = value::group,
          help_heading = SEGMENT_HEADING)]
    pub group: Option<u32>,

    /// How a reap is done.
    #[command(flatten)]
    pub reap: Reap,

    /// Report expiries and signal nothing; the same as --signal none
    ///
    /// With --deadlines this is shadow mode: what would have been killed, and how late
    /// it ended, is logged, and counted for `hangwatch shadow`.
    #[arg(long, help_heading = KILLS_HEADING,
          conflicts_with_all = ["signal", "grace"], num_args = 0..=1, require_equals = true,
          default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub notify_only: bool,

    /// A file of `hangwatch learn`: timeouts of acquires that have none of their own
    ///
    /// On SIGHUP a watchdog without a command reads it again; running acquires keep
    /// their deadlines. Without this option the timeouts of an earlier watchdog of the
    /// segment stay in force.
    #[arg(long, value_name = "FILE", help_heading = "Deadlines")]
    pub deadlines: Option<PathBuf>,

    /// Deadlines for programs that set none.
    #[command(flatten)]
    pub automatic: Automatic,

    /// Kill limiter: after more kills than this in a minute, signal nothing more
    ///
    /// When so many timers expire, the timeouts are more likely wrong than the workers.
    /// `hangwatch release-brake` releases the limiter; workers that are still overdue are
    /// judged again then. Without this option there is no limiter, but one that an
    /// earlier watchdog left engaged stays so.
    #[arg(long, value_name = "N",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..),
          help_heading = KILLS_HEADING)]
    pub max_reaps: Option<u32>,

    /// Report a timer once when this fraction of its timeout has passed
    ///
    /// Above 0 and below 1. The worker is not touched.
    #[arg(long, value_name = "FRACTION", value_parser = value::fraction,
          allow_hyphen_values = true, help_heading = "Deadlines")]
    pub warn_at: Option<f64>,

    /// Who is reaped first.
    #[command(flatten)]
    pub cascade: Cascade,

    /// What a reap takes along.
    #[command(flatten)]
    pub further: Further,

    /// What is run for each expiry.
    #[command(flatten)]
    pub hook: Hook,

    /// What holds a worker up.
    #[command(flatten)]
    pub holds: Holds,

    /// What is captured of an overdue worker.
    #[command(flatten)]
    pub evidence: Evidence,

    /// Do not write the error files of torchrun's workers
    ///
    /// By default the file that a worker's TORCHELASTIC_ERROR_FILE names is written before
    /// the worker is signalled, so that torchrun's summary names this worker and its
    /// scope, not a peer. Only for workers of this user, in directories of this user, and
    /// never over an existing file.
    #[arg(long, help_heading = "Evidence", num_args = 0..=1, require_equals = true,
          default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub no_error_files: bool,

    /// How the watchdog protects itself.
    #[command(flatten)]
    pub protect: Protect,

    /// Wait until the segment's watchdog is gone, then take over at once
    #[arg(long, help_heading = SEGMENT_HEADING, conflicts_with = "command",
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub standby: bool,

    /// With a command, keep no second process that takes over if this one is killed
    ///
    /// By default `run -- CMD` keeps a small standby. If the watchdog is killed (SIGKILL,
    /// out of memory) or fails, the standby takes over at once and watches until the
    /// command and its last worker have ended. As PID 1 there is none.
    #[arg(long, help_heading = SEGMENT_HEADING, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub no_standby: bool,

    /// With a command, end when it ends, even if its workers are still alive
    ///
    /// By default the watchdog serves until the last worker has left, and then ends with
    /// the command's own code. The log names the workers that it watches, or leaves. The
    /// segment of workers that it leaves stays, for another watchdog.
    #[arg(long, help_heading = SEGMENT_HEADING, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL", requires_if("true", "command"))]
    pub leave_workers: bool,

    /// How others are told over HTTP.
    #[command(flatten)]
    pub listen: Listen,

    /// How the log is written.
    #[command(flatten)]
    pub log: Log,

    /// Where settings come from, beside the command line.
    #[command(flatten)]
    pub settings: Settings,

    /// The command to run, with its arguments; without one, serve until SIGTERM
    #[arg(last = true, value_name = "CMD", help_heading = NO_HEADING)]
    pub command: Vec<OsString>,

    /// Where the settings come from.
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

    /// What a reap takes along: of a command, by default the children of its workers, too.
    pub fn reach(&self) -> Reach {
        let otherwise = if self.command.is_empty() { Reach::Process } else { Reach::Tree };
        self.further.reach.unwrap_or(otherwise)
    }

    /// What a reap begins with, `--notify-only` taken into account.
    pub fn reap_signal(&self) -> ReapSignal {
        if self.notify_only { ReapSignal::NotifyOnly } else { self.reap.signal }
    }
}

/// Where settings come from, beside the command line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Take settings from this file of TOML, else from HANGWATCH_CONFIG's
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Run nothing: check the settings, and show each and where it comes from
    #[arg(long)]
    pub check: bool,
}

/// How the watchdog protects itself.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Protection of the watchdog")]
pub struct Protect {
    /// Do not lock the watchdog's memory, and do not lower its OOM score
    ///
    /// By default it tries both; what the kernel refuses is logged once.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub unprotected: bool,

    /// Run the tick at this real-time priority (SCHED_FIFO), 1 to 99 [default: none]
    #[arg(long, value_name = "PRIORITY",
          allow_negative_numbers = true, value_parser = clap::value_parser!(u8).range(1..=99))]
    pub realtime: Option<u8>,
}

/// How others are told over HTTP.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP")]
pub struct Listen {
    /// Answer /metrics, /healthz and /state over HTTP at this address [default: nowhere]
    ///
    /// 127.0.0.1:9469 (IPv6 in brackets), or unix: and the whole path of a socket, such as
    /// unix:/run/hangwatch/train.sock, which its owner and the members of --group may
    /// connect to. A client that can connect learns every pid, command and scope.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,

    /// Let --listen be an address that other hosts can reach
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub listen_anywhere: bool,

    /// The host's name in the answers of --listen [default: the kernel's]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub host: Option<String>,
}

impl Listen {
    /// Who may connect.
    pub fn audience(&self) -> Audience {
        if self.listen_anywhere { Audience::Anyone } else { Audience::ThisHost }
    }
}
