//! The `hangwatch` binary: parses the command line and calls `hangwatch_cli`.

use hangwatch_cli::cli::Cli;
use hangwatch_cli::commands;
use hangwatch_cli::exit::Exit;

fn main() -> Exit {
    commands::perform(Cli::read().command)
}
