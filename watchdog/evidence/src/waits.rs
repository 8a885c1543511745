//! The capture of who waits for whom: from `/proc`, `sock_diag` and words of memory, of processes that run on.
//!
//! ```text
//!  processes asked about -> task: state, system call, children        -> builder: nodes, edges
//!                           futex: whose lock, from words of memory
//!                           holders, tcp, unix: who has the other end
//!                           locks, mounts: files and their servers     -> the processes found there, likewise
//! ```
//!
//! Nothing is stopped, opened or written; every file and list is bounded, and so are the processes and
//! threads. The result is a [`WaitGraph`](hangwatch_wait_graph::WaitGraph), plain data. [`helper`] has a
//! process of its own make it, which may hang over a file of `/proc` without harm.

mod builder;
mod calls;
mod descriptors;
mod futex;
pub mod helper;
mod holders;
mod locks;
mod mounts;
mod story;
mod task;
mod tcp;
mod unix;

pub use builder::capture;
pub use story::{conclude, on_the_way};
