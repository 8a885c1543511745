//! The watchdog as a library: [`Server`] serves a segment from threads of its own.
//!
//! [`Server::start`] takes the segment's watchdog lock, adopts the timers that are in the segment, and serves
//! it until [`Server::stop`]:
//!
//! ```text
//!            questions               inspections
//!   tick  ------------->  attestor  --------------->  proc readers
//!    |  <---- answers ------+-------- answers --------+
//!    |
//!    |        cases                             one process each
//!    +---------------->  evidence collector  <------------------>  helpers
//!    |  <---- answers ------+---------> incident writer -> incidents on disk
//!    |
//!    +--------- notes ------+---------> event log -> outputs, on a thread of its own
//! ```
//!
//! * The tick (`serve`, `tick`, `doorbell`, `process_control`, `calibrate`) runs the core's loop. It waits for
//!   the doorbell only: no file, no `/proc` and no channel can block it.
//! * The attestor (`attestor`) verifies workers, reads their status, and notices when a process dies.
//! * The proc readers (`proc_reader`) find out which process owns a lane, and read the files of `/proc` that a
//!   process can delay.
//! * The evidence collector (`evidence_collector`, `case`, `incident_builder`) captures evidence of condemned
//!   workers, with one helper process each; the incident writer (`incident_writer`) stores the incidents.
//!   Neither delays a signal longer than the budget.
//! * The event log (`event_log`, [`events`]) reports what happens.
//! * The descendant killer (`descendant_killer`) kills the processes below a worker.
//! * torch's error files (`error_file`) have a writer of their own.
//!
//! ```no_run
//! use hangwatch::{CreateOptions, Segment};
//! use hangwatch_server::{Server, ServerOptions, events};
//!
//! let segment = Segment::create("train", CreateOptions::default())?;
//! let server = Server::start(segment, ServerOptions::default(), |event| events::emit(&event))?;
//! // ... workers attach, hang and are killed ...
//! println!("{:?}", server.stop());
//! Segment::remove("train")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It does not remove segments, and does not signal a process that the kernel does not verify. If its own
//! process is stopped, suspended or starved, it acts late, and reports that.

mod attestor;
mod calibrate;
pub mod cascade;
mod case;
mod collector_handle;
mod control;
mod descendant_killer;
mod doorbell;
mod error;
mod error_file;
mod event_log;
pub mod events;
mod evidence_collector;
mod health;
pub mod hook;
mod incident_builder;
mod incident_writer;
mod lane_registry;
mod lock;
mod messages;
pub mod notify;
mod options;
mod proc_reader;
mod process_control;
mod protect;
mod resume;
mod segment_file_check;
mod serve;
mod threads;
mod tick;
mod tracers;
mod turns;
mod wake_up;
mod worker;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hangwatch::Segment;
use hangwatch::sys::clock;
use hangwatch::sys::fork::Canary;
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::wire::time::Nanos;

pub use self::control::{Ended, State};
pub use self::error::ServeError;
pub use self::events::ServerEvent;
pub use self::health::{Health, UnhealthyReason, Vitals};
pub use self::options::{
    Ask, CONNECTIONS, ErrorFiles, Holds, OnPanic, OwnProcess, Protection, ServerOptions, Standby,
    Treatment,
};
pub use self::segment_file_check::Finding;
pub use self::worker::{Command, LaneFacts};

pub use self::error_file::serve_orders as write_error_files;
pub use self::protect::{caught, exit_now};

use self::control::{Control, PendingConfig, ReleaseLimiter};
use self::doorbell::TickWaker;
use self::event_log::{EventLog, Note};
use self::lock::WatchLock;
use self::serve::Parts;
use self::threads::STACK_BYTES;
use hangwatch_process::join::{ends_within, ends_within_time};

/// How long a panicking server waits for its last event to be logged.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the tick may take to notice that it must end. A stuck tick must not keep its process from handling
/// SIGTERM; the lock is released with the process.
const TICK_NOTICES: Duration = Duration::from_secs(10);
/// How long the tick may then take to end: longer than the sum of its own time limits.
const TICK_ENDS: Duration = Duration::from_mins(5);
/// How long the log may take for one event before a server that is ending stops waiting for it.
const ONE_EVENT: Duration = Duration::from_secs(3);

