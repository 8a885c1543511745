//! The heartbeat: a deadline that each kick moves on.

use std::fmt;
use std::time::Duration;

use hangwatch_core::wire::lane::TimerKind;
use hangwatch_core::wire::timer::Released;

use crate::error::AcquireError;
use crate::guard::Guard;
use crate::scope::Scope;
use crate::worker::Worker;

/// A loop that must come round again within its timeout.
///
/// ```no_run
/// # use std::time::Duration;
/// # let worker = hangwatch::Worker::attach_from_env()?;
/// let beat = worker.heartbeat("loop", Duration::from_secs(5))?;
/// loop {
///     beat.kick()?;
///     // ... one round ...
/// #   break;
/// }
/// beat.pause("waiting for work")?; // no deadline while it rests
/// beat.resume()?; // with the time it had left
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the heartbeat ends when it is dropped"]
pub struct Heartbeat {
    guard: Guard,
    /// For each round; by the deadlines file only where that gives none any more.
    timeout: Duration,
    /// Whose timeout the deadlines file has, where the heartbeat brought none.
    learned: Option<Scope>,
}

impl Heartbeat {
    pub(crate) fn new(guard: Guard, timeout: Duration) -> Heartbeat {
        Heartbeat { guard, timeout, learned: None }
    }

    /// One that goes by the deadlines file.
    pub(crate) fn by_default(guard: Guard, scope: Scope, timeout: Duration) -> Heartbeat {
        Heartbeat { guard, timeout, learned: Some(scope) }
    }

    #[inline]
    fn timeout(&self) -> Duration {
        let learned = self.learned.and_then(|scope| scope.learned().ok());
        learned.unwrap_or(self.timeout)
    }

    /// As [`Guard::note_task`].
    pub fn note_task(&self, task: u32) {
        self.guard.note_task(task);
    }

    /// A sign of life: the whole timeout from now on.
    ///
    /// # Errors
    /// [`AcquireError::NotArmed`] where it comes too late, or while it is paused.
    #[inline]
    pub fn kick(&self) -> Result<(), AcquireError> {
        self.guard.kick(self.timeout())
    }

    /// Rests: there is no deadline until [`Heartbeat::resume`]. `why` goes into the lane's records.
    ///
    /// # Errors
    /// [`AcquireError::NotArmed`] where it is too late, or paused already.
    pub fn pause(&self, why: &str) -> Result<(), AcquireError> {
        self.guard.pause(why)
    }

    /// Goes on with the time that was left at the pause.
    ///
    /// # Errors
    /// [`AcquireError::NotArmed`] where it is not paused.
    pub fn resume(&self) -> Result<(), AcquireError> {
        self.guard.resume(self.timeout())
    }

    /// The time left, as [`Guard::remaining`].
    pub fn remaining(&self) -> Option<Duration> {
        self.guard.remaining()
    }

    /// Ends it, and says how.
    pub fn release(self) -> Released {
        self.guard.release()
    }
}

impl Worker {
    /// Begins a heartbeat: a deadline that each kick moves on.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn heartbeat(&self, name: &str, timeout: Duration) -> Result<Heartbeat, AcquireError> {
        let guard = self.arm(name, TimerKind::Heartbeat, timeout)?;
        Ok(Heartbeat::new(guard, timeout))
    }

    /// Begins a heartbeat whose rounds have their timeout by the watchdog's deadlines file; see
    /// [`Scope::heartbeat_default`].
    ///
    /// # Errors
    /// As [`Worker::expires_default`].
    pub fn heartbeat_default(&self, name: &str) -> Result<Heartbeat, AcquireError> {
        self.scope(name)?.heartbeat_default()
    }
}

impl Scope {
    /// Begins a heartbeat whose rounds must each come within the timeout that the watchdog's deadlines
    /// file gives the scope, as it is at each kick. Where the file gives it none any more, it keeps what it
    /// began with.
    ///
    /// # Errors
    /// As [`Scope::expires_default`].
    pub fn heartbeat_default(&self) -> Result<Heartbeat, AcquireError> {
        let timeout = self.learned()?;
        let guard = self.arm_default(TimerKind::Heartbeat)?;
        Ok(Heartbeat::by_default(guard, *self, timeout))
    }
}

impl fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heartbeat").field(&self.guard).finish()
    }
}
