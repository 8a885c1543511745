//! Tools a step needs beside cargo itself, installed when they are missing.

use std::process::{Command, Stdio};

use crate::step::cargo;

/// A component of the Rust toolchain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `cargo fmt`
    Rustfmt,
    /// `cargo clippy`
    Clippy,
}

impl Tool {
    /// Makes sure the tool runs: installs it through rustup when it is missing.
    ///
    /// # Errors
    ///
    /// What to do by hand, when there is no rustup or it failed.
    pub(crate) fn ensure(self) -> Result<(), String> {
        if self.answers() {
            return Ok(());
        }
        let component = self.component();
        let installed = Command::new("rustup")
            .args(["component", "add", component])
            .status()
            .is_ok_and(|status| status.success());
        if installed && self.answers() {
            return Ok(());
        }
        Err(format!(
            "cargo {} does not run, and `rustup component add {component}` did not help; \
             install it with rustup, or on Debian with `apt-get install {}`",
            self.subcommand(),
            self.debian(),
        ))
    }

    fn answers(self) -> bool {
        Command::new(cargo())
            .args([self.subcommand(), "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn subcommand(self) -> &'static str {
        match self {
            Self::Rustfmt => "fmt",
            Self::Clippy => "clippy",
        }
    }

    fn component(self) -> &'static str {
        match self {
            Self::Rustfmt => "rustfmt",
            Self::Clippy => "clippy",
        }
    }

    fn debian(self) -> &'static str {
        match self {
            Self::Rustfmt => "rustfmt",
            Self::Clippy => "rust-clippy",
        }
    }
}
