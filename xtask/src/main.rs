//! `cargo xtask`: hangwatch's set-up and checks in one place.
//!
//! Each subcommand is a module that turns its options into a list of steps (`step`)
//! and hands it to the runner (`runner`): `test` is what CI runs, `fuzz` the
//! fuzz targets, `sanitize` the tests under sanitizers, `soak` the faults in full, `bench` the benches, `docs` the
//! book, `python` the Python package, `torch` its tests with
//! the newest torch. `tools` installs what a step needs and a fresh machine lacks.
//!
//! To add a check, add a [`step::Step`] to the list in `test`; to add a subcommand,
//! add a variant to [`Task`].

mod bench;
mod docs;
mod fuzz;
mod python;
mod runner;
mod sanitize;
mod soak;
mod step;
mod test;
mod tools;
mod torch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up and checks of the hangwatch workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check, in the order of cost; stop at the first that fails
    Test(test::Options),
    /// Fuzz: random words as a segment, and under the whole watchdog
    Fuzz(fuzz::Options),
    /// Measure everything beside its peers; or the criterion benches, Python, instructions
    Bench(bench::Options),
    /// Build the book in docs/, and check its pages
    Docs(docs::Options),
    /// Build and install the Python package, and run its tests
    Python,
    /// Run the tests that need torch with the newest one that pip finds
    Torch(torch::Options),
    /// Inject every fault many times, and count what was lost
    Soak(soak::Options),
    /// Run the tests under the address and the thread sanitizer
    Sanitize(sanitize::Options),
}

fn main() -> ExitCode {
    match Cli::parse().task {
        Task::Test(options) => test::run(&options),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Docs(options) => docs::run(&options),
        Task::Python => python::test(),
        Task::Torch(options) => torch::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::Sanitize(options) => sanitize::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
