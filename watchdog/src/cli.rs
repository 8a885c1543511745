#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The command line of the `hangwatch` binary: what may be said, and what it means.
//!
//! [`Cli::read`] is the way in. Nothing is done here: each command's options are a struct
//! that its module gets. `value` has the parsers of single values.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::Styles;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use rustix::process::Signal;

use crate::listen::{Address, Audience};
use crate::logging::Format;
use crate::server::{self, Ask, Protection};
use config::{Origins, Variables};
use evidence::Evidence;
use fleet::Fleet;
use incidents::{Incidents, Report, Show, Trace};
use learning::{Learn, Scopes, Shadow};
use value::ReapSignal;

pub mod config;
pub mod evidence;
pub mod fleet;
pub mod further;
pub mod incidents;
pub mod learning;
pub mod operator;
pub mod suspects;
pub mod value;

pub use further::{Further, Hook};
pub use operator::{Completions, Doctor, Manual, Top};
pub use suspects::{Cascade, CascadePolicy};

/// The environment variable that names the segment.
pub const SEGMENT_VARIABLE: &str = "HANGWATCH_SEGMENT";

const EXIT_CODES: &str = "\
Exit codes:
  0        done; or the command ended with 0
  1        doctor: something that hangwatch needs is missing
  2        the command line is wrong
  123      a bug in hangwatch made the watchdog panic
  124      exec: the deadline passed and the command was removed
  125      hangwatch itself failed
  126      the command was found and cannot be executed
  127      the command was not found
  128 + N  the command died of signal N
  other    the command's own code, passed through";

const ENVIRONMENT: &str = "\
Environment:
  HANGWATCH_CONFIG   run: the file of settings, where --config does not name it
  HANGWATCH_SEGMENT  the segment's name, where --segment does not give it
  HANGWATCH_LOG      what is logged (trace, debug, info, warn, error, or a
                     filter such as warn,hangwatch=debug); else RUST_LOG;
                     else info
  NO_COLOR           no colours in the log, whatever its value";

const DURATIONS: &str = "\
Durations have units (us, ms, s, m, h, days): 100ms, 5s, 1m30s. A bare number
counts seconds: 2.5 is 2500ms.";

const SETTINGS: &str = "\
Settings: what the options above say can also be said by the environment, as
HANGWATCH_ and the option's name in capitals (HANGWATCH_MAX_REAPS=3), and by a
file of TOML (max-reaps = 3), named by --config or HANGWATCH_CONFIG. The command
line counts most, then the environment, then the file. --check shows what counts
and where it comes from. packaging/hangwatch.toml has every setting.

A watchdog without a command reads the file again on SIGHUP. What is done about
an expired timer changes at once, armed timers included: signal, grace,
notify-only, max-reaps, warn-at, cascade, cascade-policy, stopped, traced,
frozen; and so do deadlines, for acquires to come. A change to anything else is
named in the log and waits for a restart. A file with a mistake changes nothing.
SIGHUP does not release the brake.";

const ABOUT: &str = "\
hangwatch finds the worker process that hangs, says why, and removes it.

Workers arm timers in a segment of shared memory, for next to nothing. The
watchdog keeps their deadlines, and reaps the process behind a timer whose
deadline passes: through the kernel's own handle on that process, and never
another.";

const EXAMPLES: &str = "\
Examples:
  hangwatch demo                                 see it at work
  hangwatch run -- torchrun train.py             guard a job's workers
  hangwatch exec --deadline 30s -- make test     a deadline for any command
  hangwatch status                               who waits where, how long
  hangwatch top                                  the same, live
  hangwatch show                                 why the last one hung";

