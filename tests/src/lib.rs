//! The stage of the cross-process tests: a [`Segment`](hangwatch::Segment) of its own, [`Watchdog`]
//! processes that serve it, [`Actor`] processes that attach to it and do as they are told.
//!
//! A test waits for conditions ([`until`], [`Watchdog::event`]) with one generous bound; it never
//! sleeps to synchronise. Whatever a test started is gone when its stage is dropped.

mod actor;
pub mod freezer;
pub mod fuse;
pub mod hang;
pub mod incidents;
pub mod load;
pub mod mount;
pub mod mutator;
pub mod namespace;
pub mod newcomer;
pub mod race;
pub mod random;
mod segment;
pub mod soak;
pub mod toil;
pub mod tracer;
mod watchdog;

use std::time::{Duration, Instant};

pub use actor::Actor;
pub use segment::Stage;
pub use watchdog::{Watchdog, program};

/// How long anything is waited for before its test counts as failed.
pub const BOUND: Duration = Duration::from_mins(1);

/// Waits until `condition` gives something.
///
/// # Panics
/// Where it does not within [`BOUND`].
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let from = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(from.elapsed() < BOUND, "it did not come about: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether this process may do what needs root; says why a test is skipped where it may not.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: {test} needs root");
    }
    root
}
