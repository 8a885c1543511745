//! `cargo xtask fuzz`: the fuzz targets in `fuzz/`, each for a while.

use std::process::ExitCode;

use clap::Args;

use crate::runner::{self, say};
use crate::step::Step;
use crate::tools::Tool;

/// Every target, with what it checks.
const TARGETS: [(&str, &str); 3] = [
    ("layout", "random words are opened and read"),
    ("tick", "random words under the whole watchdog"),
    ("others", "random words in all lanes but one"),
];

/// Which targets to run, for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run this target only; may be given several times
    #[arg(long, value_name = "TARGET", value_parser = TARGETS.map(|(name, _)| name))]
    only: Vec<String>,

    /// How long to run each target, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// libFuzzer's seed; without one it takes and prints its own
    #[arg(long, value_name = "SEED")]
    seed: Option<u32>,
}

/// Runs the targets. What libFuzzer finds worth keeping goes to `fuzz/corpus/TARGET`, an input that
/// fails to `fuzz/artifacts/TARGET`.
pub(crate) fn run(options: &Options) -> ExitCode {
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|o| o == name);
    let steps: Vec<Step> = TARGETS
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, what)| step(name, what, options))
        .collect();
    say("corpus: fuzz/corpus/TARGET; failing inputs: fuzz/artifacts/TARGET, to be repeated with\n\
         cargo +nightly fuzz run TARGET FILE; the seed stands in the line \"INFO: Seed\"\n");
    runner::run(&steps, Some("cargo xtask fuzz --only"))
}

fn step(name: &'static str, what: &'static str, options: &Options) -> Step {
    let mut args = vec![format!("-max_total_time={}", options.seconds), "-max_len=8192".to_owned()];
    args.extend(options.seed.map(|seed| format!("-seed={seed}")));
    Step::nightly_cargo(name, what, &["fuzz", "run", name, "--"])
        .needs(Tool::Fuzz)
        .args(args.into_iter().map(Into::into))
}

#[cfg(test)]
mod tests {
    use super::{Options, TARGETS, step};
    use crate::step::root;

    #[test]
    fn every_target_is_run_and_every_one_that_is_run_exists() {
        let files = std::fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap();
        let mut files: Vec<String> = files
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        files.sort_unstable();
        let mut names = TARGETS.map(|(name, _)| name);
        names.sort_unstable();
        assert_eq!(files, names);
    }

    #[test]
    fn a_target_is_run_by_the_nightly_cargo() {
        let options = Options { only: Vec::new(), seconds: 7, seed: Some(3) };
        assert_eq!(
            step("tick", "", &options).to_string(),
            "rustup run nightly cargo fuzz run tick -- -max_total_time=7 -max_len=8192 -seed=3"
        );
    }
}
