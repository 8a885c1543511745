//! The errors of [`Server::start`](crate::Server::start).

use hangwatch::sys::fork::CanaryError;
use hangwatch::sys::lock::LockError;

/// Why a segment cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Another watchdog serves the segment.
    #[error(
        "segment {segment:?} is served already, by {}; stop it, use another segment, or wait for its end \
         with --standby",
        pid.map_or_else(|| "a process that is not visible from here".to_owned(), |pid| format!("process {pid}"))
    )]
    AlreadyServed {
        /// The segment.
        segment: &'static str,
        /// The pid of the watchdog in this PID namespace; `None` if it is not visible.
        pid: Option<u32>,
    },
    /// The watchdog's lock could not be queried or taken.
    #[error("cannot serve segment {segment:?}: {source}")]
    Lock {
        /// The segment.
        segment: &'static str,
        /// The cause.
        source: LockError,
    },
    /// The fork canary could not be set up.
    #[error("cannot serve segment {segment:?}: {source}")]
    Canary {
        /// The segment.
        segment: &'static str,
        /// The cause.
        source: CanaryError,
    },
    /// A thread could not be started, or a descriptor for it could not be opened.
    #[error(
        "cannot serve segment {segment:?}: cannot start a thread of the watchdog: {source}; \
         raise the limits of processes (ulimit -u) and of open files (ulimit -n)"
    )]
    Thread {
        /// The segment.
        segment: &'static str,
        /// The error of the kernel.
        source: std::io::Error,
    },
}
