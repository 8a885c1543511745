//! hangwatch watchdog.

pub mod child;
pub mod exec;
pub mod exit;
pub mod relay;