/// How long [`Server::stop_all_threads`] waits for threads that are not joined.
const ALL_THREADS: Duration = Duration::from_secs(3);

/// A running server. Dropping it stops it like [`Server::stop`].
pub struct Server {
    segment: Segment,
    control: Arc<Control>,
    tick_waker: TickWaker,
    event_log: EventLog,
    /// Detects a forked child, in which the threads do not exist.
    canary: Canary,
    tick: Option<JoinHandle<()>>,
    log: Option<JoinHandle<()>>,
}

/// What a server did, returned when it is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The reason for its end.
    pub ended: Ended,
    /// Its health when it ended.
    pub health: Health,
}

impl Server {
    /// Starts to serve `segment`.
    ///
    /// `log` is called for every event on a thread of its own. It may be slow: events that do not fit into the
    /// queue are lost and counted, and nothing waits for it.
    ///
    /// With [`Standby::Wait`] this returns at once if another watchdog serves the segment, and the server takes
    /// over when that one ends.
    ///
    /// # Errors
    /// [`ServeError`]. Then nothing is served and nothing was signalled.
    pub fn start(
        segment: Segment,
        options: ServerOptions,
        log: impl FnMut(ServerEvent) + Send + 'static,
    ) -> Result<Server, ServeError> {
        let lock = match WatchLock::take(segment) {
            Ok(lock) => Some(lock),
            Err(ServeError::AlreadyServed { .. }) if options.standby == Standby::Wait => None,
            Err(error) => return Err(error),
        };
        let name = segment.name();
        let canary =
            Canary::arm().map_err(|source| ServeError::Canary { segment: name, source })?;
        let state = if lock.is_some() { State::Serving } else { State::Standby };
        let control = Arc::new(Control::new(state, options.holds));
        let tick_waker = TickWaker::new(segment.doorbell());
        tick_waker.wake(); // the first pass checks everything
        let (started, is_started) = sync_channel(1);
        let (event_log, reader) = event_log::event_log();
        let failed = |source| ServeError::Thread { segment: name, source };
        let (panicked, to_call) = (Arc::clone(&control), tick_waker.clone());
        let redactor = options.evidence.redactor.clone();
        let told = move || {
            if let Err(message) =
                protect::caught("hangwatch-log", || reader.run(segment, &redactor, log))
            {
                // The thread that would log this has ended. If stderr is closed too, the exit code tells.
                let _ = writeln!(std::io::stderr(), "hangwatch: panicked: {message}");
                panicked.panicked.store(true, Ordering::Release);
                to_call.wake();
            }
        };
        let log = spawn("hangwatch-log", told).map_err(failed)?;
        let parts = Parts {
            segment,
            options,
            control: Arc::clone(&control),
            event_log: event_log.clone(),
            tick_waker: tick_waker.clone(),
            started,
        };
        let is_standby = lock.is_none();
        let tick = spawn("hangwatch-tick", move || live(parts, lock)).map_err(failed)?;
        let (tick, log) = (Some(tick), Some(log));
        let server = Server { segment, control, tick_waker, event_log, canary, tick, log };
        if is_standby {
            return Ok(server);
        }
        // A command that is started next relies on the watchdog. (If the tick has panicked, there is no
        // answer, and the server's state tells.)
        match is_started.recv() {
            Ok(Err(source)) => Err(failed(source)), // dropping the server waits for its threads
            Ok(Ok(())) | Err(_) => Ok(server),
        }
    }

    /// Returns the segment that is served.
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// Returns the health of the server.
    pub fn health(&self) -> Health {
        Health::of(&self.control)
    }

    /// Returns a handle from which any thread can read the health.
    pub fn vitals(&self) -> Vitals {
        Vitals::new(self.segment, Arc::clone(&self.control))
    }

    /// Releases the kill limiter. A standby does so as soon as it serves.
    pub fn release_limiter(&self) {
        self.configure(|pending| pending.limiter = Some(ReleaseLimiter));
    }

    /// Changes what is done about expired timers from now on. Timers that have expired stay expired.
    pub fn set_policy(&self, policy: Policy) {
        self.configure(|pending| pending.policy = Some(policy));
    }