/// A deadline for every step of every worker.
#[derive(Debug, Parser)]
#[command(
    name = "hangwatch",
    version,
    long_about = ABOUT,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{ENVIRONMENT}\n\n{EXIT_CODES}"),
    max_term_width = 80,
    styles = Styles::plain(),
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it at work: workers, one of which hangs, and its reap
    ///
    /// Makes a segment, starts the watchdog and worker processes that hash the files
    /// of a directory under nested scopes; one worker deadlocks and one crashes. On a
    /// terminal the table is shown live. At the end it tells who hung, in which
    /// scopes, how late the reap came, and who finished.
    Demo(Demo),
    /// Run the watchdog of a segment, alone or around a command
    ///
    /// With a command: makes a segment with a name of its own (or the one given with
    /// --segment), starts the command with HANGWATCH_SEGMENT set to it, passes
    /// signals and the exit status through, and removes the segment when the command
    /// has ended.
    ///
    /// Alone: serves the segment named by --segment or HANGWATCH_SEGMENT until
    /// SIGTERM or SIGINT, and keeps it for a successor. A segment that is there
    /// already is adopted, with its workers and their armed timers.
    Run(Box<Run>),
    /// Show every lane of a segment: pid, command, scope, age, time left
    ///
    /// Reads the segment and disturbs nobody; the watchdog need not run.
    Status(Status),
    /// Show what the scopes took, and the deadline that suggests, with its confidence
    ///
    /// Count, quantiles and maximum are over all workers that are and were.
    Scopes(Scopes),
    /// Write the suggested deadlines into a file for run --deadlines
    ///
    /// First let a job run for a while, with generous deadlines or notify-only.
    Learn(Learn),
    /// Show what would have been reaped by a watchdog that only reports
    ///
    /// For a watchdog with --notify-only and --deadlines: by scope, how many acquires
    /// ran beyond their deadline, and how late they ended.
    Shadow(Shadow),
    /// Watch every lane of a segment live
    ///
    /// Like status, but live: the oldest first, each age against its allowance, with
    /// the details, statistics and flight record of a lane at a key. Only reads the
    /// segment: the watchdog need not run, and nobody is slowed. It waits for a
    /// segment that is not there yet. ? shows its keys.
    Top(Top),
    /// Show the workers of many hosts in one table, the oldest first
    ///
    /// Asks watchdogs that run with --listen for their states, all at once. Marks the
    /// odd one out of a job whose other ranks wait in one scope.
    Fleet(Fleet),
    /// Give a command a deadline, and remove it with its descendants when it passes
    ///
    /// The command may be anything; it need not know hangwatch. If it ends in time,
    /// hangwatch ends as it did. If the deadline passes first, it is removed with all
    /// its descendants, also those that have daemonised or opened a session of their
    /// own, and hangwatch ends with 124.
    ///
    /// INT, TERM, HUP, QUIT, USR1, USR2 and WINCH are passed on to the command.
    Exec(Exec),
    /// Let the watchdog of a segment signal again after its brake engaged
    ///
    /// See run --max-reaps. Find out first why so many deadlines passed at once: the
    /// workers that are overdue still are judged again at once, and reaped, up to
    /// --max-reaps of them in a minute before the brake holds anew. A worker that
    /// has released its timer meanwhile, or armed it anew, is left alone.
    ReleaseBrake(ReleaseBrake),
    /// Say what works on this host, what does not, and what to change
    ///
    /// Examines the kernel, /dev/shm, the clock, this user's rights and limits, and
    /// the container it is run in. Run it as the watchdog is to be run.
    Doctor(Doctor),
    /// Write a completion script for a shell
    Completions(Completions),
    /// Write the man pages
    Man(Manual),
    /// One worker of the demo.
    #[command(hide = true)]
    DemoWorker(DemoWorker),
    /// Captures one worker's evidence; the watchdog starts it.
    #[command(hide = true)]
    EvidenceHelper(EvidenceHelper),
    /// Writes incidents down; the watchdog starts it.
    #[command(hide = true)]
    IncidentWriter(IncidentWriter),
    /// List what is kept of expiries: when, who, in which scope, how it ended
    ///
    /// The newest first. One that cannot be read is a line that says why.
    Incidents(Incidents),
    /// Tell the story of one incident: who hung, where, since when, and the stacks
    ///
    /// The thread that hangs comes first with its stacks; what is long is folded.
    Show(Show),
    /// Write one incident as a page for the browser
    ///
    /// One file that needs nothing else: a timeline of what all workers did around the
    /// hang, the suspect, the stacks, and all that was captured. Nothing in it is
    /// loaded from anywhere.
    Report(Report),
    /// Write what workers did last as a trace that Perfetto opens
    ///
    /// The flight records of all lanes, of an incident or of a segment as it is now
    /// (which is only read), in the Chrome trace event format: open it at
    /// ui.perfetto.dev or chrome://tracing. A track a thread, a slice a scope.
    Trace(Trace),
    /// Remove a segment that nobody uses
    ///
    /// Refused while a watchdog serves the segment or a worker is attached to it.
    /// With --stale: every segment that run, exec or demo made for itself and could
    /// not remove because it was killed. The next run, exec or demo without a
    /// --segment does so, too.
    Rm(Rm),
}

