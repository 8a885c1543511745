#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The command line of the `hangwatch` binary: its commands, options and help.
//!
//! [`Cli::read`] is the entry point. This module only parses: each command's options are a struct that
//! the command's module gets. `value` parses single values, `help` lays out the help pages.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::Styles;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use config::Variables;
use evidence::Evidence;
use fleet::Fleet;
use incidents::{Incidents, Report, Show, Trace};
use learning::{Learn, Scopes, Shadow};

pub mod analyze;
pub mod auto;
pub mod config;
pub mod demo;
pub mod dump;
pub mod evidence;
pub mod exec;
pub mod fleet;
pub mod further;
mod help;
pub mod helpers;
pub mod holds;
pub mod incidents;
pub mod learning;
pub mod operator;
pub mod reap;
pub mod run;
pub mod segments;
pub mod suspects;
pub mod value;
mod words;

pub use analyze::Analyze;
pub use auto::Automatic;
pub use demo::{Demo, DemoWorker, Fate};
pub use dump::Dump;
pub use exec::Exec;
pub use further::{Further, Hook};
pub use helpers::{EvidenceHelper, FileReader, IncidentWriter, WaitHelper};
pub use holds::{Holds, Treatment};
pub use operator::{Completions, Doctor, Manual, Top};
pub use reap::{Log, Reap};
pub use run::{Listen, Protect, Run, Settings};
pub use segments::{Observed, ReleaseBrake, Rm, Status};
pub use suspects::{Cascade, CascadePolicy};

/// Undoes a heading: clap gives the heading of an option to all arguments that follow it.
const NO_HEADING: Option<&str> = None;

/// The environment variable that names the directory of incidents.
pub const INCIDENTS_VARIABLE: &str = "HANGWATCH_INCIDENTS";

/// The environment variable that names the segment.
pub const SEGMENT_VARIABLE: &str = "HANGWATCH_SEGMENT";

const EXIT_CODES: &str = "\
Exit codes:
  0        success; or the command ended with 0
  1        doctor: something that hangwatch needs is missing;
           dump: a process does not exist or cannot be inspected
  2        the command line is wrong
  123      a bug in hangwatch made the watchdog panic
  124      exec: the deadline passed and the command was killed
  125      hangwatch itself failed
  126      the command was found and cannot be executed
  127      the command was not found
  128 + N  signal N killed the command; or, without a command, signal N ended
           the watchdog (0 after TERM and INT)
  other    the command's own code, passed through";

const ENVIRONMENT: &str = "\
Environment:
  HANGWATCH_CONFIG     run: the settings file, if --config is not given
  HANGWATCH_SEGMENT    the segment's name, if --segment is not given
  HANGWATCH_INCIDENTS  the directory of incidents, if --incidents is not given
  HANGWATCH_LOG        what is logged: trace, debug, info, warn, error, or a
                       filter such as warn,hangwatch=debug. If it is not set,
                       RUST_LOG; if that is not set either, info
  NO_COLOR             if set: no colours";

const DURATIONS: &str = "\
Durations have units (us, ms, s, m, h, days): 100ms, 5s, 1m30s. A number without
a unit is in seconds: 2.5 is 2500ms.";

const SETTINGS: &str = "\
Settings: every option above can also be set by an environment variable,
HANGWATCH_ and the option's name in capitals (HANGWATCH_MAX_REAPS=3), or by a
line of a TOML file (max-reaps = 3) that --config or HANGWATCH_CONFIG names. The
command line overrides the environment, the environment overrides the file.
--check prints the settings in force and the source of each.
packaging/hangwatch.toml lists every setting. exec and demo read the variables of
the settings that they have, but no file.

A watchdog without a command reads the file again on SIGHUP. These settings
change at once, also for armed timers: signal, grace, notify-only, max-reaps,
warn-at, cascade, cascade-policy, stopped, traced, frozen. deadlines changes for
new acquires. Any other change is logged and takes effect after a restart. If the
file has a mistake, nothing changes. SIGHUP does not release the kill limiter.";

const ABOUT: &str = "\
hangwatch finds the worker process that hangs, says why, and kills it.

