#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of `top`, `doctor`, `completions` and `man`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value;

/// The options of `hangwatch top`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Environment:
  HANGWATCH_SEGMENT    the segment's name, if --segment is not given
  HANGWATCH_INCIDENTS  the directory of incidents, if --incidents is not given
  NO_COLOR             if set and not empty: no colours

Exit codes:
  0        ended by a key
  2        the command line is wrong
  125      no terminal; use `hangwatch status` instead
  128 + N  ended by signal N; the terminal is restored

Examples:
  hangwatch top
  hangwatch top --segment train --interval 250ms")]
pub struct Top {
    /// The segment's name [default: HANGWATCH_SEGMENT, else choose among all readable ones]
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The time between two updates, 100ms to 1m
    #[arg(long, value_name = "DURATION", value_parser = value::refresh, default_value = "1s",
          allow_hyphen_values = true)]
    pub interval: Duration,

    /// The directory of incidents [default: the same as of run]
    ///
    /// For each worker, the newest incident of its rank or process is shown.
    #[arg(long, value_name = "DIR")]
    pub incidents: Option<PathBuf>,
}

/// The options of `hangwatch doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Exit codes:
  0    everything that hangwatch needs works
  1    something that hangwatch needs does not work
  2    the command line is wrong

Run it as the watchdog's user and in the watchdog's container or service: it
reports the permissions and limits of its own process.

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
    /// Write a page for each command to this directory [default: hangwatch(1) to standard output]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
