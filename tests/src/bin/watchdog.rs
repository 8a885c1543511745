//! The `hangwatch` binary with crash points.

use hangwatch_cli::cli::Cli;
use hangwatch_cli::commands;
use hangwatch_cli::exit::Exit;

fn main() -> Exit {
    commands::perform(Cli::read().command)
}
