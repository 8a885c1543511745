#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The command line of the `hangwatch` binary: what may be said, and what it means.
//!
//! [`Cli::read`] is the way in. Nothing is done here: each command's options are a struct
//! that its module gets. `value` has the parsers of single values.

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

/// For what comes after options that have a heading, which clap would give to all that follow.
const NO_HEADING: Option<&str> = None;

/// The environment variable that names the directory of incidents.
pub const INCIDENTS_VARIABLE: &str = "HANGWATCH_INCIDENTS";

/// The environment variable that names the segment.
pub const SEGMENT_VARIABLE: &str = "HANGWATCH_SEGMENT";

const EXIT_CODES: &str = "\
Exit codes:
  0        done; or the command ended with 0
  1        doctor: something that hangwatch needs is missing;
           dump: a process does not exist or cannot be inspected
  2        the command line is wrong
  123      a bug in hangwatch made the watchdog panic
  124      exec: the deadline passed and the command was killed
  125      hangwatch itself failed
  126      the command was found and cannot be executed
  127      the command was not found
  128 + N  the command died of signal N; or, without a command, signal N
           ended the watchdog (0 after TERM and INT)
  other    the command's own code, passed through";

const ENVIRONMENT: &str = "\
Environment:
  HANGWATCH_CONFIG   run: the file of settings, where --config does not name it
  HANGWATCH_SEGMENT  the segment's name, where --segment does not give it
  HANGWATCH_INCIDENTS
                     the directory of incidents, where --incidents does not
                     name it
  HANGWATCH_LOG      what is logged (trace, debug, info, warn, error, or a
                     filter such as warn,hangwatch=debug); else RUST_LOG;
                     else info
  NO_COLOR           no colours in the log, whatever its value";

const DURATIONS: &str = "\
Durations have units (us, ms, s, m, h, days): 100ms, 5s, 1m30s. A bare number
counts seconds: 2.5 is 2500ms.";

const SETTINGS: &str = "\
Settings: every option above is also a variable, HANGWATCH_ and the option's name
in capitals (HANGWATCH_MAX_REAPS=3), and a line of a TOML file (max-reaps = 3),
which --config or HANGWATCH_CONFIG names. The command line comes before the
environment, the environment before the file. --check shows the settings in
force and where each comes from. packaging/hangwatch.toml has every setting.
exec and demo read the variables of the settings that they have, and no file.

A watchdog without a command reads the file again on SIGHUP. These settings
change at once, also for armed timers: signal, grace, notify-only, max-reaps,
warn-at, cascade, cascade-policy, stopped, traced, frozen; and deadlines, for
acquires to come. A change to any other is named in the log and waits for a
restart. A file with a mistake changes nothing. SIGHUP does not release the kill
limiter.";

const ABOUT: &str = "\
hangwatch finds the worker process that hangs, says why, and kills it.

Workers arm timers in a segment of shared memory, which costs them next to
nothing. The watchdog watches the deadlines. When one passes, it captures why
the process hangs, and kills that process and no other, through the kernel's
own handle on it.";

