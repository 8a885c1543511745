#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options about evidence and incidents, which several commands have.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::value;
use hangwatch_evidence::options::{EvidenceOptions, Keep, Level};
use hangwatch_evidence::redact::Redactor;
use hangwatch_incident::store::{Limits, NoStateDirectory, StoreError, default_dir, try_dir};

/// Reads a level by its name.
fn level() -> impl TypedValueParser<Value = Level> {
    let levels = [Level::Off, Level::Scopes, Level::Full];
    let named = move |name: String| levels.into_iter().find(|level| level.name() == name);
    PossibleValuesParser::new(levels.map(Level::name))
        .map(move |name| named(name).unwrap_or_default())
}

/// What is captured of an expired worker, and where it is kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub struct Evidence {
    /// What is captured of an overdue worker before the first signal: off, scopes or full
    ///
    /// scopes: what the segment holds, that is, the scopes of all workers and the last
    /// records of each thread. full: also what the kernel knows, and the Python and
    /// native stack of every thread, for which the process is stopped for some
    /// milliseconds; one that is only reported is not stopped. Under exec the command's
    /// descendants are captured, too, up to 16 processes. off: no incidents are written.
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
    /// What is captured by then is kept, and the incident says what is missing.
    #[arg(long = "evidence-budget", value_name = "DURATION", value_parser = value::duration,
          default_value = "2s", allow_hyphen_values = true)]
    pub budget: Duration,

    /// How much memory each process that captures evidence may take, in MiB
    ///
    /// Up to 8 of them run at once. Where the watchdog's cgroup has a memory limit, they
    /// share half of what is left of it, and fewer run at once; with less than 24 MiB
    /// none runs, and the incident says so. Names and lines in large libraries may take
    /// some hundred MiB. The kernel kills these processes before the watchdog.
    #[arg(long = "evidence-mib", value_name = "MIB", default_value_t = 512,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub helper_mib: u32,

    /// Redact what this regular expression matches, besides what looks like a secret
    ///
    /// In environment variables and command-line arguments, of incidents and the log. What
    /// looks like a secret: names such as *_TOKEN, also within a value (sh -c "TOKEN=...
    /// run"), and passwords in URLs. A match in a name redacts the whole value, a match in
    /// a value what is matched. May be given several times; in a file or a variable, join
    /// several with |.
    #[arg(long, value_name = "REGEX", value_parser = value::expression)]
    pub redact: Vec<String>,

    /// Where incidents are kept.
    #[command(flatten)]
    pub incidents: Incidents,
}

/// Where incidents are kept, and how many.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Evidence")]
pub struct Incidents {
    /// The directory of the incidents
    ///
    /// The watchdog's user or root must own it and every directory above it, and no other
    /// user may have write permission, unless the directory is sticky, as /tmp is.
    /// By default $XDG_STATE_HOME/hangwatch/incidents, which is
    /// ~/.local/state/hangwatch/incidents where that is not set; for root,
    /// /var/lib/hangwatch/incidents.
    #[arg(long = "incidents", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// How many incidents are kept
    ///
    /// When room is needed, incidents that are a consequence of others are removed first:
    /// of many that expire together, the first and the suspect's are kept longest. Then
    /// the oldest are removed.
    #[arg(long = "incidents-most", value_name = "N", default_value_t = 100,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub most: u32,

    /// How much room incidents may take together, in MiB; removed in the same order
    #[arg(long = "incidents-mib", value_name = "MIB", default_value_t = 256,
          allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub mib: u32,
}

impl Evidence {
    /// What a server is told. Where there is no place for incidents, they are not kept, and the error
    /// says why.
    ///
    /// # Panics
    /// Never: the expressions have been checked.
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

    /// Whether incidents could be kept where they are to be; where there is no place for them, there is
    /// nothing to try. A disk that hangs holds whoever asks: no watchdog does.
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
