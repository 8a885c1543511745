#![expect(clippy::doc_markdown, reason = "these docs are the help text, which knows no Markdown")]
//! The options of what an operator runs beside a watchdog.

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

    /// How long between two pictures, 100ms to 1m
    #[arg(long, value_name = "DURATION", value_parser = value::refresh, default_value = "1s",
          allow_hyphen_values = true)]
    pub interval: Duration,
}
