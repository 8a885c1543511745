//! A pause: timers of a thread do not count a stretch of its work.
//!
//! Every timer armed by the thread gets the longest time the pause may take on top, and gives back at its
//! end what the pause did not take. So no deadline is lost if the worker dies or hangs in between, and
//! none needs the watchdog's help; the pause's own deadline comes before any of theirs.
//!
//! Pauses nest: [`Paused`] keeps of each timer which pauses hold it up, so that it counts no moment in
//! which one of them did, and gives back only what none of them took.

use std::fmt;
use std::mem::ManuallyDrop;
use std::time::Duration;

use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::TimerWord;

use crate::attachment::{Attachment, HeldUp, Paused};
use crate::error::AcquireError;
use crate::guard::Guard;
use crate::lane::{Armed, LaneOptions, timeout_ns};
use crate::mapped::lock;
use crate::sys::clock;
use crate::thread;
use crate::worker::Worker;

/// A stretch that the timers of the thread that began it do not count: a checkpoint within a step.
///
/// The pause has a deadline of its own; while it lasts, the timers that were armed by the thread at
/// its beginning cannot expire. At its end, on drop, each has the time left that it had. A timer
/// whose deadline somebody changed meanwhile (a kick, an extension) keeps the deadline that gave it.
/// A pause within a pause holds up the outer one's own deadline, too: each has its whole time.
///
/// ```no_run
/// # use std::time::Duration;
/// # let worker = hangwatch::Worker::attach_from_env()?;
/// let step = worker.expires("step", Duration::from_secs(30))?;
/// {
///     let _pause = worker.pause("checkpoint", Duration::from_secs(600))?;
///     // ... writes the checkpoint; `step` does not count it ...
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the pause ends when it is dropped"]
pub struct Pause {
    /// The segment as the process that began it has it.
    here: &'static Attachment,
    /// The pause's own deadline. `None` only until it is armed.
    guard: Option<Guard>,
    /// The timers it holds up, by lane and index.
    held: Vec<(u32, u16)>,
    number: u64,
}

impl HeldUp {
    /// Moves the deadline to where it is when the timer counts no time of the pauses up to `now`, and the
    /// rest of those that last. False where somebody else changed it meanwhile: that counts.
    fn settle(&mut self, now: Nanos) -> bool {
        let took_ns = now.since(self.since).min(self.most_ns);
        let may_take_ns = self.lasting.iter().fold(0u64, |sum, (_, ns)| sum.saturating_add(*ns));
        // Not dropped: the timer's release is for another handle.
        let timer = ManuallyDrop::new(Guard::new(self.options, self.timer));
        let has_moved = timer.move_to(later(self.due, took_ns.saturating_add(may_take_ns))).is_ok();
        if has_moved && self.lasting.is_empty() {
            timer.start_at(|acquired_at| acquired_at.plus(took_ns));
        }
        self.timer.1 = timer.word();
        has_moved
    }
}

impl Paused {
    /// Holds up `timer` from `now` on. False where somebody changes it just now.
    fn begin(
        &mut self,
        timer: (Armed, TimerWord),
        options: &'static LaneOptions,
        pause: (u64, u64),
        now: Nanos,
    ) -> bool {
        let (place, word) = (timer.0.place(), timer.1);
        // Where the word is another, somebody has changed the deadline since: another stretch.
        let known = self.timers.remove(&place).filter(|held| held.timer.1 == word);
        let mut held = known.unwrap_or_else(|| HeldUp {
            timer,
            options,
            due: word.deadline(),
            since: now,
            most_ns: 0,
            lasting: Vec::new(),
        });
        held.lasting.push(pause);
        held.most_ns = held.most_ns.saturating_add(pause.1);
        let is_held = held.settle(now);
        if is_held {
            self.timers.insert(place, held);
        }
        is_held
    }

    fn end(&mut self, place: (u32, u16), number: u64, now: Nanos) {
        let Some(mut held) = self.timers.remove(&place) else { return };
        let before = held.lasting.len();
        held.lasting.retain(|(lasting, _)| *lasting != number);
        // Another stretch of the timer may have begun, which is no matter of this pause.
        let is_kept = held.lasting.len() == before || held.settle(now);
        if is_kept && !held.lasting.is_empty() {
            self.timers.insert(place, held);
        }
    }
}

impl Worker {
    /// Begins a stretch that the calling thread's armed timers do not count, `max` at most; it has
    /// that deadline itself, under `name`. See [`Pause`].
    ///
    /// # Errors
    /// [`AcquireError`]; then nothing is paused.
    pub fn pause(&self, name: &str, max: Duration) -> Result<Pause, AcquireError> {
        Pause::begin(*self, name, max)
    }
}

impl Pause {
    pub(crate) fn begin(worker: Worker, name: &str, max: Duration) -> Result<Pause, AcquireError> {
        let max_ns = timeout_ns(max)?;
        worker.scope(name)?; // before any timer is moved: a name that is refused pauses nothing
        let here = worker.attachment.here().map_err(|error| Box::new(error.into()))?;
        let mut pause = {
            let mut paused = lock(&here.paused);
            paused.pauses += 1;
            let number = paused.pauses;
            let mut pause = Pause { here, guard: None, held: Vec::new(), number };
            let now = Nanos(clock::monotonic_ns());
            for timer in thread::armed_timers(worker.attachment.mapped().key()) {
                if paused.begin(timer, worker.options, (number, max_ns), now) {
                    pause.held.push(timer.0.place());
                }
            }
            pause
        };
        // Where this fails, the drop of the pause gives the timers back what they had.
        pause.guard = Some(worker.expires(name, max)?);
        Ok(pause)
    }

    /// As [`Guard::note_task`].
    pub fn note_task(&self, task: u32) {
        self.guard.iter().for_each(|guard| guard.note_task(task));
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
        // In a forked child the timers are the parent's, and so is the lock.
        if !self.here.mapped().canary.forked() {
            let now = Nanos(clock::monotonic_ns());
            let mut paused = lock(&self.here.paused);
            self.held.iter().for_each(|place| paused.end(*place, self.number, now));
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
