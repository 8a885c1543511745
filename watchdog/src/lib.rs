//! The watchdog as a library: the server of a segment, and the commands of the `hangwatch` binary.
//!
//! The modules from the outside in: [`cli`] reads the command line, [`commands`] does what it asks
//! for, [`server`] watches a segment, [`deadlines`] is the file that says how long scopes may take;
//! [`exec`] removes a command with its descendants, [`child`] and [`relay`] run one and pass signals on (`start`, `signals`),
//! `children` tells helpers from the rest, [`evidence`] finds out why a worker hangs, [`incident`] is what is kept of an expiry, [`show`], [`report`] and [`trace`] are what is made of one
//! for people, [`listen`] tells of a server over HTTP, [`state`] is a segment as JSON, [`fleet`] those
//! of many hosts, `top` the live view, `doctor` says what works here, [`notify`] tells the service
//! manager, [`logging`] and [`exit`] are what the outside sees, [`output`] writes the files that are asked
//! for.

pub mod cli;
pub mod commands;
pub mod deadlines;
mod doctor;
pub mod exit;
pub mod fleet;
pub mod hook;
pub mod listen;
pub mod logging;
pub mod notify;
mod outlet;
pub mod program;
pub mod report;
pub mod server;
pub mod show;
pub mod state;
mod top;
pub mod trace;
