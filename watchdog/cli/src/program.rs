//! The `hangwatch` program, for those who start it anew as a process of their own.

use std::env;
use std::path::PathBuf;

/// The environment variable that names the program, where this process runs another: a library that is
/// loaded into an interpreter does.
pub const PROGRAM_VARIABLE: &str = "HANGWATCH_PROGRAM";

/// The program that has the commands of `hangwatch`: this one, unless the environment names another.
///
/// This one is named by what the kernel runs, not by its path, where an upgrade may have put another
/// version by now.
pub fn own_program() -> PathBuf {
    env::var_os(PROGRAM_VARIABLE).map_or_else(|| "/proc/self/exe".into(), PathBuf::from)
}
