//! hangwatch core.
#![forbid(unsafe_code)]

pub mod table;
