//! `cargo xtask bench`: the criterion benches; `cargo xtask bench python`: the package's.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::step::Step;
use crate::{python, runner};

/// What to hand on to criterion.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What a `with` costs in Python, instead of the criterion benches
    #[arg(conflicts_with_all = ["bench", "criterion"])]
    of: Option<Subject>,

    /// Run only this bench target, as named in bench/benches/
    #[arg(long, value_name = "NAME")]
    bench: Option<String>,

    /// Arguments for criterion: a filter, --save-baseline NAME, --quick, ...
    #[arg(last = true)]
    criterion: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Subject {
    Python,
}

/// Runs the benches.
pub(crate) fn run(options: &Options) -> ExitCode {
    if let Some(Subject::Python) = options.of {
        return python::bench();
    }
    let target = options.bench.as_deref().unwrap_or("*");
    let step = Step::cargo(
        "bench",
        "the criterion benches",
        &["bench", "-p", "hangwatch-bench", "--bench", target, "--"],
    )
    .args(options.criterion.iter().cloned());
    runner::run(&[step], Some("cargo xtask"))
}
