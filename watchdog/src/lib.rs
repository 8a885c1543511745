//! hangwatch watchdog.
