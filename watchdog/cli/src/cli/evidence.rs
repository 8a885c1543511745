#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options for evidence and incidents, shared by `run`, `exec` and `demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::value;
use hangwatch_evidence::options::{EvidenceOptions, Keep, Level};
use hangwatch_evidence::redact::Redactor;
use hangwatch_incident::store::{Limits, NoStateDirectory, StoreError, default_dir, try_dir};

/// Parses a level's name.
fn level() -> impl TypedValueParser<Value = Level> {
    let levels = [Level::Off, Level::Scopes, Level::Full];
    let named = move |name: String| levels.into_iter().find(|level| level.name() == name);
    PossibleValuesParser::new(levels.map(Level::name))
        .map(move |name| named(name).unwrap_or_default())
}

/// What is captured of an overdue worker, and where it is stored.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub struct Evidence {
    /// What is captured of an overdue worker before the first signal: off, scopes or full
    ///
    /// off: nothing, and no incident is written. scopes: the scopes of all workers and the
    /// last records of each thread. full: also the Python and native stack of every thread,
    /// and what the kernel knows of the process. For the stacks the process is stopped for
    /// some milliseconds, unless it is only reported. Under exec the command's descendants
    /// are captured, too, up to 16 processes.
    #[arg(
        long = "evidence",
        value_name = "LEVEL",
        value_parser = level(),
        default_value = "full",
        hide_possible_values = true
    )]
    pub level: Level,

    /// How long the first signal may wait for full evidence
    ///
    /// What is captured by then is stored, and the incident says what is missing.
    #[arg(long = "evidence-budget", value_name = "DURATION", value_parser = value::duration,
          default_value = "2s", allow_hyphen_values = true)]
    pub budget: Duration,

    /// Memory limit of each process that captures evidence, in MiB
    ///
    /// Up to 8 of them run at once. If the watchdog's cgroup has a memory limit, they share
    /// half of what is left, and fewer run at once; with less than 24 MiB none runs, and the
    /// incident says so. Symbols of large libraries can take some hundred MiB. If memory runs
    /// out, the kernel kills these processes before the watchdog.
    #[arg(long = "evidence-mib", value_name = "MIB", default_value_t = 512,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub helper_mib: u32,

    /// Also redact what this regular expression matches
    ///
    /// Redacts environment variables and command-line arguments, in incidents and in the
    /// log. Always redacted: values of names such as *_TOKEN, also within a value (sh -c
    /// "TOKEN=... run"), and passwords in URLs. A match in a name redacts the whole value, a
    /// match in a value redacts only the match. May be given several times; in a file or a
    /// variable, join several with |.
    #[arg(long, value_name = "REGEX", value_parser = value::expression)]
    pub redact: Vec<String>,

    /// Where incidents are stored.
    #[command(flatten)]
    pub incidents: Incidents,
}

/// Where incidents are stored, and how many.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub struct Incidents {
    /// The directory of incidents
    ///
    /// By default /var/lib/hangwatch/incidents for root, else
    /// $XDG_STATE_HOME/hangwatch/incidents, or ~/.local/state/hangwatch/incidents if that
    /// variable is not set. The watchdog's user or root must own the directory and every
    /// directory above it, and no other user may be able to write to them, except to sticky
    /// directories such as /tmp.
    #[arg(long = "incidents", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// How many incidents are kept
    ///
    /// Incidents that are a consequence of others are removed first, then the oldest. Of
    /// workers that expire together, the incidents of the first and of the suspect stay
    /// longest.
    #[arg(long = "incidents-most", value_name = "N", default_value_t = 100,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub most: u32,

    /// How much disk space all incidents may take, in MiB
    #[arg(long = "incidents-mib", value_name = "MIB", default_value_t = 256,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub mib: u32,
}

impl Evidence {
    /// The server's options. Without a directory for incidents none are stored, and the error says why.
    ///
    /// # Panics
    /// Never: the expressions were checked when they were parsed.
    pub fn options(&self) -> (EvidenceOptions, Option<NoStateDirectory>) {
        let redactor = Redactor::new(self.redact.iter().map(String::as_str))
            .expect("the command line was checked");
        let (keep, why_not) = match self.incidents.dir.clone().map_or_else(default_dir, Ok) {
            Ok(dir) => (Some(Keep { dir, limits: self.incidents.limits() }), None),
            Err(error) => (None, Some(error)),
        };
        let program = Some(crate::program::own_program());
        let memory_bytes = u64::from(self.helper_mib) << 20;
        let (level, budget) = (self.level, self.budget);
        let options = EvidenceOptions { level, budget, memory_bytes, program, redactor, keep };
        (options, why_not)
    }

    /// Checks that incidents can be stored in their directory; succeeds if there is no directory.
    ///
    /// Blocks if the disk hangs, so a running watchdog must not call it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn try_place(&self) -> Result<(), StoreError> {
        let dir = self.incidents.dir.clone().map_or_else(default_dir, Ok);
        let dir = dir.ok().filter(|_| self.level != Level::Off);
        dir.map_or(Ok(()), |dir| try_dir(&dir))
    }
}

impl Incidents {
    fn limits(&self) -> Limits {
        Limits { count: self.most as usize, bytes: u64::from(self.mib) << 20 }
    }
}
