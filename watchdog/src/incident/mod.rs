//! The incident: what is kept of one worker's expiry, from the condemned timer to the end of its reap.
//!
//! [`schema`] says what is in it, as types: they are written as `incident.json`, and read from it by
//! everything that shows an incident. [`store`] says where they are kept.

pub mod schema;
pub mod store;
