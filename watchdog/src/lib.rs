//! hangwatch watchdog.

pub mod child;
pub mod cli;
pub mod exec;
pub mod exit;
pub mod logging;
pub mod relay;
pub mod server;
