//! The wait graph: who waits for whom, across threads and processes, and what is at the end of the way.
//!
//! A [`WaitGraph`] is one capture as plain data: nodes ([`Node`]) are threads and things outside of them, edges
//! ([`Edge`]) say that one waits for another, for which [`Resource`], and how that is known ([`Source`]).
//! [`Verdict::of`] follows the edges from the nodes that were asked about and says where they end: in a
//! deadlock, at one culprit, at several, or nowhere that is known. [`sentence`] says it in one line,
//! [`chain`] shows the way.
//!
//! Where a node has several edges, any one of them could end its wait: a parent waits for any of its
//! children, a reader for any holder of the other end. So a deadlock is a set of nodes that wait for each
//! other and for nobody outside of the set.
//!
//! The crate is a leaf: it reads no file, makes no system call, and has no `unsafe`. Names in a graph are
//! the captured processes' own: clean them before they are printed.

#![forbid(unsafe_code)]

mod components;
mod graph;
mod verdict;
mod words;

pub use graph::{
    Edge, End, FileLock, Medium, Node, NodeId, Place, Resource, Source, Thread, WaitGraph, What,
};
pub use verdict::{Culprit, Kind, Lost, Step, Verdict};
pub use words::{chain, sentence};
