//! Serves a watchdog's state over HTTP, and queries many watchdogs at once.
//!
//! * [`listen`] answers `/metrics`, `/healthz` and `/state` of one watchdog.
//! * [`state`] is a segment as JSON, for `/state` and `status --json`.
//! * [`fleet`] asks the listeners of many hosts and finds what hangs.
//!
//! It changes nothing, and neither the workers nor the tick wait for it.
//!
//! Neighbours: `hangwatch-server` provides the figures and events; the command line prints the results.

pub mod fleet;
pub mod listen;
pub mod state;
