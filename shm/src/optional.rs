//! A worker that may have no watchdog: a program that runs with deadlines or without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{AcquireError, AttachError, OpenError};
use crate::guard::Guard;
use crate::heartbeat::Heartbeat;
use crate::sys::file;
use crate::worker::{Worker, WorkerOptions};

/// A [`Worker`], or none: then its deadlines are no-ops.
///
/// ```
/// use std::time::Duration;
///
/// // Nobody has made this segment: said once on standard error, and the program goes on.
/// let worker = hangwatch::WorkerOptions::new().attach_optional("doc-nobody-made-this")?;
/// assert!(worker.get().is_none());
/// let _guard = worker.expires("step", Duration::from_secs(30))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OptionalWorker(Option<Worker>);

impl WorkerOptions {
    /// Attaches where a watchdog serves the segment. Where there is no segment or no watchdog, says so once
    /// on standard error; deadlines are then no-ops.
    ///
    /// # Errors
    /// [`AttachError`] for anything else: a segment of another boot, without permission, or full.
    pub fn attach_optional(self, name: &str) -> Result<OptionalWorker, AttachError> {
        OptionalWorker::unless_absent(self.require_watchdog().attach(name))
    }

    /// As [`WorkerOptions::attach_optional`], to the segment that
    /// [`SEGMENT_VARIABLE`](crate::SEGMENT_VARIABLE) names. Says nothing where it names none.
    ///
    /// # Errors
    /// As [`WorkerOptions::attach_optional`].
    pub fn attach_optional_from_env(self) -> Result<OptionalWorker, AttachError> {
        OptionalWorker::unless_absent(self.require_watchdog().attach_from_env())
    }
}

/// Whether this process has said that it runs without deadlines.
static IS_SAID: AtomicBool = AtomicBool::new(false);

impl OptionalWorker {
    fn unless_absent(attached: Result<Worker, AttachError>) -> Result<OptionalWorker, AttachError> {
        let error = match attached {
            Ok(worker) => return Ok(OptionalWorker(Some(worker))),
            Err(AttachError::Open(OpenError::Unnamed)) => return Ok(OptionalWorker(None)),
            Err(error) => error,
        };
        let is_absent = match &error {
            AttachError::Open(OpenError::File { source, .. }) => {
                matches!(source, file::OpenError::NotFound { .. })
            }
            error => matches!(error, AttachError::NoWatchdog { .. }),
        };
        if !is_absent {
            return Err(error);
        }
        // Relaxed: it orders nothing; one thread says it.
        if !IS_SAID.swap(true, Ordering::Relaxed) {
            eprintln!("hangwatch: {error}; this process runs without deadlines");
        }
        Ok(OptionalWorker(None))
    }

    /// The worker, where there is one.
    pub fn get(&self) -> Option<Worker> {
        self.0
    }

    /// As [`Worker::expires`]; without a watchdog there is no guard to hold.
    ///
    /// # Errors
    /// As [`Worker::expires`].
    pub fn expires(&self, scope: &str, timeout: Duration) -> Result<Option<Guard>, AcquireError> {
        self.0.map(|worker| worker.expires(scope, timeout)).transpose()
    }

    /// As [`Worker::heartbeat`]; without a watchdog there is nothing to kick.
    ///
    /// # Errors
    /// As [`Worker::heartbeat`].
    pub fn heartbeat(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<Heartbeat>, AcquireError> {
        self.0.map(|worker| worker.heartbeat(name, timeout)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CreateOptions, Segment};

    #[test]
    fn without_a_watchdog_deadlines_are_no_ops() {
        let name = format!("test-optional-{}", std::process::id());
        let attach = || WorkerOptions::new().attach_optional(&name);
        assert!(attach().unwrap().get().is_none(), "no segment");
        Segment::create(&name, CreateOptions::default()).unwrap();
        let worker = attach().unwrap();
        assert!(worker.get().is_none(), "no watchdog");
        assert!(worker.expires("step", Duration::from_secs(1)).unwrap().is_none());
        assert!(worker.heartbeat("loop", Duration::from_secs(1)).unwrap().is_none());
        Segment::remove(&name).unwrap();
    }
}
