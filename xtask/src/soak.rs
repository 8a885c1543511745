//! `cargo xtask soak`: every fault injected many times, with a table at the end.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::runner;
use crate::step::Step;

/// What to hand on to the soak.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Options of the soak: --seed N, --minutes M, --only PART, --count PART=N; --help tells more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTION")]
    options: Vec<OsString>,
}

/// Builds the soak and the processes it plays with, and runs it.
pub(crate) fn run(options: &Options) -> ExitCode {
    let package = ["--release", "-p", "hangwatch-tests"];
    let build = [&["build"], &package[..], &["--bins"]].concat();
    let soak = [&["run"], &package[..], &["--bin", "soak", "--"]].concat();
    let steps = [
        Step::cargo("build", "the soak and the processes it plays with", &build),
        Step::cargo("soak", "every fault, many times", &soak).args(options.options.iter().cloned()),
    ];
    runner::run(&steps, None)
}
