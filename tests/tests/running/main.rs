//! Running it: what an operator does with a watchdog, by the binary and its files.
//!
//! * `around`: a watchdog around a command, and its standby
//! * `deadlines`: learned from what was seen, published, changed while it runs
//! * `fleet`: the watchdogs of many hosts in one table
//! * `hung_disk`: settings and error files on a disk that does not answer
//! * `names`: names that hold every character, in every output
//! * `shadow`: what a watchdog that only reports would have reaped
//! * `prometheus`: the files of `examples/fleet`, by the real promtool and Prometheus

mod around;
mod deadlines;
mod fleet;
mod hung_disk;
mod names;
mod prometheus;
mod shadow;

use std::process::{Command, Output};

use hangwatch_tests::program;

/// Runs a command of the binary to its end.
fn hangwatch(words: &[&str]) -> Output {
    Command::new(program("stage-watchdog"))
        .args(words)
        .env_remove("HANGWATCH_SEGMENT")
        .output()
        .unwrap()
}

/// What it wrote, where it succeeded.
fn said(words: &[&str]) -> String {
    let output = hangwatch(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complained of, and its exit code.
fn complaint(words: &[&str]) -> (Option<i32>, String) {
    let output = hangwatch(words);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
