//! The pause: a stretch of a thread's time that its timers do not count.
//!
//! Every timer armed in the thread's lanes gets the longest time the pause may take on top, and gives
//! back at its end what the pause did not take. So no deadline is lost if the worker dies or hangs in
//! between, and none needs the watchdog's help; the pause's own deadline comes before any of theirs.

use std::fmt;
use std::mem::ManuallyDrop;
use std::time::Duration;

use hangwatch_core::time::{Nanos, Units};

use crate::error::AcquireError;
use crate::guard::Guard;
use crate::lane::allowance_ns;
use crate::sys::clock;
use crate::thread;
use crate::worker::Worker;

/// A stretch that the timers of the thread that began it do not count: a checkpoint within a step.
///
/// The pause has a deadline of its own; while it lasts, the timers that were armed in the thread at
/// its beginning cannot expire. At its end, on drop, each has the time left that it had. A timer
/// whose deadline somebody changed meanwhile (a kick, an extension, a pause within the pause) keeps
/// the deadline that gave it, which is never an earlier one.
///
/// ```no_run
/// # use std::time::Duration;
/// # let worker = hangwatch::Worker::attach(None)?;
/// let step = worker.expires("step", Duration::from_secs(30))?;
/// {
///     let _pause = worker.pause("checkpoint", Duration::from_secs(600))?;
///     // ... writes the checkpoint; `step` does not count it ...
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the pause ends when it is dropped"]
pub struct Pause {
    /// The pause's own deadline. `None` only until it is armed.
    guard: Option<Guard>,
    held: Vec<Held>,
    begun: Nanos,
    max_ns: u64,
}

/// A timer that does not count the pause.
struct Held {
    /// A handle on the timer; its release is another's.
    timer: ManuallyDrop<Guard>,
    /// When it was due before the pause.
    due: Units,
}

impl Pause {
    pub(crate) fn begin(worker: Worker, name: &str, max: Duration) -> Result<Pause, AcquireError> {
        let max_ns = allowance_ns(max)?;
        let scope = worker.scope(name)?;
        let begun = Nanos(clock::monotonic_ns());
        let mut pause = Pause { guard: None, held: Vec::new(), begun, max_ns };
        for (armed, word) in thread::armed_timers(worker.shared().key()) {
            let timer = ManuallyDrop::new(Guard::new(worker.options, (armed, word)));
            let due = word.deadline();
            // Refused where another thread released it or the watchdog condemned it just now.
            if timer.move_to(later(due, max_ns)).is_ok() {
                pause.held.push(Held { timer, due });
            }
        }
        // Where this fails, the drop of the pause gives the timers back what they had.
        pause.guard = Some(scope.expires(max)?);
        Ok(pause)
    }

    /// The time left to the pause, as [`Guard::remaining`].
    pub fn remaining(&self) -> Option<Duration> {
        self.guard.as_ref()?.remaining()
    }
}

fn later(due: Units, by_ns: u64) -> Units {
    Units::at_or_after(due.begins().plus(by_ns))
}

impl Drop for Pause {
    fn drop(&mut self) {
        let took_ns = Nanos(clock::monotonic_ns()).since(self.begun).min(self.max_ns);
        for held in &self.held {
            // Refused where it was released or changed meanwhile: that counts.
            if held.timer.move_to(later(held.due, took_ns)).is_ok() {
                held.timer.start_at(|acquired_at| acquired_at.plus(took_ns));
            }
        }
        // After the timers: were it released before them, a death in between would leave them the
        // whole of the pause's time.
        self.guard = None;
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause")
            .field("timers", &self.held.len())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
