//! Tools a step needs beside cargo itself, installed when they are missing.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::step::{cargo, root};

/// What a step may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `cargo fmt`
    Rustfmt,
    /// `cargo clippy`
    Clippy,
    /// `cargo nextest`, which runs each test with a deadline of its own
    Nextest,
    /// A nightly compiler
    Nightly,
    /// `cargo fuzz`, and the nightly compiler it needs
    Fuzz,
    /// mdBook, of the version that the book is written for
    MdBook,
    /// Debian's Python with venv and torch
    PythonWithTorch,
    /// Programs that the tests drive, or are driven by
    Driven,
}

/// A program of Debian's, and how it is known to be there.
struct Package {
    name: &'static str,
    answers: &'static [&'static str],
}

/// What [`Tool::Driven`] stands for. Tests that need one of them skip where it is missing, unless
/// `HANGWATCH_TEST_TOOLS` says `required`.
const DRIVEN: [Package; 7] = [
    Package { name: "chromium", answers: &["chromium", "--version"] },
    Package { name: "mandoc", answers: &["sh", "-c", "command -v mandoc"] },
    Package { name: "prometheus", answers: &["promtool", "--version"] },
    Package {
        name: "python3-prometheus-client",
        answers: &[DEBIANS_PYTHON, "-c", "import prometheus_client.openmetrics.parser"],
    },
    Package { name: "systemd", answers: &["systemd-analyze", "--version"] },
    Package { name: "tmux", answers: &["tmux", "-V"] },
    Package { name: "valgrind", answers: &["valgrind", "--version"] },
];

/// The version of mdBook that is installed.
const MDBOOK: &str = "0.5.4";

/// Debian's interpreter: the only one that has Debian's torch.
pub(crate) const DEBIANS_PYTHON: &str = "/usr/bin/python3";

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
            Self::Nextest => subcommand("nextest", "cargo-nextest"),
            Self::Nightly => nightly(),
            Self::Fuzz => fuzz(),
            Self::MdBook => install_mdbook(),
            Self::PythonWithTorch => python_with_torch(),
            Self::Driven => driven(),
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

fn nightly() -> Result<(), String> {
    let nightly = || succeeds("rustup", &["run", "nightly", "rustc", "--version"], Output::Hidden);
    let add = ["toolchain", "install", "nightly", "--profile", "minimal"];
    if nightly() || (succeeds("rustup", &add, Output::Shown) && nightly()) {
        return Ok(());
    }
    Err("there is no nightly compiler, which sanitizers and libFuzzer need, and `rustup toolchain \
         install nightly` did not help; install it with rustup"
        .to_owned())
}

fn fuzz() -> Result<(), String> {
    nightly()?;
    subcommand("fuzz", "cargo-fuzz")
}

/// A subcommand of cargo that a crate brings.
fn subcommand(name: &str, package: &str) -> Result<(), String> {
    let answers = || succeeds(cargo(), &[name, "--version"], Output::Hidden);
    let install = || succeeds(cargo(), &["install", "--locked", package], Output::Shown);
    if answers() || (install() && answers()) {
        return Ok(());
    }
    Err(format!(
        "cargo {name} does not run, and `cargo install --locked {package}` did not help; is \
         ~/.cargo/bin on the path?"
    ))
}

/// The mdBook of this checkout: below the target directory, so that its version is ours.
pub(crate) fn mdbook() -> PathBuf {
    tools_dir().join("bin/mdbook")
}

fn tools_dir() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("tools")
}

fn install_mdbook() -> Result<(), String> {
    let version = Command::new(mdbook()).arg("--version").output();
    let wanted = format!("mdbook v{MDBOOK}");
    if version.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).trim() == wanted) {
        return Ok(());
    }
    let dir = tools_dir();
    // Neither a server nor a watcher of files.
    let features = ["--no-default-features", "--features", "search"];
    let mut command = Command::new(cargo());
    command.args(["install", "--locked", "--force", "--version", MDBOOK]).args(features);
    command.arg("--root").arg(&dir).arg("--target-dir").arg(dir.join("build")).arg("mdbook");
    if command.status().is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(format!("`cargo install --locked --version {MDBOOK} mdbook` did not work"))
}

fn python_with_torch() -> Result<(), String> {
    let imports = ["-c", "import ensurepip, torch.distributed.run"];
    let answers = || succeeds(DEBIANS_PYTHON, &imports, Output::Hidden);
    let packages = ["python3", "python3-venv", "python3-torch"];
    if answers() || (install(&packages) && answers()) {
        return Ok(());
    }
    Err(by_hand(&format!("{DEBIANS_PYTHON} lacks venv or torch"), &packages))
}

fn driven() -> Result<(), String> {
    let missing = || -> Vec<&str> {
        let answers = |package: &&Package| {
            !succeeds(package.answers[0], &package.answers[1..], Output::Hidden)
        };
        DRIVEN.iter().filter(answers).map(|package| package.name).collect()
    };
    let packages = missing();
    if packages.is_empty() || (install(&packages) && missing().is_empty()) {
        return Ok(());
    }
    Err(by_hand("programs that the tests need are missing", &packages))
}

/// Has Debian install packages.
fn install(packages: &[&str]) -> bool {
    // An old list of packages is better than none: what counts is whether they come.
    let _ = succeeds("apt-get", &["update", "-qq"], Output::Shown);
    let install = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-qq", "-y"];
    let install = [&install[..], &["--no-install-recommends"], packages].concat();
    succeeds("env", &install, Output::Hidden)
}

fn by_hand(what: &str, packages: &[&str]) -> String {
    format!(
        "{what}, and apt-get did not bring them; as root: apt-get update && apt-get install {}",
        packages.join(" ")
    )
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