Each worker of a job writes the deadline of its current step into shared memory
(the job's segment), which costs it next to nothing. The watchdog reads the
deadlines. When one passes, it captures why the process hangs, and kills that
process and no other.";

const EXAMPLES: &str = "\
Examples:
  hangwatch dump 4711                  it hangs now: say why process 4711 hangs
  hangwatch exec 30s make test         kill any command after 30 seconds
  hangwatch run --auto -- torchrun train.py
                                       guard the workers of a job
  hangwatch status                     what each worker does, and for how long
  hangwatch show                       why the last killed worker hung
  hangwatch demo                       see it at work";

/// Finds the worker process that hangs, says why, and kills it.
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
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands of `hangwatch`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See hangwatch at work: one of four workers hangs and is killed
    ///
    /// Starts a watchdog and workers that hash the files of a directory. One worker
    /// deadlocks and one crashes. On a terminal, a live table shows what each worker does.
    /// At the end the output says which worker hung, where and why, how late the kill came,
    /// and which workers finished.
    Demo(Demo),
    /// Run the watchdog of a job, around its command or on its own
    ///
    /// With a command: creates a segment (the shared memory that workers write their
    /// deadlines to) with a new name, or the name of --segment, and runs the command with
    /// HANGWATCH_SEGMENT set to that name. Signals and the exit status are passed through.
    /// The segment is removed when the command and its last worker have ended. A small
    /// second process takes over if this one is killed.
    ///
    /// Without a command: watches the segment that --segment or HANGWATCH_SEGMENT names
    /// until SIGTERM or SIGINT, and keeps it for the next watchdog. If the segment exists,
    /// the watchdog takes it over with its workers and their armed timers.
    Run(Box<Run>),
    /// Show what each worker does now: scope, age, time left
    ///
    /// One line for each worker thread: pid, command, current scope, age of the scope, time
    /// left. Only reads the segment: works without a watchdog and does not slow workers.
    Status(Status),
    /// Show how long scopes take, and which deadline fits each
    ///
    /// Count, quantiles and maximum cover all workers of the segment, running and ended. The
    /// suggested deadline has a confidence, which grows with the count.
    Scopes(Scopes),
    /// Write the suggested deadlines to a file for run --deadlines
    ///
    /// Let the job run for a while first, with generous deadlines or with --notify-only.
    Learn(Learn),
    /// Show what a watchdog that only reports would have killed
    ///
    /// For each scope: how many acquires exceeded their deadline, and how late they ended.
    /// Needs a watchdog with --notify-only and --deadlines.
    Shadow(Shadow),
    /// Show what each worker does now, live
    ///
    /// Like status, but live: the oldest scope first, each age beside its
    /// timeout. Press ? for the keys; one shows a thread's details, statistics and latest
    /// records. Only reads the segment: works without a watchdog and does not slow workers.
    /// If the segment does not exist yet, waits for it.
    Top(Top),
    /// Show the workers of many hosts in one table
    ///
    /// Asks all given watchdogs at once; each must run with --listen. The oldest scope comes
    /// first. Where all ranks of a job but one wait in the same scope, that one is marked.
    Fleet(Fleet),
    /// Run a command with a deadline; when it passes, say why and kill
    ///
    /// Works with any command; it needs no change. If the command ends in time, hangwatch
    /// ends with its exit code. If the deadline passes first, the stacks are captured, and
    /// the command is killed with all its descendants, including daemons and processes in
    /// other sessions; hangwatch ends with 124.
    Exec(Exec),
    /// Say why processes hang now: what waits for what, all stacks
    ///
    /// Works on any process in any language, and kills nothing. The first line is the
    /// verdict: a deadlock with its threads and locks, or the thread or process that the
    /// others wait for, or the point where the chain of waits is lost. Then follow the chain
    /// of waits, and the Python and native stacks; equal stacks are merged. Each process is
    /// stopped for some milliseconds while its stacks are copied. Processes of other users
    /// need root.
    Dump(Dump),
    /// Let the watchdog kill again after its kill limiter engaged
    ///
    /// WARNING: workers that are still overdue are then killed at once, up to --max-reaps of
    /// them in a minute before the limiter engages again. First find out why so many
    /// deadlines passed together (hangwatch status, hangwatch incidents). Workers that have
    /// released or armed their timer since are not killed.
    ReleaseBrake(ReleaseBrake),
    /// Check what works on this host, and say what to change
    ///
    /// Checks the kernel, /dev/shm, the clock, the permissions and limits of this user, and
    /// the container. Run it as the same user and in the same place as the watchdog.
    Doctor(Doctor),
    /// Write a completion script for a shell
    Completions(Completions),
    /// Write the man pages
    Man(Manual),
    /// One worker of the demo.
    #[command(hide = true)]
    DemoWorker(DemoWorker),
    /// Captures one worker's evidence. Started by the watchdog.
    #[command(hide = true)]
    EvidenceHelper(EvidenceHelper),
    /// Writes torch's error files. Started by the watchdog.
    #[command(hide = true)]
    ErrorFileWriter,
    /// Finds out what processes wait for. Started by whatever needs a verdict.
    #[command(hide = true)]
    WaitHelper(WaitHelper),
    /// Reads a settings file. Started by the watchdog.
    #[command(hide = true)]
    FileReader(FileReader),
    /// Writes incidents to disk. Started by the watchdog.
    #[command(hide = true)]
    IncidentWriter(IncidentWriter),
    /// List incidents: when, which worker, in which scope, outcome
    ///
    /// An incident is the record of one expired deadline. The newest comes first. For an
    /// incident that cannot be read, the line says why.
    Incidents(Incidents),
    /// Show one incident: what hung, where, since when, the stacks
    ///
    /// The thread that hung and its stacks come first. Long parts are shortened; --all shows
    /// them whole.
    Show(Show),
    /// Write one incident as an HTML page
    ///
    /// One self-contained file: a timeline of what all workers did around the hang, the
    /// suspect, the stacks, and everything else that was captured.
    Report(Report),
    /// Write what workers did last as a trace for Perfetto
    ///
    /// The latest records of all worker threads, from an incident or from a running job
    /// (which is only read), in the Chrome trace event format. Open the file at
    /// ui.perfetto.dev or chrome://tracing. Each thread is a track, each scope a slice.
    Trace(Trace),
    /// Find the ranks at fault in Flight Recorder dumps of PyTorch
    ///
    /// Reads the files that torch 2.5 and later write when a collective times out (pickle or
    /// JSON, NCCL and gloo), one for each rank, from all hosts. Names the ranks that others
    /// wait for and that do not wait themselves, ranks that wait for each other, ranks
    /// without a dump, and collectives called with different sizes. The dumps are parsed as
    /// data: no code in them is executed.
    Analyze(Analyze),
    /// Remove a segment that is not in use
    ///
    /// Fails while a watchdog watches the segment or a worker is attached to it. --stale
    /// removes every segment that run, exec or demo created for itself and could not remove
    /// because it was killed; the next run, exec or demo without --segment does so, too.
    Rm(Rm),
}

