//! See the crate's description in Cargo.toml.
//!
//! The works are here, so that the criterion benches and the programs that print tables
//! (`targets`, `latency`, `table_compare`) time the same thing.

pub mod cost;
pub mod latency;
pub mod measure;
pub mod pair;
pub mod process;
pub mod stage;
pub mod table;