/// The options of `hangwatch demo`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    exactly the hung worker was reaped, and the others' results are right
  125  anything else

Examples:
  hangwatch demo
  hangwatch demo --workers 8 /usr/share/doc")]
pub struct Demo {
    /// The directory whose files are hashed
    #[arg(id = "hashed", value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,

    /// How many workers to start, 4 to 64
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(4..=64))]
    pub workers: u32,

    /// What is captured of the worker that hangs, and where it is kept.
    #[command(flatten)]
    pub evidence: Evidence,
}

/// The options of `hangwatch run`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{DURATIONS}

{SETTINGS}

{ENVIRONMENT}

{EXIT_CODES}

Examples:
  hangwatch run -- torchrun --nproc-per-node 8 train.py
  hangwatch run --signal TERM --grace 10s -- gunicorn app:app
  hangwatch run --segment train --notify-only --log json
  hangwatch run --segment train --standby"))]
pub struct Run {
    /// The segment's name: letters, digits, '.', '_' and '-'
    ///
    /// Without a command, HANGWATCH_SEGMENT is used where this is absent. With a
    /// command it is not: it would be the segment of a watchdog around this one.
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// Lanes of a new segment, one for each worker thread, 1 to 65536 [default: 256]
    ///
    /// A segment that is there already keeps its own, and is refused if this is
    /// given and differs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub lanes: Option<u32>,

    /// Timers of each lane of a new segment, 1 to 1024 [default: 64]
    ///
    /// So many deadlines can be armed at once by one thread before it takes a
    /// second lane. A segment that is there already keeps its own, and is refused
    /// if this is given and differs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub timers: Option<u32>,

