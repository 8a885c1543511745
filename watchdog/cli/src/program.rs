//! The path of the `hangwatch` program, for code that starts it as a new process.

use std::env;
use std::path::PathBuf;

/// The environment variable that names the program; set when this code runs inside an interpreter.
pub const PROGRAM_VARIABLE: &str = "HANGWATCH_PROGRAM";

/// The path of the `hangwatch` program: this process's own, unless the environment names another.
///
/// The path is `/proc/self/exe`, because an upgrade may have replaced the file since the start.
pub fn own_program() -> PathBuf {
    env::var_os(PROGRAM_VARIABLE).map_or_else(|| "/proc/self/exe".into(), PathBuf::from)
}
