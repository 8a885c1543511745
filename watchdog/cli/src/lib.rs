//! The `hangwatch` binary: its command line and its commands.
//!
//! * [`cli`] parses arguments, variables and the settings file; [`commands`] runs the commands.
//! * [`deadlines`] reads and writes the file of timeouts for scopes.
//! * `doctor` checks what works on this host.
//! * [`exit`] has the exit codes, [`program`] the path of this binary.
//!
//! It does not watch, capture, kill, draw or log: other crates do (see `ARCHITECTURE.md`).

pub mod cli;
pub mod commands;
pub mod deadlines;
mod doctor;
pub mod exit;
pub mod program;
