//! The `hangwatch` binary, called as a user would.

use std::process::{Command, Output, Stdio};

/// The binary with these words, and nobody to type anything.
pub(crate) fn hangwatch(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hangwatch"));
    command.args(words).stdin(Stdio::null()).env_remove("HANGWATCH_SEGMENT");
    command.env("HANGWATCH_LOG", "warn");
    command
}

/// Runs it to its end, and checks its exit code.
pub(crate) fn check(words: &[&str], code: i32) -> Output {
    let output = hangwatch(words).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    output
}

/// As `check`, and something that it says on standard error.
pub(crate) fn check_says(words: &[&str], code: i32, part: &str) {
    let output = check(words, code);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(part), "{words:?}: {text}");
}
