//! Linux processes: how they are started, identified, signalled and removed with their descendants.
//!
//! A process is a [`Pidfd`](pidfd::Pidfd) or a pid with its start time
//! ([`lineage::Identity`]), never a bare pid: pids are reused.
//!
//! * [`proc`] reads what `/proc` says of a process; [`pidfd`] is a handle on one; [`attest`] proves which
//!   process owns a lane, with [`fdinfo`]; [`freezer`] tells whether one is frozen; [`limits`] are those of
//!   this process.
//! * [`start`] forks and executes a command without waiting for the disk; [`child`] is such a command, with
//!   the signals that [`relay`] catches; [`inherit`] and [`signals`] give it the limits, descriptors and
//!   signal dispositions that hangwatch itself was started with; [`fork`] is for a second process of our own.
//! * [`children`] tells hangwatch's own helpers from the processes of a command.
//! * [`lineage`] reads who descends from whom; [`tree`] is a command with its descendants, for `exec`;
//!   [`descendants`] are those of a worker, for the watchdog.
//! * [`running_time`] is the clock that leaves out the time in which nothing ran.
//! * [`answering`] is what a helper process does that is asked and answers.
//! * [`reading`] reads a file in another process, which a disk that does not answer may hold.
//! * [`bounded`] waits a bounded time for what a process that hangs may never say.
//! * [`sigbus`] keeps a segment whose file was cut short from ending this process.
//!
//! What it does not do: it decides nothing about deadlines, and keeps no record of what it did.
//!
//! Neighbours: `hangwatch` (the segment, locks and clocks) below; the evidence, server and
//! command line crates above.

pub mod answering;
pub mod attest;
pub mod bounded;
pub mod child;
pub mod children;
pub mod descendants;
pub mod fdinfo;
pub mod fork;
pub mod freezer;
pub mod inherit;
pub mod join;
pub mod limits;
pub mod lineage;
pub mod pidfd;
pub mod proc;
pub mod reading;
pub mod relay;
pub mod running_time;
pub mod sigbus;
pub mod signals;
pub mod start;
pub mod tree;
