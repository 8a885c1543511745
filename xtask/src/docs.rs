//! `cargo xtask docs`: the book, its generated pages, and the picture of the report page.

mod picture;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::runner;
use crate::step::{Step, root};
use crate::tools::{self, Tool};

/// What to do beside building the book.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write the pages that are made from the command line anew, first
    #[arg(long)]
    update: bool,

    /// Take the picture of the report page anew, first (needs chromium)
    #[arg(long)]
    picture: bool,

    /// Build the book and nothing else; fail on a warning
    #[arg(long, hide = true, exclusive = true)]
    strict_book: bool,
}

/// Builds the book into `target/book`, and checks its pages.
pub(crate) fn run(options: &Options) -> ExitCode {
    if options.strict_book {
        return strict_book();
    }
    let tests = ["nextest", "run", "--workspace", "--test", "docs"];
    let check = Step::cargo("pages", "links, commands and references", &tests);
    let mut steps = Vec::new();
    if options.update {
        let update = Step::cargo("update", "pages made from the command line", &tests);
        steps.push(update.env("HANGWATCH_DOCS", "update").needs(Tool::Nextest));
    }
    if options.picture {
        let build = ["build", "--package", "hangwatch-cli"];
        steps.push(Step::cargo("build", "the demo, for the picture", &build).needs(Tool::Driven));
    }
    if runner::run(&steps, None) != ExitCode::SUCCESS {
        return ExitCode::FAILURE;
    }
    if options.picture
        && let Err(error) = picture::take()
    {
        eprintln!("cargo xtask docs: the picture: {error}");
        return ExitCode::FAILURE;
    }
    runner::run(&[book(), check.needs(Tool::Nextest)], None)
}

/// The step that builds the book.
pub(crate) fn book() -> Step {
    Step::cargo(
        "book",
        "the book in docs/ builds without a warning",
        &["run", "--quiet", "--package", "xtask", "--", "docs", "--strict-book"],
    )
    .needs(Tool::MdBook)
}

/// mdBook ends with success after a warning: its log decides.
fn strict_book() -> ExitCode {
    let output = std::process::Command::new(tools::mdbook())
        .args(["build", "docs"])
        .current_dir(root())
        .output();
    match output {
        Ok(output) => {
            let log = String::from_utf8_lossy(&output.stderr);
            eprint!("{log}");
            let is_clean = !log.contains("WARN") && !log.contains("ERROR");
            if output.status.success() && is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("cargo xtask docs: cannot start mdbook: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Where cargo builds, from the repository's root.
fn target() -> PathBuf {
    root().join(env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from))
}
