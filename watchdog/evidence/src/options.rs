//! What is captured, for how long, and where it is kept.

use std::path::PathBuf;
use std::time::Duration;

use crate::redact::Redactor;
use hangwatch_incident::store::Limits;

/// How much evidence is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None; there are no incidents either.
    #[default]
    Off,
    /// What the segment itself tells: scopes, flight records, the other workers, the suspect.
    Scopes,
    /// That, and what a helper finds out about the process: its stacks above all.
    Full,
}

impl Level {
    /// Its name, on the command line and in incidents.
    pub fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Scopes => "scopes",
            Level::Full => "full",
        }
    }
}

/// The memory a helper may take by default, bytes.
const MEMORY_BYTES: u64 = 512 << 20;

/// How a server captures evidence.
#[derive(Clone, Debug)]
pub struct EvidenceOptions {
    /// How much.
    pub level: Level,
    /// How long a condemned worker is spared for it at most. Only [`Level::Full`] takes any.
    pub budget: Duration,
    /// The memory a helper may take, bytes; fewer where the watchdog's cgroup has little left.
    pub memory_bytes: u64,
    /// The `hangwatch` program, which the helpers run; without one there are none.
    pub program: Option<PathBuf>,
    /// What is redacted.
    pub redactor: Redactor,
    /// Where incidents are kept; without a place, they are told and not kept.
    pub keep: Option<Keep>,
}

/// Where incidents are kept.
#[derive(Clone, Debug)]
pub struct Keep {
    /// The directory.
    pub dir: PathBuf,
    /// How many, and how large.
    pub limits: Limits,
}

impl Default for EvidenceOptions {
    /// None at all.
    fn default() -> Self {
        EvidenceOptions {
            level: Level::Off,
            budget: Duration::from_secs(2),
            memory_bytes: MEMORY_BYTES,
            program: None,
            redactor: Redactor::default(),
            keep: None,
        }
    }
}
