//! Deadlines for every step of a worker, enforced from outside through shared memory.
//!
//! A worker attaches to a segment and gives its steps deadlines; a watchdog process (`hangwatch run`)
//! finds the worker that misses one and removes it. An acquire and its release cost little more than
//! reading the clock, wait for nobody and cannot fail because the watchdog is slow, stopped or gone.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! let worker = hangwatch::Worker::attach("train")?; // or attach_from_env: $HANGWATCH_SEGMENT
//! {
//!     let guard = worker.expires("forward", Duration::from_secs(30))?;
//!     // ... the work; the guard releases on drop, from whatever thread ...
//!     guard.extend(Duration::from_secs(5))?;
//! }
//! let forward = worker.scope("forward")?; // interned once, for the hot path
//! for _ in 0..1000 {
//!     let _guard = forward.expires(Duration::from_secs(30))?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The modules in the order of the data: [`Segment`] is the mapped memory, [`Worker`] attaches to it,
//! [`Scope`] names what is timed, [`Group`] who meets there, [`Guard`], [`Heartbeat`] and the keyed acquires of [`Worker`] are the
//! deadlines, a [`Pause`] holds a thread's up, [`Observation`] is what anyone may read, through an
//! [`Observer`] that writes nothing.
//!
//! # Guarantees and non-guarantees
//!
//! * A deadline may be found late by its clock's resolution and the watchdog's wake-up, never early.
//! * Each acquire ends exactly one way: released, abandoned, or condemned by the watchdog.
//! * A forked child never writes into its parent's lane; it attaches anew on first use.
//! * The memory is trusted by nobody: what is read from it is checked. But whoever may write to the
//!   segment may arm timers in its own name, and a worker of a segment whose file someone truncates
//!   gets SIGBUS.
//!
//! # Signal handlers
//!
//! Nothing here is async-signal-safe: attaching allocates and takes locks, and a deadline uses the calling
//! thread's lane. A handler that interrupts this library in its own thread gets
//! [`AcquireError::Reentered`] for a deadline that it sets; dropping a [`Guard`] there ends its timer. Let
//! a handler wake a thread, and call the library from that.

mod error;
mod lock_bytes;

mod mapped;

mod labels;
mod ptracer;
mod returned;
mod spilled;
mod timing;

mod lane;

mod attachment;
mod registry;

mod segment;
#[cfg(feature = "shared_memory")]
mod shmem;
mod stale;

mod names;
mod thread;

mod worker;

mod guard;
mod heartbeat;
mod keyed;
mod meeting;
mod optional;
mod pause;
mod scope;

mod condemned;
mod observe;
mod observer;
mod recent;
mod survey;

#[doc(hidden)]
pub mod sys;

pub use condemned::Condemned;
pub use error::{AcquireError, AttachError, CreateError, OpenError, SignalError};
pub use guard::Guard;
pub use hangwatch_core::wire::clock::ClockKind;
pub use hangwatch_core::wire::layout::Geometry;
pub use hangwatch_core::wire::record::Operation;
pub use hangwatch_core::wire::time::{MAX_TIMEOUT, Nanos};
pub use hangwatch_core::wire::timer::Released;
pub use heartbeat::Heartbeat;
pub use labels::Labels;
pub use meeting::Group;
pub use observe::{
    AttendedView, LaneView, MeetingView, Observation, ScopeView, TimerView, WatchdogView,
};
pub use observer::Observer;
pub use optional::OptionalWorker;
pub use pause::Pause;
pub use ptracer::{PTRACER_VARIABLE, Ptracer};
pub use recent::RecordView;
pub use scope::Scope;
pub use segment::{CreateOptions, Lifetime, MAX_INTERVALS, SEGMENT_VARIABLE, Segment};
pub use stale::StaleError;
pub use survey::{OverdueView, Survey};
pub use worker::{Signal, SignalNumber, Worker, WorkerOptions};

// What the fields and errors above are made of.
pub use hangwatch_core::wire::lane::{LaneState, TimerKind, TimerSignal};
pub use hangwatch_core::wire::layout::GeometryError;
pub use hangwatch_core::wire::meeting::Members;
pub use hangwatch_core::wire::segment::FormatError;
pub use hangwatch_core::wire::stats::Counts;
pub use hangwatch_core::wire::timeout::{Clocks, Overruns};
pub use hangwatch_core::wire::timer::TimerState;
pub use sys::file::{CreateError as FileCreateError, OpenError as FileOpenError, RemoveError};
pub use sys::fork::CanaryError;
pub use sys::host::HostError;
pub use sys::lock::{Holder, LockError};
pub use sys::mapping::MapError;
pub use sys::name::NameError;

#[doc(hidden)]
pub use lock_bytes::{HEIR_LOCK_BYTE, MAKER_LOCK_BYTE, WATCHDOG_LOCK_BYTE, lane_lock_byte};

/// The time, `CLOCK_MONOTONIC`: what [`Scope::expires_at`] and [`Guard::release_at`] take.
#[inline]
pub fn now() -> Nanos {
    Nanos(sys::clock::monotonic_ns())
}
