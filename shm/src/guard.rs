//! The guard: one acquire with a timer of its own, released on drop from whatever thread.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hangwatch_core::wire::record::Operation;
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::{Refused, Released, TimerState, TimerWord};

use crate::error::AcquireError;
use crate::lane::{Armed, LaneOptions};
use crate::names;
use crate::sys::clock;
use crate::thread;

/// A scope that has begun and must end by its deadline.
///
/// Nested and concurrent guards are all enforced: each has a timer of its own. Dropping one releases
/// it; a guard that is forgotten stays armed, for its scope never ended. In a forked child the
/// parent's guards are inert.
///
/// ```no_run
/// # use std::time::Duration;
/// # let worker = hangwatch::Worker::attach_from_env()?;
/// let guard = worker.expires("forward", Duration::from_secs(30))?;
/// guard.extend(Duration::from_secs(5))?;
/// println!("{:?} left", guard.remaining());
/// assert_eq!(guard.release(), hangwatch::Released::InTime);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the scope ends when its guard is dropped"]
pub struct Guard {
    armed: Armed,
    options: &'static LaneOptions,
    /// The word this handle left in the timer: the guess that makes a release one instruction.
    word: AtomicU64,
}

impl Guard {
    #[inline]
    pub(crate) fn new(options: &'static LaneOptions, (armed, word): (Armed, TimerWord)) -> Guard {
        Guard { armed, options, word: AtomicU64::new(word.bits()) }
    }

    #[inline]
    fn is_inert(&self) -> bool {
        self.armed.pool.mapped.canary.forked()
    }

    /// The word this handle left in the timer.
    #[inline]
    pub(crate) fn word(&self) -> TimerWord {
        // Relaxed: a guess; the compare-and-swap on the timer decides.
        TimerWord::from_bits(self.word.load(Ordering::Relaxed))
    }

    /// What the handle is of, for whoever keeps it in another form.
    pub(crate) fn into_parts(self) -> (Armed, TimerWord) {
        let guard = std::mem::ManuallyDrop::new(self);
        (guard.armed, guard.word())
    }

    /// Says which of this thread's tasks (asyncio's, say) has just acquired it: timers of two tasks are
    /// not nested, though one thread has acquired both. 0 is no task.
    pub fn note_task(&self, task: u32) {
        if task != 0 && !self.is_inert() {
            let lane = self.armed.pool.mapped.words.lane(self.armed.subject.lane());
            lane.note_task(self.armed.index.into(), self.armed.subject, task);
        }
    }

    /// Moves the deadline on by `by`.
    ///
    /// It counts from the deadline that the timer has, also where that has passed and was reported:
    /// `extend` by less than it is late gives a deadline in the past, which is reported once more.
    ///
    /// # Errors
    /// [`AcquireError::NotArmed`] where the deadline has passed and the watchdog has acted;
    /// [`AcquireError::Zero`] and [`AcquireError::Absurd`] for what is no time.
    pub fn extend(&self, by: Duration) -> Result<(), AcquireError> {
        let by_ns = crate::lane::timeout_ns(by)?;
        self.change(Operation::Rearm, |expected| self.armed.timer().extend(expected, by_ns))
    }

    /// Moves the deadline to `deadline`, if nobody has changed it since this handle did.
    pub(crate) fn move_to(&self, deadline: Units) -> Result<(), AcquireError> {
        let timer = self.armed.timer();
        self.change(Operation::Rearm, |expected| timer.rearm_exactly(expected, deadline))
    }

    /// Gives the scope `timeout` from now on, whatever it had left.
    pub(crate) fn kick(&self, timeout: Duration) -> Result<(), AcquireError> {
        let timeout_ns = crate::lane::timeout_ns(timeout)?;
        self.change(Operation::Rearm, |expected| {
            let now = Nanos(clock::monotonic_ns());
            let deadline = match thread::lane_for(&self.armed) {
                Some(mut lane) => lane.deadline_after(timeout_ns),
                None => Units::at_or_after(now.plus(timeout_ns)),
            };
            let word = self.armed.timer().rearm(expected, deadline)?;
            // After the word: an old start beside a new deadline gives it more time, never less.
            let lane = self.armed.pool.mapped.words.lane(self.armed.subject.lane());
            lane.write_kicked_at(self.armed.index.into(), now);
            Ok(word)
        })
    }

    /// Stops the timer, keeping the time it has left; the record carries `why` as its scope.
    pub(crate) fn pause(&self, why: &str) -> Result<(), AcquireError> {
        let why = names::scope(self.armed.pool, why)?;
        let now = Nanos(clock::monotonic_ns());
        let word = self.try_change(|expected| self.armed.timer().pause(expected, now))?;
        self.tell(Operation::Pause, word, why);
        Ok(())
    }

    /// Lets a stopped timer run on, of a timeout that the pause is no part of.
    pub(crate) fn resume(&self, timeout: Duration) -> Result<(), AcquireError> {
        let timeout_ns = crate::lane::timeout_ns(timeout)?;
        let now = Nanos(clock::monotonic_ns());
        self.change(Operation::Resume, |expected| self.armed.timer().resume(expected, now))?;
        let due = self.word().deadline().begins();
        self.start_at(|_| Nanos(due.0.saturating_sub(timeout_ns)).min(now));
        Ok(())
    }

