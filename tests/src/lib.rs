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

/// The programs in pages, which `cargo test --doc` compiles.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/guide/rust.md")]
    mod guide {}
}

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

/// Living processes that were started with this segment in their environment: a worker of it and all that
/// descends from one, wherever they are by now.
///
/// # Panics
/// Where `/proc` cannot be read.
pub fn living_of(segment: &str) -> Vec<u32> {
    let wanted = format!("HANGWATCH_SEGMENT={segment}");
    let is_of_it = |pid: &u32| {
        // Of a zombie it is empty.
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment.split(|&byte| byte == 0).any(|one| one == wanted.as_bytes())
        })
    };
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_of_it).collect()
}

/// Threads that use every processor until this is dropped.
pub struct Busy(std::sync::Arc<std::sync::atomic::AtomicBool>, Vec<std::thread::JoinHandle<()>>);

impl Busy {
    /// Starts so many.
    pub fn start(threads: usize) -> Busy {
        let over = std::sync::Arc::<std::sync::atomic::AtomicBool>::default();
        let spin = || {
            let over = std::sync::Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..threads).map(|_| spin()).collect();
        Busy(over, threads)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join(); // it cannot panic
        }
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
