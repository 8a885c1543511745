//! `cargo xtask bench`: the criterion benches.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::runner;
use crate::step::Step;

/// What to hand on to criterion.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run only this bench target, as named in bench/benches/
    #[arg(long, value_name = "NAME")]
    bench: Option<String>,

    /// Arguments for criterion: a filter, --save-baseline NAME, --quick, ...
    #[arg(last = true)]
    criterion: Vec<OsString>,
}

/// Runs the benches.
pub(crate) fn run(options: &Options) -> ExitCode {
    let target = options.bench.as_deref().unwrap_or("*");
    let step = Step::cargo(
        "bench",
        "the criterion benches",
        &["bench", "-p", "hangwatch-bench", "--bench", target, "--"],
    )
    .args(options.criterion.iter().cloned());
    runner::run(&[step], "cargo xtask")
}