    /// Moves the start of the timer's stretch, so that its timeout does not count what it rested.
    /// Not where a stall was credited by the old start: that would be lost.
    pub(crate) fn start_at(&self, start: impl FnOnce(Nanos) -> Nanos) {
        let (words, word) = (&self.armed.pool.mapped.words, self.word());
        let (lane, index) = (words.lane(self.armed.subject.lane()), self.armed.index.into());
        let Some(detail) = lane.read_detail(index, word) else { return };
        let (now, due) = (Nanos(clock::monotonic_ns()), word.deadline().begins());
        if words.stalls(now).credited(detail.acquired_at, due) == due {
            // Never later than now: whoever has armed the timer anew meanwhile loses nothing by it.
            lane.write_kicked_at(index, start(detail.acquired_at));
        }
    }

    fn change(
        &self,
        operation: Operation,
        change: impl FnOnce(TimerWord) -> Result<TimerWord, Refused>,
    ) -> Result<(), AcquireError> {
        let word = self.try_change(change)?;
        self.tell(operation, word, self.armed.subject.scope());
        Ok(())
    }

    fn try_change(
        &self,
        change: impl FnOnce(TimerWord) -> Result<TimerWord, Refused>,
    ) -> Result<TimerWord, AcquireError> {
        if self.is_inert() {
            return Err(AcquireError::NotArmed);
        }
        let word = change(self.word()).map_err(|_| AcquireError::NotArmed)?;
        self.word.store(word.bits(), Ordering::Relaxed);
        Ok(word)
    }

    /// Records a change, and wakes the watchdog where the new deadline is near.
    fn tell(&self, operation: Operation, word: TimerWord, scope: ScopeId) {
        let deadline = match word.state() {
            Some(TimerState::Armed) => word.deadline(),
            _ => Units::default(),
        };
        let lane = thread::lane_for(&self.armed);
        let Some(mut lane) = lane.or_else(|| thread::any_lane_for(&self.armed, self.options))
        else {
            // Nowhere to tell it: the watchdog finds the word on its next sweep.
            return self.armed.pool.mapped.ring();
        };
        let now = lane.now();
        lane.stats(self.armed.subject.scope()).rearmed();
        let subject = self.armed.subject.in_scope(scope);
        lane.record(operation, &Armed { subject, ..self.armed }, now, deadline);
        if word.state() == Some(TimerState::Armed) {
            lane.ring_if_near(deadline, deadline.begins().since(now));
        }
    }

    /// The time left; zero where the deadline has passed (also where it was reported, or the watchdog
    /// has condemned the timer), `None` where the timer is not armed.
    pub fn remaining(&self) -> Option<Duration> {
        if self.is_inert() {
            return None;
        }
        let word = self.armed.timer().load();
        let now = Nanos(clock::monotonic_ns());
        match word.state()? {
            TimerState::Armed => Some(Duration::from_nanos(word.deadline().begins().since(now))),
            TimerState::Paused => Some(Duration::from_nanos(word.deadline().begins().0)),
            TimerState::Reported | TimerState::Limited | TimerState::Condemned => {
                Some(Duration::ZERO)
            }
            TimerState::Idle => None,
        }
    }

    /// Ends the scope and says how: in time, after a report, or too late.
    pub fn release(self) -> Released {
        self.end(None)
    }

    /// Ends the scope as [`Guard::release`] does, without a reading of the clock: `now` is a time that
    /// the caller has just read, by [`crate::now`].
    ///
    /// Statistics and the flight record say this time. No deadline depends on it; but a watchdog with
    /// `--cascade` compares such times of several workers, so a time read long before may let it take
    /// this worker for one that has not left the scope since the others entered it.
    #[inline]
    pub fn release_at(self, now: Nanos) -> Released {
        self.end(Some(now))
    }

    #[inline]
    fn end(self, at: Option<Nanos>) -> Released {
        let released = end(&self.armed, self.word(), self.options, at);
        std::mem::forget(self);
        released
    }
}

/// Ends an acquire: changes the timer word, and records it in this thread's lane. `at` is the time
/// where the caller knows it already.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
pub(crate) fn end(
    armed: &Armed,
    expected: TimerWord,
    options: &'static LaneOptions,
    at: Option<Nanos>,
) -> Released {
    match thread::lane_of(armed) {
        Some(mut lane) => lane.release(armed, expected, at),
        None => end_elsewhere(armed, expected, options, at),
    }
}

/// The timer is not of the lane this thread used last: of another of its lanes, another thread's, or
/// of the parent of a fork. The updates goes into any lane of the segment that can be had.
#[cold]
#[inline(never)]
fn end_elsewhere(
    armed: &Armed,
    expected: TimerWord,
    options: &'static LaneOptions,
    at: Option<Nanos>,
) -> Released {
    if armed.pool.mapped.canary.forked() {
        return Released::NotArmed;
    }
    if let Some(mut lane) = thread::lane_for(armed).or_else(|| thread::any_lane_for(armed, options))
    {
        return lane.release_any(armed, expected, at);
    }
    let released = armed.timer().release(expected);
    if released == Released::TooLate {
        armed.ended_late();
    }
    released
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        end(&self.armed, self.word(), self.options, None);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("lane", &self.armed.subject.lane())
            .field("timer", &self.armed.index)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}