    /// The longest time between two ticks, 1ms to 1m [default: 100ms]
    ///
    /// Deadlines farther off than this cost a worker the least; nearer ones wake
    /// the watchdog. It does not make a reap late. Fixed for a segment's life: one
    /// that is there already keeps its own, and is refused if this is given and
    /// differs.
    #[arg(long, value_name = "DURATION", value_parser = value::interval,
          allow_hyphen_values = true)]
    pub max_interval: Option<Duration>,

    /// The group whose members may attach, by name or number [default: only this user]
    #[arg(long, value_name = "GROUP", value_parser = value::group)]
    pub group: Option<u32>,

    /// How a reap is done.
    #[command(flatten)]
    pub reap: Reap,

    /// Report expiries and signal nobody; the same as --signal none
    ///
    /// With --deadlines it is shadow mode: what would have been reaped, and how late
    /// it was in the end, is logged, and counted for `hangwatch shadow`.
    #[arg(long, conflicts_with_all = ["signal", "grace"], num_args = 0..=1, require_equals = true,
          default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub notify_only: bool,

    /// How long scopes may take whose acquire brings no time: a file of `hangwatch learn`
    ///
    /// It is read anew at SIGHUP, by a watchdog without a command: acquires that are
    /// under way keep their deadlines. Absent, what an earlier watchdog of the segment
    /// was given stays.
    #[arg(long, value_name = "FILE")]
    pub deadlines: Option<PathBuf>,

    /// At more reaps than this in a minute, signal nobody until told otherwise
    ///
    /// A brake: when so many expire, the deadlines may be wrong rather than the
    /// workers. It is released by `hangwatch release-brake`; who is overdue still is
    /// judged again then.
    /// Absent, there is no brake, but one that a watchdog before this one left holds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_reaps: Option<u32>,

    /// Report a timer once when this fraction of its allowance has passed
    ///
    /// Above 0 and below 1. The worker is not touched.
    #[arg(long, value_name = "FRACTION", value_parser = value::fraction,
          allow_hyphen_values = true)]
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
    /// A worker with TORCHELASTIC_ERROR_FILE in its environment gets that file
    /// written before it is signalled, so that torchrun's summary names it and the
    /// scope it hung in, not a peer. Only workers of this user, in directories of
    /// this user, and never over a file that is there.
    #[arg(long, num_args = 0..=1, require_equals = true,
          default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub no_error_files: bool,

    /// How the watchdog protects itself.
    #[command(flatten)]
    pub protect: Protect,

    /// Wait until the segment's watchdog is gone, then take over at once
    #[arg(long, conflicts_with = "command", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub standby: bool,

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
    #[arg(last = true, value_name = "CMD")]
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

    /// What a reap begins with, `--notify-only` taken into account.
    pub fn reap_signal(&self) -> ReapSignal {
        if self.notify_only { ReapSignal::NotifyOnly } else { self.reap.signal }
    }
}

/// Where settings come from, beside the command line.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Take settings from this file of TOML, else from HANGWATCH_CONFIG's
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Run nothing: check the settings, and show each with where it comes from
    #[arg(long)]
    pub check: bool,
}

/// Which segments are read, and how they are shown.
#[derive(Debug, Args)]
pub struct Observed {
    /// The segment's name, else HANGWATCH_SEGMENT's; absent, every one this user may read
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// Write JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The options of `hangwatch status`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{ENVIRONMENT}

Examples:
  hangwatch status
  hangwatch status --segment train --json"))]
pub struct Status {
    /// Which segments, and how they are shown.
    #[command(flatten)]
    pub observed: Observed,
}

/// The options of `hangwatch exec`.
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
{DURATIONS}

{ENVIRONMENT}

{EXIT_CODES}

Examples:
  hangwatch exec --deadline 30s -- make test
  hangwatch exec --deadline 5m --signal TERM --grace 10s -- ./backup.sh
  hangwatch exec --deadline 1h --scope nightly --segment ci -- ./nightly"))]
pub struct Exec {
    /// How long the command may run
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

    /// What is captured before it, and where it is kept.
    #[command(flatten)]
    pub evidence: Evidence,

    /// How the log is written.
    #[command(flatten)]
    pub log: Log,

    /// The command to run, with its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// The options of `hangwatch rm`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    the segment is gone
  2    the command line is wrong
  125  there is no such segment, it is in use, or it is another user's

Examples:
  hangwatch rm train
  hangwatch rm --stale")]
pub struct Rm {
    /// The segment's name
    #[arg(value_name = "NAME", required_unless_present = "stale")]
    pub segment: Option<String>,