    /// Changes what is done about overdue workers that cannot run, from now on.
    pub fn set_holds(&self, holds: Holds) {
        self.configure(|pending| pending.holds = Some(holds));
    }

    fn configure(&self, change: impl FnOnce(&mut PendingConfig)) {
        self.control.configure(change);
        self.tick_waker.wake();
    }

    /// Waits until the server has ended by itself or was stopped.
    pub fn wait(&self) -> Ended {
        self.control.wait()
    }

    /// Stops the server. Armed timers stay armed for a successor.
    ///
    /// The lock is released and all threads end, except those that hang in a disk or in a log that is not read:
    /// they are left behind.
    pub fn stop(mut self) -> Summary {
        let ended = self.end();
        Summary { ended, health: self.health() }
    }

    /// Stops the server like [`Server::stop`]. Returns whether all its threads ended within a few seconds, so
    /// that nothing refers to the segment any more.
    pub fn stop_all_threads(mut self) -> bool {
        self.end();
        // Each thread holds the control until it has ended.
        ends_within_time(|| Arc::strong_count(&self.control) == 1, ALL_THREADS)
    }

    fn end(&mut self) -> Ended {
        let (Some(tick), Some(log)) = (self.tick.take(), self.log.take()) else {
            return self.control.wait();
        };
        if self.canary.forked() {
            return Ended::Stopped; // the threads belong to the parent
        }
        if self.control.end_standby() {
            // The thread waits in the kernel for the lock and cannot be woken. When it gets the lock, it releases
            // it.
            return Ended::Stopped;
        }
        self.control.stop.store(true, Ordering::Release);
        self.tick_waker.wake();
        let has_noticed = || self.control.is_ending.load(Ordering::Acquire);
        if ends_within(&tick, TICK_NOTICES) || (has_noticed() && ends_within(&tick, TICK_ENDS)) {
            let _ = tick.join();
        } else {
            self.event_log.note(Note::LeftBehind("tick"));
            self.event_log.end(Ended::Failed);
            self.control.end(Ended::Failed);
        }
        join_log(log, &self.event_log);
        self.control.wait()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("segment", &self.segment).finish_non_exhaustive()
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(body)
}

/// Waits until every event is logged. A log that makes no progress with one event, for example because its
/// pipe is not read, is left behind.
fn join_log(log: JoinHandle<()>, event_log: &EventLog) {
    let mut pending = event_log.pending();
    while !ends_within(&log, ONE_EVENT) {
        let before = std::mem::replace(&mut pending, event_log.pending());
        // With no events left, the log ends after its hooks, which have a time limit.
        if pending != 0 && pending == before {
            return;
        }
    }
    let _ = log.join();
}

/// The tick's thread: standby, service, end.
fn live(parts: Parts, lock: Option<WatchLock>) {
    let (control, event_log) = (Arc::clone(&parts.control), parts.event_log.clone());
    let on_panic = parts.options.on_panic;
    let ended = match protect::caught("hangwatch-tick", || stand_by_and_serve(parts, lock)) {
        Ok(ended) => ended,
        Err(message) => {
            event_log.note(Note::Panicked(message));
            Ended::Panicked
        }
    };
    event_log.end(ended.clone());
    if let (Ended::Panicked, OnPanic::Exit(code)) = (&ended, on_panic) {
        exit_after_last_words(&event_log, code);
    }
    control.end(ended);
}

fn stand_by_and_serve(parts: Parts, lock: Option<WatchLock>) -> Ended {
    let lock = if let Some(lock) = lock {
        lock
    } else {
        parts.event_log.note(Note::Standby);
        match WatchLock::wait(parts.segment) {
            Ok(lock) => lock,
            Err(error) => {
                parts.event_log.note(Note::Admission(error.to_string()));
                return Ended::Failed;
            }
        }
    };
    if !parts.control.begin() {
        return Ended::Stopped;
    }
    serve::serve(parts, lock)
}

fn exit_after_last_words(event_log: &EventLog, code: u8) -> ! {
    let until = Nanos(clock::monotonic_ns()) + LAST_WORDS;
    while !event_log.is_drained() && clock::monotonic_ns() < until.0 {
        thread::sleep(Duration::from_millis(1));
    }
    protect::exit_now(code)
}
