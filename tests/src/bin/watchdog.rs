//! The `hangwatch` binary with crash points.

use hangwatch_cli::cli::Cli;
use hangwatch_cli::commands;
use hangwatch_cli::exit::Exit;
use rustix::process::{Signal, set_parent_process_death_signal};

fn main() -> Exit {
    // Were the test to die, nobody would be left behind.
    set_parent_process_death_signal(Some(Signal::KILL)).expect("the kernel can");
    commands::perform(Cli::read().command)
}