    /// Remove every segment that died with its maker, and that nobody uses
    #[arg(long, conflicts_with = "segment")]
    pub stale: bool,
}

/// The options of `hangwatch release-brake`.
#[derive(Debug, Args)]
pub struct ReleaseBrake {
    /// The segment's name, else HANGWATCH_SEGMENT's
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,
}

/// What one worker of the demo does; the demo starts it.
#[derive(Debug, Args)]
pub struct DemoWorker {
    /// The directory whose files are hashed.
    pub dir: PathBuf,
    /// Which share of the files it has.
    #[arg(long)]
    pub share: usize,
    /// Of how many.
    #[arg(long)]
    pub of: usize,
    /// What becomes of it.
    #[arg(long, value_enum)]
    pub fate: Fate,
}

/// Whose evidence a helper captures; the watchdog starts it.
#[derive(Debug, Args)]
pub struct EvidenceHelper {
    /// The worker, whose pidfd is the standard input.
    #[arg(long)]
    pub pid: u32,
    /// How long it may take.
    #[arg(long, value_parser = value::duration)]
    pub budget: Duration,
    /// The thread to begin with, by its id in its own PID namespace.
    #[arg(long)]
    pub first_tid: Option<u64>,
    /// Do not stop it for its native stacks.
    #[arg(long)]
    pub no_stop: bool,
    /// What is redacted beside the rule.
    #[arg(long, value_name = "REGEX")]
    pub redact: Vec<String>,
}

/// Where incidents are written; the watchdog starts the writer.
#[derive(Debug, Args)]
pub struct IncidentWriter {
    /// The directory.
    #[arg(long)]
    pub dir: PathBuf,
    /// How many are kept.
    #[arg(long)]
    pub count: usize,
    /// What they may take, bytes.
    #[arg(long)]
    pub bytes: u64,
}

/// What becomes of a worker of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fate {
    /// It finishes.
    Finish,
    /// Two of its threads take two locks in opposite order.
    Deadlock,
    /// It aborts.
    Crash,
}

/// Whether an overdue worker that something holds up is reaped all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Treatment {
    /// It is reaped like any other.
    Reap,
    /// It is reported once, and left alone for as long as it is held up.
    Report,
}

impl From<Treatment> for server::Treatment {
    fn from(treatment: Treatment) -> Self {
        match treatment {
            Treatment::Reap => Self::Reap,
            Treatment::Report => Self::Report,
        }
    }
}

/// What is done about an overdue worker that something holds up.
#[derive(Debug, Clone, Copy, Args)]
pub struct Holds {
    /// An overdue worker that is stopped (SIGSTOP): reap it, or report it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "reap",
        hide_possible_values = true
    )]
    pub stopped: Treatment,

    /// An overdue worker that a debugger traces: report it, or reap it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "report",
        hide_possible_values = true
    )]
    pub traced: Treatment,

    /// An overdue worker in a frozen control group: report it, or reap it
    #[arg(
        long,
        value_name = "reap|report",
        value_enum,
        default_value = "report",
        hide_possible_values = true
    )]
    pub frozen: Treatment,
}

/// How the watchdog protects itself.
#[derive(Debug, Clone, Copy, Args)]
pub struct Protect {
    /// Do not lock the watchdog's memory, nor lower its OOM score
    ///
    /// Both are asked for by default; what the kernel refuses is logged once.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub unprotected: bool,

    /// Run the tick at this real-time priority (SCHED_FIFO), 1 to 99 [default: none]
    #[arg(long, value_name = "PRIORITY", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub realtime: Option<u8>,
}

/// How others are told over HTTP.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// Answer /metrics, /healthz and /state over HTTP at this address [default: nowhere]
    ///
    /// 127.0.0.1:9469 (IPv6 in brackets), or unix: and the whole path of a socket, such as
    /// unix:/run/hangwatch/train.sock, which its owner (and the members of --group)
    /// may connect to. Whoever may connect learns every pid, command and scope.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<Address>,

    /// Let --listen be an address that other hosts can reach
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, hide_possible_values = true,
          action = clap::ArgAction::Set, value_name = "BOOL")]
    pub listen_anywhere: bool,

    /// The host's name in what --listen tells [default: the kernel's]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub host: Option<String>,
}

impl Listen {
    /// Who may connect.
    pub fn audience(&self) -> Audience {
        if self.listen_anywhere { Audience::Anyone } else { Audience::ThisHost }
    }
}

