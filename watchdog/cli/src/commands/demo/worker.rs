//! One worker of the demo: hashes its share under nested scopes, then finishes, deadlocks or crashes.

use std::io::Read;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hangwatch::Worker;
use rustix::process::{Resource, Rlimit, Signal};
use sha2::{Digest, Sha256};

use super::super::{Failure, print};
use super::files;
use crate::cli::{DemoWorker, Fate};
use crate::exit::Exit;

/// The least time a worker runs, so that there is something to see; it hashes its share repeatedly.
const AT_LEAST: Duration = Duration::from_millis(2500);
/// The most bytes of the list of files, enough for 2,000 paths.
const MOST_LIST_BYTES: u64 = 16 << 20;
/// How long workers run before they deadlock or crash.
const BEFORE_FATE: Duration = Duration::from_millis(500);

/// Runs one worker, and prints its digest.
pub(crate) fn perform(options: &DemoWorker) -> Result<Exit, Failure> {
    // The watchdog runs in the demo's process: without it, a worker that hangs would stay.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Else the process would be named after /proc/self/exe.
    rustix::thread::set_name(c"demo-worker")?;
    let worker = Worker::attach_from_env()?;
    let mut list = Vec::new();
    std::io::stdin().lock().take(MOST_LIST_BYTES).read_to_end(&mut list)?;
    let share = &files::read_list(&list).ok_or("the list of files cannot be read")?;
    let begun = Instant::now();
    let whole = worker.expires("share", Duration::from_secs(30))?;
    let file = worker.scope("share/file")?;
    let result = loop {
        let mut digest = Sha256::new();
        for one in share {
            let _guard = file.expires(Duration::from_secs(5))?;
            digest.update(files::file_digest(one));
            meet_fate(options.fate, &worker, begun)?;
        }
        meet_fate(options.fate, &worker, begun)?;
        if begun.elapsed() >= AT_LEAST {
            break files::hex(&digest.finalize());
        }
        let _guard = worker.expires("share/rest", Duration::from_secs(5))?;
        thread::sleep(Duration::from_millis(20));
    };
    whole.release();
    print(&(result + "\n"))?;
    Ok(Exit::Ok)
}

fn meet_fate(fate: Fate, worker: &Worker, begun: Instant) -> Result<(), Failure> {
    if begun.elapsed() < BEFORE_FATE {
        return Ok(());
    }
    match fate {
        Fate::Finish => Ok(()),
        Fate::Crash => {
            // Avoids a core file among the hashed files.
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            let _ = rustix::process::setrlimit(Resource::Core, none);
            std::process::abort()
        }
        Fate::Deadlock => {
            let _guard = worker.expires("exchange", Duration::from_secs(1))?;
            deadlock();
            Ok(())
        }
    }
}

/// Deadlocks: two threads take two locks in opposite order.
fn deadlock() {
    let locks = Arc::new((Mutex::new(()), Mutex::new(())));
    let both_hold_one = Arc::new(Barrier::new(2));
    let other = {
        let (locks, barrier) = (locks.clone(), both_hold_one.clone());
        thread::spawn(move || {
            let _second = locks.1.lock();
            barrier.wait();
            let _first = locks.0.lock();
        })
    };
    let _first = locks.0.lock();
    both_hold_one.wait();
    let _second = locks.1.lock();
    let _ = other.join();
}
