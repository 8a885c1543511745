#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of what an operator runs beside a watchdog.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value;

/// The options of `hangwatch top`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Environment:
  HANGWATCH_SEGMENT  the segment's name, where --segment does not give it
  NO_COLOR           no colours, where it is set and not empty

Exit codes:
  0        ended by a key
  2        the command line is wrong
  125      there is no terminal to use; `hangwatch status` needs none
  128 + N  ended by signal N, the terminal given back

Examples:
  hangwatch top
  hangwatch top --segment train --interval 250ms")]
pub struct Top {
    /// The segment's name, else HANGWATCH_SEGMENT's; absent, one is chosen if there are several
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The time between two updates, 100ms to 1m
    #[arg(long, value_name = "DURATION", value_parser = value::refresh, default_value = "1s",
          allow_hyphen_values = true)]
    pub interval: Duration,

    /// The directory of the incidents [default: as of run]
    ///
    /// The newest incident of each worker's rank, or of its process, is shown.
    #[arg(long, value_name = "DIR")]
    pub incidents: Option<PathBuf>,
}

/// The options of `hangwatch doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    everything that hangwatch needs works
  1    something that it needs does not
  2    the command line is wrong

Run it as the user, and in the container or service, that the watchdog will run
as: it reports the permissions and limits of its own process.

Examples:
  hangwatch doctor
  hangwatch doctor --json")]
pub struct Doctor {
    /// Write JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// The options of `hangwatch completions`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hangwatch completions bash > /etc/bash_completion.d/hangwatch
  hangwatch completions zsh > /usr/local/share/zsh/site-functions/_hangwatch
  hangwatch completions fish > ~/.config/fish/completions/hangwatch.fish")]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: clap_complete::Shell,
}

/// The options of `hangwatch man`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hangwatch man | man -l -
  hangwatch man /usr/local/share/man/man1")]
pub struct Manual {
    /// The directory to write a page for each command to; absent, hangwatch(1) to standard output
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
