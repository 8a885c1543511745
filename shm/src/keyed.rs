//! Keyed acquires: upstream's rule, per process. A scope has at most one deadline; acquiring it again
//! replaces the deadline; a release of nothing is nothing.

use std::collections::HashMap;
use std::time::Duration;

use hangwatch_core::wire::lane::TimerKind;
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::{Released, TimerWord};

use crate::error::AcquireError;
use crate::guard::{self, Guard};
use crate::lane::Armed;
use crate::registry::lock;
use crate::worker::Worker;

/// The armed keyed timers of this process, by scope name: names beyond the segment's table share
/// `(other)` there, but not here.
#[derive(Default)]
pub(crate) struct Keyed(HashMap<String, (Armed, TimerWord)>);

/// Sets the deadline of `name` to `allowance` from now.
pub(crate) fn acquire(worker: Worker, name: &str, allowance: Duration) -> Result<(), AcquireError> {
    crate::lane::allowance_ns(allowance)?;
    if name.is_empty() {
        return Err(AcquireError::EmptyScope);
    }
    let here = worker.shared().here().map_err(|error| Box::new(error.into()))?;
    let mut keyed = lock(&here.keyed);
    if let Some((armed, word)) = keyed.0.get_mut(name) {
        // Armed or reported: the deadline is replaced. Condemned: its reap goes on, and the scope
        // has begun once more.
        let guard = Guard::new(worker.options, (*armed, *word));
        let kicked = guard.kick(allowance);
        (*word, armed.acquired_at) = (guard.word(), Nanos(crate::sys::clock::monotonic_ns()));
        std::mem::forget(guard);
        if kicked.is_ok() {
            return Ok(());
        }
        // Condemned: the key is not of this timer any more, and nobody else will release it.
        guard::end(armed, *word, worker.options, None);
        keyed.0.remove(name);
    }
    let guard = worker.arm(name, TimerKind::Keyed, allowance)?;
    keyed.0.insert(name.to_owned(), guard.into_parts());
    Ok(())
}

/// Ends the scope `name`.
pub(crate) fn release(worker: Worker, name: &str) -> Result<Released, AcquireError> {
    let here = worker.shared().here().map_err(|error| Box::new(error.into()))?;
    let removed = lock(&here.keyed).0.remove(name);
    Ok(match removed {
        Some((armed, word)) => guard::end(&armed, word, worker.options, None),
        None => Released::NotArmed,
    })
}
