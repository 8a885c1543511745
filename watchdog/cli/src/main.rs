//! The `hangwatch` binary: reads the command line and hands over to `hangwatch_cli`.

use hangwatch_cli::cli::Cli;
use hangwatch_cli::commands;
use hangwatch_cli::exit::Exit;

fn main() -> Exit {
    commands::perform(Cli::read().command)
}