const EXAMPLES: &str = "\
Examples:
  hangwatch demo                                 see it at work
  hangwatch run -- torchrun train.py             guard a job's workers
  hangwatch exec 30s make test                   a deadline for any command
  hangwatch dump 4711                            why a process hangs, now
  hangwatch status                               what each worker waits for, how long
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
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show hangwatch at work: four workers, one of which hangs and is killed
    ///
    /// Makes a segment, starts the watchdog and worker processes that hash the files
    /// of a directory under nested scopes. One worker deadlocks and one crashes. On a
    /// terminal the table is shown live. At the end it says which worker hung, in which
    /// scopes, how late the kill came, and which workers finished.
    Demo(Demo),
    /// Run the watchdog of a segment, alone or around a command
    ///
    /// With a command: makes a segment with a name of its own (or the one given with
    /// --segment), starts the command with HANGWATCH_SEGMENT set to it, passes
    /// signals and the exit status through, and removes the segment when the command
    /// has ended and its last worker has left. A small second process takes over if
    /// this one is killed.
    ///
    /// Alone: serves the segment named by --segment or HANGWATCH_SEGMENT until
    /// SIGTERM or SIGINT, and keeps it for a successor. An existing segment is
    /// adopted, with its workers and their armed timers.
    Run(Box<Run>),
    /// Show every lane of a segment: pid, command, scope, age, time left
    ///
    /// Only reads the segment: the watchdog need not run, and no worker is slowed.
    Status(Status),
    /// Show how long scopes took, and the deadline that suggests, with its confidence
    ///
    /// Count, quantiles and maximum cover all workers, living and ended.
    Scopes(Scopes),
    /// Write the suggested deadlines into a file for run --deadlines
    ///
    /// First let a job run for a while, with generous deadlines or --notify-only.
    Learn(Learn),
    /// Show what a watchdog that only reports would have killed
    ///
    /// For a watchdog with --notify-only and --deadlines: for each scope, how many
    /// acquires exceeded their deadline, and how late they ended.
    Shadow(Shadow),
    /// Watch every lane of a segment live
    ///
    /// Like status, but live: the oldest first, each age against its timeout. A key
    /// shows the details, statistics and flight record of a lane. Only reads the
    /// segment: the watchdog need not run, and no worker is slowed. Waits for a
    /// segment that does not exist yet. ? shows the keys.
    Top(Top),
    /// Show the workers of many hosts in one table, the oldest first
    ///
    /// Asks all watchdogs that run with --listen at once. Marks the rank of a job that is
    /// missing where all its other ranks wait.
    Fleet(Fleet),
    /// Give a command a deadline; kill it with all its descendants when it passes
    ///
    /// The command may be anything; it need not know hangwatch. If it ends in time,
    /// hangwatch ends as it did. If the deadline passes first, the command is killed with
    /// all its descendants, including daemons and processes in sessions of their own, and
    /// hangwatch ends with 124.
    Exec(Exec),
    /// Say why processes hang now: what waits for what, and every stack
    ///
    /// Works on any process, prepared or not, in any language, and kills nothing. The first
    /// line is the verdict: a deadlock with its threads and locks, or what the others wait
    /// for, across threads and processes; or the step at which the chain is lost. Then come
    /// the chain of waits and the Python and native stacks, equal ones merged. Processes
    /// are stopped for some milliseconds while their stacks are copied. Other users'
    /// processes need root.
    Dump(Dump),
    /// Let the watchdog of a segment kill again after its kill limiter engaged
    ///
    /// See run --max-reaps. Find out first why so many deadlines passed at once. Workers
    /// that are still overdue are judged again at once, and killed, up to --max-reaps of
    /// them in a minute before the limiter engages again. A worker that has released or
    /// armed its timer meanwhile is left alone.
    ReleaseBrake(ReleaseBrake),
    /// Say what works on this host, what does not, and what to change
    ///
    /// Examines the kernel, /dev/shm, the clock, this user's permissions and limits, and
    /// the container it runs in. Run it as the watchdog will run.
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
    /// Writes torch's error files; the watchdog starts it.
    #[command(hide = true)]
    ErrorFileWriter,
    /// Looks whom processes wait for; whoever wants a verdict starts it.
    #[command(hide = true)]
    WaitHelper(WaitHelper),
    /// Reads a file of settings; the watchdog starts it.
    #[command(hide = true)]
    FileReader(FileReader),
    /// Writes incidents down; the watchdog starts it.
    #[command(hide = true)]
    IncidentWriter(IncidentWriter),
    /// List incidents: when, which worker, in which scope, how it ended
    ///
    /// The newest first. An incident that cannot be read is a line that says why.
    Incidents(Incidents),
    /// Tell the story of one incident: what hung, where, since when, and the stacks
    ///
    /// The thread that hangs comes first with its stacks; long parts are folded.
    Show(Show),
    /// Write one incident as a page for the browser
    ///
    /// One file that loads nothing: a timeline of what all workers did around the hang,
    /// the suspect, the stacks, and everything that was captured.
    Report(Report),
    /// Write what workers did last as a trace for Perfetto
    ///
    /// The flight records of all lanes, of an incident or of a segment as it is now
    /// (which is only read), in the Chrome trace event format. Open it at
    /// ui.perfetto.dev or chrome://tracing. Each thread is a track, each scope a slice.
    Trace(Trace),
    /// Find the ranks at fault from the Flight Recorder dumps of a hung PyTorch job
    ///
    /// Reads what torch 2.5 and later write when a collective times out (pickles or
    /// JSON, of NCCL and gloo), one file a rank, from all hosts. Names the ranks that
    /// others wait for and that wait for nobody, ranks that wait for each other, ranks
    /// without a dump, and collectives that were called with different sizes. The dumps
    /// are read as plain data: no code in them is run.
    Analyze(Analyze),
    /// Remove a segment that is not in use
    ///
    /// Refused while a watchdog serves the segment or a worker is attached to it.
    /// With --stale: every segment that run, exec or demo made for itself and could
    /// not remove because it was killed. The next run, exec or demo without --segment
    /// removes these, too.
    Rm(Rm),
}

impl Command {
    /// Where its incidents are kept or looked for, as far as the command line says; `run` has it from its
    /// settings.
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
        let mut words = words::marked(words.into_iter().map(Into::into).collect());
        // The help of `help` is the help.
        if words.get(1).is_some_and(|word| word == "help") {
            words.retain(|word| word != "--help" && word != "-h");
        }
        let mut cli = Self::try_parse_from(&words).map_err(|error| match error.kind() {
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
