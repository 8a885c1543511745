//! The `hangwatch` command, as the package's console script runs it.

use std::ffi::OsString;
use std::process::Termination;

use hangwatch_cli::cli::Cli;
use hangwatch_cli::cli::config::Variables;
use hangwatch_cli::commands;
use pyo3::prelude::*;

/// Does what the words ask for, and ends this process as the command does.
///
/// It does not return: the interpreter has nothing to clean up that outlives the process.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, words: Vec<OsString>) -> PyResult<()> {
    py.detach(|| {
        let read = Cli::try_read_from(words, &Variables::of_process());
        let cli = read.unwrap_or_else(|error| error.exit());
        let exit = commands::perform_in_python(cli.command);
        let _ = exit.report(); // dies of the command's signal, where there was one
        std::process::exit(exit.code().into())
    })
}
