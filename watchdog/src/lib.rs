//! hangwatch watchdog.

pub mod child;
pub mod exit;
pub mod relay;
