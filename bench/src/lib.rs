//! See the crate's description in Cargo.toml.
//!
//! The works are here, so that the criterion benches and the programs that print tables
//! (`compare`, `table_compare`) time the same thing.

#[cfg(feature = "server")]
pub mod compare;
#[cfg(feature = "server")]
pub mod cost;
pub mod hosts;
#[cfg(feature = "server")]
pub mod latency;
pub mod measure;
#[cfg(feature = "server")]
pub mod observers;
pub mod pair;
pub mod process;
pub mod stage;
pub mod table;
