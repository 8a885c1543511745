//! See the crate's description in Cargo.toml.
//!
//! The works are here, so that the criterion benches and the programs that print tables
//! (`compare`, `table_compare`) time the same thing.

#[cfg(feature = "server")]
pub mod compare;
#[cfg(feature = "server")]
pub mod cost;
#[cfg(feature = "server")]
pub mod latency;
pub mod measure;
pub mod pair;
pub mod process;
pub mod stage;
pub mod table;
