//! Evidence: why a worker hangs, seen from outside before its first signal.
//!
//! ```text
//!  the watchdog's process                           a helper's, one for each condemned worker
//!  ----------------------                           -----------------------------------------
//!  picture: scopes, rings, peers
//!  suspect: who holds the others up
//!  capture: starts the helper, which the    ------>  process, threads: what /proc says
//!    budget bounds, and takes in what comes  <-----  stop: all threads, for some milliseconds
//!    line by line (piece)                    <-----  python, native: their stacks, with names
//! ```
//!
//! Whatever touches the worker is in the helper ([`helper`]): it may hang with the worker, crash on
//! what it finds there, or be killed, and all that is lost is evidence. The worker is traced with
//! `PTRACE_SEIZE` only, so the helper's end, whatever it is, lets it go.
//!
//! What is not there although it was asked for is listed, with the reason, in
//! [`Evidence::missing`](hangwatch_incident::schema::Evidence::missing).

pub mod capture;
pub mod claims;
pub mod dump;
pub mod exec;
pub mod helper;
pub mod live;
pub mod options;
pub mod picture;
pub mod piece;
pub mod redact;
pub mod suspect;
pub mod waits;
pub mod writer;
