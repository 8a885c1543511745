//! A watchdog over HTTP, and many of them at once.
//!
//! * [`listen`] answers `/metrics`, `/healthz` and `/state` of one watchdog.
//! * [`state`] is a segment as JSON, the same from `/state` and `status --json`.
//! * [`fleet`] asks the listeners of many hosts and says where something is in trouble.
//!
//! What it does not do: it changes nothing; neither workers nor the tick wait for it.
//!
//! Neighbours: `hangwatch-server`, whose figures and events are shown; the command line, which prints them.

pub mod fleet;
pub mod listen;
pub mod state;
