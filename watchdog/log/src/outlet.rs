//! Writes lines to standard error without blocking the caller.
//!
//! A full pipe blocks its writers, but `exec` must kill its command at the deadline. So a separate thread
//! writes: [`open`] starts it, [`write`] queues a line, [`finish`] waits for it for a limited time. If the
//! queue is full, the line is lost and counted; the count is written when there is room again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

/// The most queued lines.
const WAITING: usize = 1_000;

static OUTLET: OnceLock<Outlet> = OnceLock::new();

struct Outlet {
    lines: SyncSender<Vec<u8>>,
    /// Lost lines that have not been reported yet.
    lost: AtomicU64,
    /// Queued lines.
    unwritten: Mutex<u64>,
    written: Condvar,
}

/// Starts the thread that writes to standard error.
///
/// # Errors
/// The thread cannot be started; then callers write their lines themselves.
pub fn open() -> io::Result<()> {
    let (lines, to_write) = sync_channel(WAITING);
    let (lost, unwritten) = (AtomicU64::new(0), Mutex::new(0));
    let named = thread::Builder::new().name("hangwatch-stderr".to_owned());
    named.spawn(move || write_all(&to_write))?;
    // If it is already open, the new thread ends at once.
    let _ = OUTLET.set(Outlet { lines, lost, unwritten, written: Condvar::new() });
    Ok(())
}

/// Writes to standard error, through the thread if it is open.
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

/// Waits until all lines are written, up to the given time.
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

/// Writes all of it, blocking. Errors are ignored: there is nowhere to report them.
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
