//! `cargo xtask torch`: the tests that need torch, with the newest one that `PyPI` has.
//!
//! It takes gigabytes, so the virtual environment is kept outside the target directory, for all
//! checkouts: in `$XTASK_TORCH_VENV`, else below the user's cache directory. Each run looks for a newer
//! torch, within bounds of time; where there is too little room for a first one, the tests are skipped,
//! and the gate's last lines say so.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;

use crate::runner;
use crate::step::Step;
use crate::tools::DEBIANS_PYTHON;

/// What a first installation may take, GiB: the packages, and what pip keeps of them meanwhile.
const ROOM_GIB: u64 = 12;
/// The tests that are run; each is counted as skipped where they are.
const TESTS: [&str; 4] = ["test_auto.py", "test_ddp.py", "test_timer.py", "test_torch.py"];

/// Which of the tests to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// All unmodified jobs that `--auto` is tested with, not only a few
    #[arg(long)]
    all: bool,
}

/// Installs the newest torch and the package, and runs the tests.
pub(crate) fn run(options: &Options) -> ExitCode {
    let path = venv().to_string_lossy().into_owned();
    // Kept from run to run: `venv` leaves what is installed there.
    let new = ["-m", "venv", path.as_str()];
    let tools = ["install", "--quiet", "--upgrade", "pytest", "pytest-timeout"];
    let package = ["install", "--quiet", "--force-reinstall", "--no-deps", "./python"];
    // A network that is down does not hide what an older torch shows.
    let newest = "timeout --kill-after=30s 20m \"$0\" -m pip install --quiet --upgrade torch numpy || \
                  \"$0\" -c 'import torch; print(\"tested with torch\", torch.__version__)'";
    let python = program("python").to_string_lossy().into_owned();
    let jobs = if options.all { "all_jobs or not all_jobs" } else { "not all_jobs" };
    let mut tests = vec!["-m", jobs, "--timeout=300", "--timeout-method=thread"];
    tests.extend(TESTS);
    let mut steps = Vec::new();
    if !program("python").exists() {
        steps.push(Step::program(
            "venv",
            "a virtual environment that is kept",
            DEBIANS_PYTHON,
            &new,
        ));
    }
    steps.extend([
        in_venv("tools", "pytest and its deadlines", "pip", &tools),
        Step::program("newest", "the newest torch of PyPI", "sh", &["-c", newest, &python]),
        in_venv("install", "pip install ./python", "pip", &package),
        in_venv("pytest", "the tests that need torch", "pytest", &tests).dir("python/tests"),
    ]);
    runner::run(&steps, None)
}

/// Why the tests cannot be run here: there is no torch yet, and too little room for one.
pub(crate) fn no_room() -> Option<String> {
    let has_torch =
        program("python").exists() && succeeds(&program("python"), &["-c", "import torch"]);
    let place = venv();
    // What is there of the path, with the free space of its file system.
    let there = place.ancestors().find(|path| path.exists())?;
    let free_gib = free_gib(there)?;
    (!has_torch && free_gib < ROOM_GIB).then(|| {
        format!(
            "{} of python/tests with PyPI's torch: {free_gib} GiB are free in {}, and it takes {ROOM_GIB} \
             (XTASK_TORCH_VENV names another place)",
            TESTS.join(", "),
            there.display()
        )
    })
}

fn free_gib(path: &Path) -> Option<u64> {
    let told =
        Command::new("df").args(["--output=avail", "--block-size=1G"]).arg(path).output().ok()?;
    String::from_utf8_lossy(&told.stdout).lines().last()?.trim().parse().ok()
}

fn succeeds(program: &Path, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|told| told.status.success())
}

fn in_venv(name: &'static str, what: &'static str, word: &str, args: &[&str]) -> Step {
    Step::program(name, what, program(word), args).env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
}

fn program(name: &str) -> PathBuf {
    venv().join("bin").join(name)
}

fn venv() -> PathBuf {
    if let Some(named) = env::var_os("XTASK_TORCH_VENV") {
        return named.into();
    }
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(|| "target".into()).join("hangwatch/torch-venv")
}
