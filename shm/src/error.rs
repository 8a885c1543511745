//! What can go wrong, one enum a verb; each says what was tried and what to do.

use std::time::Duration;

use hangwatch_core::wire::layout::GeometryError;
use hangwatch_core::wire::segment::FormatError;

use crate::sys::fork::CanaryError;
use crate::sys::host::HostError;
use crate::sys::lock::LockError;
use crate::sys::mapping::MapError;
use crate::sys::{file, name::NameError};

/// Why a segment could not be made.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// A size out of bounds.
    #[error("cannot make segment {name:?}: {source}")]
    Geometry {
        /// The segment.
        name: String,
        /// Which size.
        source: GeometryError,
    },
    /// A max interval out of bounds.
    #[error(
        "cannot make segment {name:?}: a longest time of {asked:?} between two ticks is none; 1 ms to 1 \
         minute are possible"
    )]
    MaxInterval {
        /// The segment.
        name: String,
        /// What was asked for.
        asked: Duration,
    },
    /// The file could not be made.
    #[error("cannot make segment {name:?}: {source}")]
    File {
        /// The segment.
        name: String,
        /// Why not.
        source: file::CreateError,
    },
    /// The kernel did not say which boot or namespace this is.
    #[error("cannot make segment {name:?}: {source}")]
    Host {
        /// The segment.
        name: String,
        /// What it did not say.
        source: HostError,
    },
    /// Memory of the crate `shared_memory` cannot hold the segment.
    #[error("cannot use shared memory {id:?} as a segment: {why}")]
    Shmem {
        /// Its name in the operating system.
        id: String,
        /// Why not.
        why: String,
    },
    /// It was made, but could not be used.
    #[error(transparent)]
    Open(#[from] OpenError),
}

/// Why a segment could not be opened.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No name was given, and the environment has none.
    #[error("no segment is named: pass a name, or set {} to it", crate::SEGMENT_VARIABLE)]
    Unnamed,
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file could not be opened.
    #[error("cannot open segment {name:?}: {source}")]
    File {
        /// The segment.
        name: String,
        /// Why not.
        source: file::OpenError,
    },
    /// The file could not be mapped.
    #[error("cannot map segment {name:?}: {source}")]
    Map {
        /// The segment.
        name: String,
        /// Why not.
        source: MapError,
    },
    /// What is in the file is no segment this program can use.
    #[error(
        "cannot use segment {name:?}: {source}; if nobody uses it, remove it with \
         `hangwatch rm {name}`"
    )]
    Format {
        /// The segment.
        name: String,
        /// Why not.
        source: FormatError,
    },
    /// It was made in another boot.
    #[error(
        "cannot use segment {name:?}: it was made in another boot of this machine, and its times \
         mean nothing now; remove it with `hangwatch rm {name}`"
    )]
    OtherBoot {
        /// The segment.
        name: String,
    },
    /// It was made in another time namespace.
    #[error(
        "cannot use segment {name:?}: it was made in another time namespace, whose monotonic clock \
         differs; run worker and watchdog in the same one"
    )]
    OtherTimeNamespace {
        /// The segment.
        name: String,
    },
    /// The kernel did not say which boot or namespace this is.
    #[error("cannot use segment {name:?}: {source}")]
    Host {
        /// The segment.
        name: String,
        /// What it did not say.
        source: HostError,
    },
    /// The fork canary could not be set up.
    #[error("cannot use segment {name:?}: {source}")]
    Canary {
        /// The segment.
        name: String,
        /// Why not.
        source: CanaryError,
    },
}

/// Why a worker could not attach.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The segment could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Every lane is taken.
    #[error(
        "segment {name:?} has no free lane: all {lanes} are taken; run the watchdog with more \
         --lanes, or let fewer threads attach"
    )]
    NoFreeLane {
        /// The segment.
        name: String,
        /// How many lanes it has.
        lanes: u32,
    },
    /// No watchdog serves the segment, and one was required.
    #[error("no watchdog serves segment {name:?}; start one with `hangwatch run --segment {name}`")]
    NoWatchdog {
        /// The segment.
        name: String,
    },
    /// The thread uses the segment already, with other options.
    #[error(
        "this thread uses segment {name:?} already, with another {options}: attach with these \
         options before its first deadline, or leave them out"
    )]
    Settled {
        /// The segment.
        name: String,
        /// The options that differ.
        options: String,
    },
    /// The thread is ending, and has given its lanes back: this is called by the destructor of a
    /// thread-local.
    #[error("this thread is ending: time its scopes before its thread-locals are dropped")]
    ThreadEnding,
    /// A lane's lock could not be taken.
    #[error("cannot attach to segment {name:?}: {source}")]
    Lock {
        /// The segment.
        name: String,
        /// Why not.
        source: LockError,
    },
}

/// Why a deadline could not be set. Small: it travels beside every guard.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// No time at all.
    #[error("a deadline of zero has passed already; give the scope some time")]
    Zero,
    /// More than [`crate::MAX_TIMEOUT`].
    #[error("a deadline in {asked:?} is absurd; at most ten years are possible")]
    Absurd {
        /// What was asked for.
        asked: Duration,
    },
    /// No time was given, and none is known.
    #[error(
        "no deadline is known for scope {scope:?}: give it a time, or name it in the file of \
         `hangwatch run --deadlines FILE`, which `hangwatch learn` writes"
    )]
    NoDeadline {
        /// The scope.
        scope: Box<str>,
    },
    /// A scope without a name.
    #[error("a scope needs a name: the empty one tells nobody what hung")]
    EmptyScope,
    /// The thread's lanes have no idle timer, and no further lane could be had.
    #[error("no free timer: all timers of this thread's {lanes} lanes are armed, and {source}")]
    NoFreeTimer {
        /// The lanes this thread has.
        lanes: usize,
        /// Why there is no further one.
        source: Box<AttachError>,
    },
    /// This thread has no lane and could not get one.
    #[error(transparent)]
    Attach(#[from] Box<AttachError>),
    /// A signal handler has interrupted this library in the same thread.
    #[error(
        "this signal handler has interrupted hangwatch in the same thread: set no deadline in a signal \
         handler"
    )]
    Reentered,
    /// Too late: the watchdog has condemned the timer, or it was released.
    #[error("too late: the timer of this scope is no longer armed")]
    NotArmed,
}

/// A number that no signal has.
#[derive(thiserror::Error)]
#[error("{number} is not the number of a signal: those are 1 to 64")]
#[non_exhaustive]
pub struct SignalError {
    /// The number.
    pub number: u8,
}

/// `unwrap` and `expect` print `Debug`: it reads like the message that a user sees.
macro_rules! debug_is_display {
    ($($error:ty),*) => {
        $(impl std::fmt::Debug for $error {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        })*
    };
}
pub(crate) use debug_is_display;

debug_is_display!(CreateError, OpenError, AttachError, AcquireError, SignalError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_unwrap_prints_is_the_message() {
        let error = AttachError::NoWatchdog { name: "train".into() };
        assert_eq!(format!("{error:?}"), error.to_string());
    }
}
