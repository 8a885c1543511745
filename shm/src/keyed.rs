//! Keyed acquires: upstream's rule, per process. A scope has at most one deadline; acquiring it again
//! replaces the deadline; a release of nothing is nothing.

use std::time::Duration;

use hangwatch_core::wire::lane::TimerKind;
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::Released;

use crate::error::AcquireError;
use crate::guard::{self, Guard};
use crate::mapped::lock;
use crate::worker::Worker;

impl Worker {
    /// Sets the deadline of the scope `name` of this process: upstream's keyed rule, by which the
    /// same scope acquired again replaces its deadline.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn acquire(&self, name: &str, timeout: Duration) -> Result<(), AcquireError> {
        acquire(*self, name, timeout)
    }

    /// Ends what [`Worker::acquire`] began, from any thread; says whether it was in time, too late or
    /// there was nothing.
    ///
    /// # Errors
    /// In a forked child, where the segment cannot be mapped anew.
    pub fn release(&self, name: &str) -> Result<Released, AcquireError> {
        release(*self, name)
    }
}

/// Sets the deadline of `name` to `timeout` from now.
fn acquire(worker: Worker, name: &str, timeout: Duration) -> Result<(), AcquireError> {
    crate::lane::timeout_ns(timeout)?;
    if name.is_empty() {
        return Err(AcquireError::EmptyScope);
    }
    let here = worker.attachment.here().map_err(|error| Box::new(error.into()))?;
    let mut keyed = lock(&here.keyed);
    if let Some((armed, word)) = keyed.get_mut(name) {
        // Armed or reported: the deadline is replaced. Condemned: its reap goes on, and the scope
        // has begun once more.
        let guard = Guard::new(worker.options, (*armed, *word));
        let kicked = guard.kick(timeout);
        (*word, armed.acquired_at) = (guard.word(), Nanos(crate::sys::clock::monotonic_ns()));
        std::mem::forget(guard);
        if kicked.is_ok() {
            return Ok(());
        }
        // Condemned: the key is not of this timer any more, and nobody else will release it.
        guard::end(armed, *word, worker.options, None);
        keyed.remove(name);
    }
    let guard = worker.arm(name, TimerKind::Keyed, timeout)?;
    keyed.insert(name.to_owned(), guard.into_parts());
    Ok(())
}

/// Ends the scope `name`.
fn release(worker: Worker, name: &str) -> Result<Released, AcquireError> {
    let here = worker.attachment.here().map_err(|error| Box::new(error.into()))?;
    let removed = lock(&here.keyed).remove(name);
    Ok(match removed {
        Some((armed, word)) => guard::end(&armed, word, worker.options, None),
        None => Released::NotArmed,
    })
}
