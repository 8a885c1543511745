//! hangwatch core.
#![forbid(unsafe_code)]
