//! `cargo xtask bench`: hangwatch beside its peers, the criterion benches, the package's, and
//! instruction counts.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::step::{Step, root};
use crate::tools::{DEBIANS_PYTHON, Tool};
use crate::{python, runner};

/// The parts that torch's timers or NVIDIA's extension take part in.
const PARTS_WITH_PEERS: [&str; 3] = ["worker", "tick", "signal"];

/// What is measured: without a word everything beside its peers, into bench/RESULTS.md.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: Option<What>,

    /// Few turns and small sizes, for a look: writes to target/bench instead
    #[arg(long)]
    quick: bool,

    /// Only these parts: worker, producers, table, tick, signal, life, observed, fleet; writes to target/bench
    #[arg(long, value_name = "PART")]
    only: Vec<String>,

    /// Ten million timers too: takes some minutes more
    #[arg(long)]
    huge: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The criterion benches
    Criterion {
        /// Run only this bench target, as named in bench/benches/
        #[arg(long, value_name = "NAME")]
        bench: Option<String>,
        /// Arguments for criterion: a filter, --save-baseline NAME, --quick, ...
        #[arg(last = true)]
        criterion: Vec<OsString>,
    },
    /// What a `with` costs in Python
    Python,
    /// Instructions of the hot paths, by callgrind, against the committed figures
    Instructions {
        /// Write what is counted to bench/instructions.json
        #[arg(long)]
        accept: bool,
    },
}

/// Runs the benches.
pub(crate) fn run(options: &Options) -> ExitCode {
    match &options.what {
        None => compare(options),
        Some(What::Python) => python::bench(),
        Some(What::Instructions { accept }) => {
            let accept = accept.then(|| OsString::from("--accept"));
            runner::run(&[instructions().args(accept)], None)
        }
        Some(What::Criterion { bench, criterion }) => {
            let target = bench.as_deref().unwrap_or("*");
            let step = Step::cargo(
                "bench",
                "the criterion benches",
                &["bench", "-p", "hangwatch-bench", "--bench", target, "--"],
            )
            .args(criterion.iter().cloned());
            runner::run(&[step], None)
        }
    }
}

/// The step that compares instruction counts.
pub(crate) fn instructions() -> Step {
    let program = ["run", "--release", "-q", "-p", "hangwatch-bench", "--bin", "instructions"];
    Step::cargo(
        "instructions",
        "the hot paths execute no more than they did",
        &[&program[..], &["--no-default-features", "--"]].concat(),
    )
    .needs(Tool::Driven)
}

/// Everything beside its peers.
fn compare(options: &Options) -> ExitCode {
    let files = Files::new(options);
    if let Err(error) = files.prepare() {
        eprintln!("cargo xtask bench: {}: {error}", files.folder.display());
        return ExitCode::FAILURE;
    }
    let program = ["--profile", "bench", "-p", "hangwatch-bench", "--bin", "compare"];
    let mut measure = vec![OsString::from("measure"), "--out".into(), files.measured().into()];
    measure.extend(options.quick.then(|| "--quick".into()));
    measure.extend(options.huge.then(|| "--huge".into()));
    measure.extend(options.only.iter().flat_map(|part| ["--only".into(), part.into()]));
    let report = ["report".into(), "--measured".into(), files.measured().into()];
    let report = report.into_iter().chain(["--peer".into(), files.peers().into()]);
    let report = report.chain(["--into".into(), files.into.clone().into()]);
    let run = [&["run", "-q"], &program[..], &["--"]].concat();
    let mut steps = vec![
        Step::cargo("build", "the contenders", &[&["build"], &program[..]].concat()),
        Step::cargo("measure", "what is written in Rust", &run).args(measure),
    ];
    let has_peers = |part: &String| PARTS_WITH_PEERS.contains(&part.as_str());
    if options.only.is_empty() || options.only.iter().any(has_peers) {
        steps.extend(peers(&files, options.quick));
    }
    steps.push(Step::cargo("report", "the page, the figures, the plots", &run).args(report));
    runner::run(&steps, None)
}

/// torch's timers and NVIDIA's extension, in a virtual environment that sees Debian's torch.
fn peers(files: &Files, quick: bool) -> Vec<Step> {
    let venv = files.folder.join("venv");
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let new = ["-m", "venv", "--system-site-packages", &text(venv.clone())];
    let python = venv.join("bin").join("python");
    let pip = |name, what, packages: &[&str]| {
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        Step::program(name, what, &python, &[&install[..], packages].concat())
    };
    let peer = |name, what, script: &str| {
        let quick = quick.then(|| OsString::from("--quick"));
        Step::program(name, what, &python, &[&format!("bench/peers/{script}.py")])
            .args(quick)
            .env("PEERS_FILE", files.peers())
    };
    vec![
        Step::program("venv", "an environment for the peers", DEBIANS_PYTHON, &new)
            .needs(Tool::PythonWithTorch),
        pip("nvidia", "NVIDIA's extension", &["--no-deps", "nvidia-resiliency-ext==0.4.1"]),
        pip(
            "needs",
            "what it needs beside torch",
            &["defusedxml", "nvidia-ml-py", "packaging", "psutil", "pyyaml"],
        ),
        peer("torch", "torch's timers: worker and server", "torch_cost"),
        peer("late", "torch's timers: how late", "torch_late"),
        peer("sections", "NVIDIA's sections and heartbeats", "nvrx_cost"),
    ]
}

/// Where a run keeps things.
struct Files {
    folder: PathBuf,
    into: PathBuf,
}

impl Files {
    fn new(options: &Options) -> Files {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        let folder = root().join(target).join("bench");
        // What is published is a whole run.
        let is_whole = !options.quick && options.only.is_empty();
        let into = if is_whole { root().join("bench") } else { folder.clone() };
        Files { folder, into }
    }

    fn prepare(&self) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.peers(), "") // the peers append to it
    }

    fn measured(&self) -> PathBuf {
        self.folder.join("measured.json")
    }

    fn peers(&self) -> PathBuf {
        self.folder.join("peers.jsonl")
    }
}
