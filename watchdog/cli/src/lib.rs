//! The `hangwatch` binary: its command line, and what each command does.
//!
//! * [`cli`] reads arguments, variables and the configuration file; [`commands`] performs them.
//! * [`deadlines`] is the file that says how long scopes may take.
//! * `top` is the live view; `doctor` checks what works on this machine.
//! * [`logging`] formats the log, `outlet` writes it without ever holding the process up;
//!   [`exit`] has the exit codes, [`program`] the path of this binary.
//!
//! What it does not do: watch, capture or kill. The crates below do (see `ARCHITECTURE.md`).

pub mod cli;
pub mod commands;
pub mod deadlines;
mod doctor;
pub mod exit;
pub mod logging;
mod outlet;
pub mod program;
mod top;
