//! `cargo xtask test`: every check, in the order of cost.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;

use crate::bench;
use crate::docs;
use crate::runner::{self, say};
use crate::step::Step;
use crate::tools::Tool;
use crate::torch;

/// Which of the steps to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP", value_parser = names())]
    only: Vec<String>,

    /// List the steps with their commands, and run none
    #[arg(long, conflicts_with = "only")]
    list: bool,
}

/// Runs the steps, or lists them.
pub(crate) fn run(options: &Options) -> ExitCode {
    let mut steps = steps();
    if options.list {
        let mut text = String::new();
        for step in &steps {
            let _ = writeln!(text, "{}: {}\n   {step}", step.name, step.what);
        }
        say(&text);
        return ExitCode::SUCCESS;
    }
    if !options.only.is_empty() {
        steps.retain(|step| options.only.iter().any(|name| name == step.name));
    }
    runner::run(&steps, Some("cargo xtask test --only"))
}

/// Every step of the checks.
pub(crate) fn steps() -> Vec<Step> {
    vec![
        Step::cargo(
            "format",
            "the sources are as rustfmt leaves them",
            &["fmt", "--all", "--check"],
        )
        .needs(Tool::Rustfmt),
        Step::cargo(
            "clippy",
            "no compiler or clippy warning",
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        )
        .needs(Tool::Clippy),
        Step::cargo("docs", "no rustdoc warning", &["doc", "--no-deps", "--workspace"])
            .flags("RUSTDOCFLAGS", "-D warnings"),
        docs::book(),
        // nextest, because each test then has a process group and a deadline of its own
        // (.config/nextest.toml).
        Step::cargo(
            "tests",
            "unit, property and cross-process tests",
            &["nextest", "run", "--workspace"],
        )
        .env_default("HANGWATCH_TEST_TOOLS", "required")
        .needs(Tool::Nextest)
        .needs(Tool::Driven),
        Step::cargo("examples", "the examples in the docs", &["test", "--workspace", "--doc"]),
        // Release, because a model that takes a second there takes a minute in a debug
        // build. Three preemptions find nearly every bug that more would find (Musuvathi
        // and Qadeer, PLDI 2007) and keep the models to minutes on two cores.
        Step::cargo(
            "loom",
            "the lock-free protocols, every interleaving",
            &["nextest", "run", "-p", "hangwatch-core", "--release", "-E", "binary(/^loom/)"],
        )
        .needs(Tool::Nextest)
        .flags("RUSTFLAGS", "--cfg loom")
        .env_default("LOOM_MAX_PREEMPTIONS", "3")
        .own_target_dir("loom"),
        bench::instructions(),
        // A task of its own, because what it does comes in steps, too.
        Step::cargo(
            "python",
            "the Python package, with and without torch",
            &["run", "--quiet", "--package", "xtask", "--", "python"],
        ),
        Step::cargo(
            "torch",
            "the same with PyPI's newest torch",
            &["run", "--quiet", "--package", "xtask", "--", "torch"],
        )
        .unless(torch::no_room),
    ]
}

fn names() -> clap::builder::PossibleValuesParser {
    steps().iter().map(|step| step.name).collect::<Vec<_>>().into()
}
