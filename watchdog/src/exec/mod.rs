//! `hangwatch exec`: a deadline for any command, with all that the command starts.
//!
//! `lineage` finds descendants and proves that they are ours; `tree` starts a command and
//! removes it with its descendants; `removal` says what that came to.

pub(crate) mod lineage;
mod pause;
pub mod removal;
pub mod tree;
