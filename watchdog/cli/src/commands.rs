//! The commands of the binary, one file each. [`perform`] runs one and returns the exit code.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::cli::Command;
use crate::exit::Exit;
use hangwatch_log::outlet;
use hangwatch_process::signals;
use hangwatch_text::plain;

mod analyze;
mod demo;
mod doctor;
mod dump;
mod error_file_writer;
mod evidence_helper;
mod exec;
mod file_reader;
mod fleet;
mod incident_writer;
mod incidents;
mod learn;
mod manual;
mod report;
mod rm;
mod run;
mod scopes;
mod segments;
mod shadow;
mod show;
mod status;
mod top;
mod trace;

/// How long a command waits at its end for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The error of a command, printed as one line with its causes.
type Failure = Box<dyn std::error::Error>;

/// Runs a command inside a Python interpreter.
///
/// Python ignores SIGPIPE and SIGXFSZ; like Python's `subprocess`, this does not pass that on to commands.
pub fn perform_in_python(command: Command) -> Exit {
    [libc::SIGPIPE, libc::SIGXFSZ].into_iter().for_each(signals::was_not_ignored);
    perform(command)
}

/// Runs the command of the command line.
pub fn perform(command: Command) -> Exit {
    signals::accept_all();
    let done = match command {
        Command::Demo(options) => demo::perform(&options),
        Command::DemoWorker(options) => demo::worker::perform(&options),
        Command::EvidenceHelper(options) => evidence_helper::perform(&options),
        Command::ErrorFileWriter => error_file_writer::perform(),
        Command::FileReader(options) => file_reader::perform(&options),
        Command::IncidentWriter(options) => incident_writer::perform(options),
        Command::Run(options) => run::perform(*options),
        Command::Status(options) => status::perform(&options),
        Command::Scopes(options) => scopes::perform(&options),
        Command::Learn(options) => learn::perform(&options),
        Command::Shadow(options) => shadow::perform(&options),
        Command::Fleet(options) => fleet::perform(&options),
        Command::Top(options) => top::perform(options),
        Command::Dump(options) => dump::perform(&options),
        Command::WaitHelper(options) => dump::help(&options),
        Command::Doctor(options) => doctor::perform(&options),
        Command::Completions(options) => manual::completions(&options),
        Command::Man(options) => manual::man(&options),
        Command::Exec(options) => exec::perform(&options),
        Command::Incidents(options) => incidents::perform(&options),
        Command::Show(options) => show::perform(&options),
        Command::Report(options) => report::perform(&options),
        Command::Trace(options) => trace::perform(&options),
        Command::Analyze(options) => analyze::perform(&options),
        Command::Rm(options) => rm::perform(&options),
        Command::ReleaseBrake(options) => segments::release_brake(&options),
    };
    let exit = done.unwrap_or_else(|error| {
        complain(&OneLine(&*error));
        Exit::Failed
    });
    outlet::finish(LAST_LINES);
    exit
}

/// Writes an error or a notice to standard error.
fn complain(what: &dyn fmt::Display) {
    // Errors are ignored: standard error may be closed, and the exit code reports the failure, too.
    // One write per line, so that the lines of several threads do not mix.
    let line = format!("hangwatch: {}\n", clean_lines(&what.to_string()));
    let _ = outlet::Stderr.write_all(line.as_bytes());
}

/// Escapes control characters in each line: names and paths in an error come from outside.
fn clean_lines(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| plain(line).into_owned()).collect();
    lines.join("\n")
}

/// Writes to standard output. A closed pipe (`| head`) is not an error.
fn print(text: &str) -> Result<(), Failure> {
    show(text).map(|_| ())
}

/// Whether standard output still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    There,
    Gone,
}

/// Writes to standard output and reports whether it still has a reader; endless output ends without one.
fn show(text: &str) -> Result<Reader, Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the given time, or until the reader of standard output is gone.
fn pause(time: Duration) -> Result<Reader, Failure> {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Reader::There);
        }
        let stdout = io::stdout();
        // `poll` reports ERR and HUP (closed pipe, terminal hung up) without being asked.
        let mut awaited = [PollFd::new(&stdout, PollFlags::empty())];
        let left = Timespec::try_from(left).ok();
        match poll(&mut awaited, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if awaited[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Ok(Reader::Gone);
        }
        if awaited[0].revents().contains(PollFlags::NVAL) {
            return Err(Errno::BADF.into());
        }
    }
}

/// An error with its causes on one line; causes that the text already contains are left out.
struct OneLine<'e>(&'e dyn std::error::Error);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            cause = error.source();
        }
        Ok(())
    }
}
