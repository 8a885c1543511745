//! Tools a step needs beside cargo itself, installed when they are missing.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use crate::step::cargo;

/// What a step may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `cargo fmt`
    Rustfmt,
    /// `cargo clippy`
    Clippy,
    /// `cargo fuzz`, and the nightly compiler it needs
    Fuzz,
}

impl Tool {
    /// Makes sure the tool runs: installs it when it is missing.
    ///
    /// # Errors
    ///
    /// What to do by hand, when that failed.
    pub(crate) fn ensure(self) -> Result<(), String> {
        match self {
            Self::Rustfmt => component("fmt", "rustfmt", "rustfmt"),
            Self::Clippy => component("clippy", "clippy", "rust-clippy"),
            Self::Fuzz => fuzz(),
        }
    }
}

/// A component of the toolchain, which rustup or Debian has.
fn component(subcommand: &str, name: &str, debian: &str) -> Result<(), String> {
    let answers = || succeeds(cargo(), &[subcommand, "--version"], Output::Hidden);
    let install = || succeeds("rustup", &["component", "add", name], Output::Shown);
    if answers() || (install() && answers()) {
        return Ok(());
    }
    Err(format!(
        "cargo {subcommand} does not run, and `rustup component add {name}` did not help; \
         install it with rustup, or on Debian with `apt-get install {debian}`"
    ))
}

fn fuzz() -> Result<(), String> {
    let nightly = || succeeds("rustup", &["run", "nightly", "rustc", "--version"], Output::Hidden);
    let add = ["toolchain", "install", "nightly", "--profile", "minimal"];
    let has_nightly = nightly() || (succeeds("rustup", &add, Output::Shown) && nightly());
    if !has_nightly {
        return Err("there is no nightly compiler, which libFuzzer needs, and `rustup toolchain \
                    install nightly` did not help; install it with rustup"
            .to_owned());
    }
    let answers = || succeeds(cargo(), &["fuzz", "--version"], Output::Hidden);
    let install = || succeeds(cargo(), &["install", "--locked", "cargo-fuzz"], Output::Shown);
    if answers() || (install() && answers()) {
        return Ok(());
    }
    Err("cargo fuzz does not run, and `cargo install --locked cargo-fuzz` did not help; is \
         ~/.cargo/bin on the path?"
        .to_owned())
}

/// Whether the user sees what a command prints.
#[derive(Clone, Copy)]
enum Output {
    Shown,
    Hidden,
}

fn succeeds(program: impl AsRef<OsStr>, args: &[&str], output: Output) -> bool {
    let mut command = Command::new(program);
    command.args(args);
    if matches!(output, Output::Hidden) {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    command.status().is_ok_and(|status| status.success())
}
