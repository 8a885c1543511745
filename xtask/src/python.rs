//! `cargo xtask python`: the Python package, installed as a user would and tested there.
//!
//! The virtual environment is built on Debian's interpreter, because Debian's torch is for that one,
//! and sees that torch. Nothing is skipped: where something is missing, it is installed or the step
//! fails and says what to do.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::runner;
use crate::step::{Step, root};
use crate::tools::{DEBIANS_PYTHON, Tool};

/// The package's tests.
pub(crate) fn test() -> ExitCode {
    let mut steps = installed();
    let checked = ["--strict", "hangwatch", "tests", "bench"];
    steps.push(in_venv("types", "mypy --strict", "mypy", &checked).dir("python"));
    // Where the sources are not: the stubs are compared with what was installed.
    let stubs = ["-m", "mypy.stubtest", "hangwatch"];
    steps.push(
        in_venv("stubs", "the stubs say what the module has", "python", &stubs).dir("python/tests"),
    );
    // A test that hangs in C code is ended, too: the method ends the whole run, with every stack.
    let deadline = ["--timeout=300", "--timeout-method=thread"];
    steps.push(in_venv("pytest", "the package's tests", "pytest", &deadline).dir("python/tests"));
    runner::run(&steps, None)
}

/// The package's benches.
pub(crate) fn bench() -> ExitCode {
    let mut steps = installed();
    // Its own wish for torch would bring another than Debian's, and gigabytes.
    let peers = ["install", "--quiet", "--no-deps", "nvidia-resiliency-ext==0.4.1"];
    let needed = ["defusedxml", "nvidia-ml-py", "packaging", "psutil", "pyyaml"];
    let peers = [&peers[..], &needed[..]].concat();
    steps.push(in_venv("peers", "NVIDIA's resiliency extension", "pip", &peers));
    let script = ["python/bench/cost.py"];
    steps.push(in_venv("cost", "what a `with` costs beside its peers", "python", &script));
    runner::run(&steps, None)
}

/// The steps after which the package is installed.
fn installed() -> Vec<Step> {
    let venv = venv().to_string_lossy().into_owned();
    let new = ["-m", "venv", "--clear", "--system-site-packages", venv.as_str()];
    let tools = ["install", "--quiet", "--upgrade", "pytest", "pytest-timeout", "mypy"];
    let install = ["install", "--quiet", "--force-reinstall", "--no-deps", "./python"];
    vec![
        Step::program("venv", "a fresh virtual environment", DEBIANS_PYTHON, &new)
            .needs(Tool::PythonWithTorch),
        in_venv("tools", "pytest, its deadlines and mypy", "pip", &tools),
        in_venv("install", "pip install ./python", "pip", &install),
    ]
}

/// A step that runs a program of the virtual environment.
fn in_venv(name: &'static str, what: &'static str, program: &str, args: &[&str]) -> Step {
    Step::program(name, what, venv().join("bin").join(program), args)
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
}

fn venv() -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join("python-venv")
}
