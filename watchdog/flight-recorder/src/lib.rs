//! Reads `PyTorch` Flight Recorder dumps and finds the ranks at fault for a hang.
//!
//! Each rank of a job writes one dump: the process groups it is in, how many collectives it has enqueued
//! and completed in each, and the newest entries. [`read`] collects the dumps of a job from files;
//! [`Analysis::of`] joins them into a graph of who waits for whom and names
//!
//! * the ranks that others wait for and that wait for nobody,
//! * cycles of ranks that wait for each other,
//! * ranks without a dump,
//! * collectives that two ranks called with different operations, types or sizes.
//!
//! A dump is a pickle (or JSON). It is read as plain data: an opcode that names a class or calls anything
//! is refused, and memory is bounded by the file's size.
//!
//! What it does not do: it does not compare point-to-point counters, which differ between the ranks of a
//! group by design, and it does not read clocks.
//!
//! Neighbours: the `analyze` command of `hangwatch-cli` prints an [`Analysis`].

mod analysis;
mod dump;
mod files;
mod mismatch;
mod pickle;
mod value;
mod waits;

pub use analysis::{Analysis, AtFault, Wait};
pub use dump::{Collective, Dump, DumpError, Group, Membership};
pub use files::{ReadError, Unread, read};
pub use mismatch::{Call, Mismatch};
pub use pickle::PickleError;
