//! `hangwatch exec`: a deadline for any command, with all that the command starts.
//!
//! `lineage` finds descendants and proves that they are ours; `tree` starts a command and
//! removes it with its descendants; `removal` says what that came to. `case` makes an incident of
//! a deadline that passed: `witness` captures its evidence, `keeper` writes it. `clock` is what deadlines
//! count by.

pub(crate) mod case;
pub(crate) mod clock;
mod keeper;
pub(crate) mod lineage;
mod pause;
pub mod removal;
pub mod tree;
mod witness;
