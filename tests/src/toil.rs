//! Threads that acquire and release at full speed, and end, and are followed by others: lanes that
//! change hands all the time, and counts that are known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use hangwatch::Worker;

/// The scope that is timed.
pub const SCOPE: &str = "toil";

const LONG: Duration = Duration::from_hours(1);
/// Acquires of one thread; then it ends.
const A_THREAD: u64 = 50;

/// Toiling threads.
pub struct Toil {
    over: Arc<AtomicBool>,
    foremen: Vec<JoinHandle<Result<u64, String>>>,
}

impl Toil {
    /// Starts so many, each followed by another as soon as it ends.
    pub fn start(worker: Worker, threads: usize) -> Toil {
        let over = Arc::<AtomicBool>::default();
        let foreman = || {
            let over = Arc::clone(&over);
            spawn(move || {
                let mut acquired = 0;
                while !over.load(Ordering::Relaxed) {
                    let thread = spawn(move || toil(worker));
                    acquired += thread.join().map_err(|_| "a toiling thread panicked")??;
                }
                Ok(acquired)
            })
        };
        Toil { foremen: (0..threads).map(|_| foreman()).collect(), over }
    }

    /// Ends it: how many acquires there were, all released.
    ///
    /// # Errors
    /// The first acquire that failed.
    pub fn rest(self) -> Result<u64, String> {
        self.over.store(true, Ordering::Relaxed);
        let counts = self.foremen.into_iter();
        counts.map(|foreman| foreman.join().map_err(|_| "a thread panicked".to_owned())?).sum()
    }
}

fn toil(worker: Worker) -> Result<u64, String> {
    for _ in 0..A_THREAD {
        let guard = worker.expires(SCOPE, LONG).map_err(|error| error.to_string())?;
        if guard.release() != hangwatch::Released::InTime {
            return Err("an hour did not suffice".to_owned());
        }
    }
    Ok(A_THREAD)
}