/// How a reap is done.
#[derive(Debug, Clone, Copy, Args)]
pub struct Reap {
    /// What a reap begins with: a signal's name or number, or none
    ///
    /// none reports the expiry and signals nobody. A timer may ask for a signal of
    /// its own.
    #[arg(long, value_name = "SIGNAL", value_parser = value::reap_signal,
          default_value = "KILL", allow_hyphen_values = true)]
    pub signal: ReapSignal,

    /// How long after any other signal KILL follows; at least 100ms are given
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

impl Cli {
    /// Reads the command line, the environment and the file of settings of this process; ends it
    /// with the help or the error there is to print.
    pub fn read() -> Self {
        Self::try_read_from(env::args_os(), &Variables::of_process())
            .unwrap_or_else(|error| error.exit())
    }

    /// As [`Cli::read`], of these words and this environment. A variable that is empty is as good as
    /// none.
    ///
    /// # Errors
    ///
    /// The help or the error there is to print.
    pub fn try_read_from<W>(
        words: impl IntoIterator<Item = W>,
        variables: &Variables,
    ) -> Result<Self, clap::Error>
    where
        W: Into<OsString> + Clone,
    {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let mut cli = Self::try_parse_from(&words).map_err(|error| match error.kind() {
            ErrorKind::InvalidUtf8 => Self::not_utf8(&words).unwrap_or(error),
            _ => error,
        })?;
        let named = match &mut cli.command {
            Command::Run(run) => {
                **run = config::settle(words, variables)?;
                let is_named = run.segment.is_some() || !run.command.is_empty();
                return if is_named { Ok(cli) } else { Err(Self::unnamed("run")) };
            }
            Command::Trace(trace) if trace.id.is_none() => &mut trace.segment,
            Command::Status(Status { observed: Observed { segment, .. } })
            | Command::Scopes(Scopes { observed: Observed { segment, .. } })
            | Command::Shadow(Shadow { observed: Observed { segment, .. } })
            | Command::Learn(Learn { segment, .. })
            | Command::Top(Top { segment, .. })
            | Command::Exec(Exec { segment, .. })
            | Command::ReleaseBrake(ReleaseBrake { segment }) => segment,
            _ => return Ok(cli),
        };
        if named.is_none() {
            *named = variables.get(SEGMENT_VARIABLE);
        }
        let is_named = named.is_some();
        match cli.command {
            Command::Exec(exec) if exec.reap.grace_is_in_vain() => {
                let why = "--grace delays the KILL after a gentler signal: name one, such as \
                           --signal TERM";
                Err(Self::error_of("exec", ErrorKind::ArgumentConflict, why))
            }
            Command::Trace(_) if !is_named => Err(Self::error_of(
                "trace",
                ErrorKind::MissingRequiredArgument,
                "name an incident, or a segment with --segment or HANGWATCH_SEGMENT",
            )),
            Command::ReleaseBrake(_) if !is_named => Err(Self::unnamed("release-brake")),
            _ => Ok(cli),
        }
    }

    /// clap does not say which word it could not read.
    fn not_utf8(words: &[OsString]) -> Option<clap::Error> {
        let word = words.iter().find(|word| word.to_str().is_none())?;
        let word = word.as_encoded_bytes().escape_ascii();
        let why = format!("'{word}' is not UTF-8, as options and names must be; a command may be");
        Some(Self::command().error(ErrorKind::InvalidUtf8, why))
    }

    fn unnamed(subcommand: &str) -> clap::Error {
        let why = "name the segment, with --segment or HANGWATCH_SEGMENT";
        Self::error_of(subcommand, ErrorKind::MissingRequiredArgument, why)
    }

    fn error_of(subcommand: &str, kind: ErrorKind, why: &str) -> clap::Error {
        let mut command = Self::command();
        command.build();
        let subcommand = command.find_subcommand_mut(subcommand).expect("it is defined above");
        subcommand.error(kind, why)
    }
}

#[cfg(test)]
mod tests;
