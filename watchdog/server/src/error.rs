//! Why a server cannot serve.

use hangwatch::sys::fork::CanaryError;
use hangwatch::sys::lock::LockError;

/// Why a segment is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another watchdog serves it.
    #[error(
        "segment {segment:?} is served already, by {}; stop that one, use another segment, or wait \
         for its end (--standby)",
        pid.map_or_else(|| "a process not to be seen from here".to_owned(), |pid| format!("process {pid}"))
    )]
    AlreadyServed {
        /// The segment.
        segment: &'static str,
        /// The watchdog's pid as seen from here; `None` where it cannot be seen.
        pid: Option<u32>,
    },
    /// The watchdog's lock could not be asked for.
    #[error("cannot serve segment {segment:?}: {source}")]
    Lock {
        /// The segment.
        segment: &'static str,
        /// Why not.
        source: LockError,
    },
    /// The fork canary could not be set up.
    #[error("cannot serve segment {segment:?}: {source}")]
    Canary {
        /// The segment.
        segment: &'static str,
        /// Why not.
        source: CanaryError,
    },
    /// A thread could not be started, or had no descriptors to begin with.
    #[error(
        "cannot serve segment {segment:?}: a thread of the watchdog could not be started: {source}; \
         raise the limits of processes (ulimit -u) and of open files (ulimit -n)"
    )]
    Thread {
        /// The segment.
        segment: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}