impl Command {
    /// The directory of incidents that the command line names; `run` takes it from its settings instead.
    fn incidents_dir(&mut self) -> Option<&mut Option<PathBuf>> {
        match self {
            Command::Exec(Exec { evidence, .. }) | Command::Demo(Demo { evidence, .. }) => {
                Some(&mut evidence.incidents.dir)
            }
            Command::Top(Top { incidents, .. }) => Some(incidents),
            Command::Incidents(Incidents { place, .. })
            | Command::Show(Show { place, .. })
            | Command::Report(Report { place, .. })
            | Command::Trace(Trace { place, .. }) => Some(&mut place.dir),
            _ => None,
        }
    }
}

impl Cli {
    /// Parses this process's command line, environment and settings file.
    ///
    /// On an error, and for help, prints it and ends the process.
    pub fn read() -> Self {
        Self::try_read_from(env::args_os(), &Variables::of_process())
            .unwrap_or_else(|error| error.exit())
    }

    /// As [`Cli::read`], with the given words and environment. An empty variable counts as not set.
    ///
    /// # Errors
    ///
    /// The help or the error to print.
    pub fn try_read_from<W>(
        words: impl IntoIterator<Item = W>,
        variables: &Variables,
    ) -> Result<Self, clap::Error>
    where
        W: Into<OsString> + Clone,
    {
        let mut words = words::marked(words.into_iter().map(Into::into).collect());
        // `help --help` shows the same as `help`.
        if words.get(1).is_some_and(|word| word == "help") {
            words.retain(|word| word != "--help" && word != "-h");
        }
        let mut cli = help::parse(&words).map_err(|error| match error.kind() {
            ErrorKind::InvalidUtf8 => Self::not_utf8(&words).unwrap_or(error),
            _ => error,
        })?;
        let has_settings = match &cli.command {
            Command::Exec(_) => Some("exec"),
            Command::Demo(_) => Some("demo"),
            _ => None,
        };
        if let Some(subcommand) = has_settings {
            let words = config::with_environment(&words, subcommand, variables)?;
            cli = Self::try_parse_from(words)?;
        }
        if let Some(dir) = cli.command.incidents_dir().filter(|dir| dir.is_none()) {
            *dir = variables.get(INCIDENTS_VARIABLE).map(PathBuf::from);
        }
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
        if let Command::Exec(exec) = &mut cli.command {
            exec.apply_kill_after();
        }
        match cli.command {
            Command::Exec(exec) if exec.reap.grace_is_in_vain() => {
                let why = "--grace is the time between a first signal and KILL: add a first signal, \
                           such as --signal TERM";
                Err(Self::error_of("exec", ErrorKind::ArgumentConflict, why))
            }
            Command::Trace(_) if !is_named => Err(Self::error_of(
                "trace",
                ErrorKind::MissingRequiredArgument,
                "which incident or segment? Give an incident's ID, --segment NAME, or set \
                 HANGWATCH_SEGMENT",
            )),
            Command::ReleaseBrake(_) if !is_named => Err(Self::unnamed("release-brake")),
            _ => Ok(cli),
        }
    }

    /// Names the word that is not UTF-8, which clap does not do.
    fn not_utf8(words: &[OsString]) -> Option<clap::Error> {
        let word = words.iter().find(|word| word.to_str().is_none())?;
        let word = word.as_encoded_bytes().escape_ascii();
        let why = format!("'{word}' is not UTF-8; only the command to run may be anything else");
        Some(Self::command().error(ErrorKind::InvalidUtf8, why))
    }

    fn unnamed(subcommand: &str) -> clap::Error {
        let why = "which segment? Give --segment NAME, or set HANGWATCH_SEGMENT";
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
