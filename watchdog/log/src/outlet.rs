//! The outlet: lines for standard error that hold nobody up.
//!
//! A pipe that is full because nobody reads it holds whoever writes to it. `exec` must end its command at
//! the deadline all the same, so a thread of its own writes: [`open`] starts it, [`write`] gives it a line,
//! [`finish`] waits for it for a while. A line that finds no room is lost and counted; the count is written
//! as soon as there is room again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// Lines that wait at most.
const WAITING: usize = 1_000;

static OUTLET: OnceLock<Outlet> = OnceLock::new();

struct Outlet {
    lines: SyncSender<Vec<u8>>,
    /// Lines that found no room and were not told of yet.
    lost: AtomicU64,
    /// Lines that were sent and are not written yet.
    unwritten: Mutex<u64>,
    written: Condvar,
}

/// Has a thread write to standard error from now on.
///
/// # Errors
/// No thread can be had: lines are written by those who send them, as before.
pub fn open() -> io::Result<()> {
    let (lines, to_write) = sync_channel(WAITING);
    let (lost, unwritten) = (AtomicU64::new(0), Mutex::new(0));
    let named = thread::Builder::new().name("hangwatch-stderr".to_owned());
    named.spawn(move || write_all(&to_write))?;
    // Open already, this one ends with its thread.
    let _ = OUTLET.set(Outlet { lines, lost, unwritten, written: Condvar::new() });
    Ok(())
}

/// Writes to standard error, or has it written where the outlet is open.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(outlet) = OUTLET.get() else { return io::stderr().write(bytes) };
        *outlet.unwritten() += 1;
        if outlet.lines.try_send(bytes.to_owned()).is_err() {
            *outlet.unwritten() -= 1;
            outlet.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until all lines are written, for so long at most.
pub fn finish(limit: Duration) {
    let Some(outlet) = OUTLET.get() else { return };
    let end = Instant::now() + limit;
    let mut unwritten = outlet.unwritten();
    while *unwritten > 0 {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let waited = outlet.written.wait_timeout(unwritten, left);
        unwritten = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl Outlet {
    fn unwritten(&self) -> std::sync::MutexGuard<'_, u64> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_all(lines: &Receiver<Vec<u8>>) {
    for line in lines {
        let Some(outlet) = OUTLET.get() else { return };
        put(&line);
        let lost = outlet.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            put(format!("hangwatch: {lost} lines were lost: standard error was full\n").as_bytes());
        }
        *outlet.unwritten() -= 1;
        outlet.written.notify_all();
    }
}

/// Writes all of it, however long that takes. What cannot be written is lost: nobody could be told.
fn put(mut bytes: &[u8]) {
    let stderr = rustix::stdio::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut polled = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
                if rustix::event::poll(&mut polled, None).is_err_and(|error| error != Errno::INTR) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
