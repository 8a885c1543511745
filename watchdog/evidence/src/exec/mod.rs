//! The incident of `hangwatch exec`: what is kept of a command whose deadline passed.
//!
//! `case` makes the incident, `witness` captures its evidence, `keeper` writes it.

pub mod case;
mod keeper;
pub(crate) mod witness;
