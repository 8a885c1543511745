//! The `hangwatch` binary: its command line, and what each command does.
//!
//! * [`cli`] reads arguments, variables and the configuration file; [`commands`] performs them.
//! * [`deadlines`] is the file that says how long scopes may take.
//! * `doctor` checks what works on this machine.
//! * [`exit`] has the exit codes, [`program`] the path of this binary.
//!
//! What it does not do: watch, capture, kill, draw or log. The crates below do (see `ARCHITECTURE.md`).

pub mod cli;
pub mod commands;
pub mod deadlines;
mod doctor;
pub mod exit;
pub mod program;
