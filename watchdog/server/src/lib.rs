//! The server: the watchdog as a library.
//!
//! [`Server::start`] takes the segment's watchdog lock, adopts what is in the segment and serves it
//! from threads of its own until [`Server::stop`]:
//!
//! ```text
//!            questions              inspections
//!   tick  ------------->  clerk  ---------------->  inspector
//!    |  <---- answers ------+-------- answers --------+
//!    |
//!    |        cases                  processes of their own
//!    +---------------->  witness  <------------------------>  helpers
//!    |  <---- answers ------+---------> archive -> incidents on disk
//!    |
//!    +--------- notes ------+---------> journal -> log, on a thread of its own
//! ```
//!
//! * The tick (`serve`, `tick`, `doorbell`, `process_control`, `calibrate`) runs the core's loop. It never waits but
//!   for the doorbell: no file, no `/proc`, no channel can hold it up.
//! * The clerk (`attestor`) keeps who was admitted, says how a worker stands, and hears when a process dies.
//! * The inspector (`proc_reader`) finds out who owns which lane, and reads what a process can keep a reader
//!   waiting for, on a thread for each process that does.
//! * The witness (`collector`, `collector_handle`, `case`, `builder`) takes evidence of who is condemned, with a helper
//!   process for each; the archive (`incident_writer`) writes it down. Neither holds a signal up for longer
//!   than the budget.
//! * The journal (`event_log`, [`events`]) tells what happened.
//! * The error files of torch (`error_file`) have a writer of their own.
//!
//! ```no_run
//! use hangwatch::{CreateOptions, Segment};
//! use hangwatch_server::{Server, ServerOptions, events};
//!
//! let segment = Segment::create("train", CreateOptions::default())?;
//! let server = Server::start(segment, ServerOptions::default(), |event| events::emit(&event))?;
//! // ... workers attach, hang and are reaped ...
//! println!("{:?}", server.stop());
//! Segment::remove("train")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What it does not do: it removes no segment; it signals nobody whose lane the kernel does not vouch
//! for; and where its own process is paused, suspended or starved it acts late, and says so.

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

/// How long a dying server waits for its last event to be logged.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the tick may take to notice that it is told to end. One that is stuck must not make its process
/// deaf to SIGTERM; the lock falls with the process.
const TICK_NOTICES: Duration = Duration::from_secs(10);
/// How long it may take from then on: longer than all that it waits for itself, each with its own limit.
const TICK_ENDS: Duration = Duration::from_mins(5);
/// How long one event may take to be logged before a server that ends waits for it no longer.
const ONE_EVENT: Duration = Duration::from_secs(3);

/// How long [`Server::stop_all_threads`] waits for threads that nothing joins.
const ALL_THREADS: Duration = Duration::from_secs(3);

/// A running server. Dropped, it stops as by [`Server::stop`].
pub struct Server {
    segment: Segment,
    control: Arc<Control>,
    tick_waker: TickWaker,
    event_log: EventLog,
    /// In a forked child the threads are not there to be joined.
    canary: Canary,
    tick: Option<JoinHandle<()>>,
    log: Option<JoinHandle<()>>,
}

/// What a server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Why it ended.
    pub ended: Ended,
    /// Its health at the end.
    pub health: Health,
}

impl Server {
    /// Serves `segment`; `log` is called for every event, on a thread of its own, and may take its
    /// time: events it is too slow for are lost and counted, nothing waits for it.
    ///
    /// With [`Standby::Wait`] it returns at once, and serves from when the watchdog before it ends.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is served then, and nothing was signalled.
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
        tick_waker.wake(); // the first pass of the loop looks at everything
        let (started, is_started) = sync_channel(1);
        let (event_log, reader) = event_log::event_log();
        let failed = |source| ServeError::Thread { segment: name, source };
        let (panicked, to_call) = (Arc::clone(&control), tick_waker.clone());
        let redactor = options.evidence.redactor.clone();
        let told = move || {
            if let Err(message) =
                protect::caught("hangwatch-log", || reader.run(segment, &redactor, log))
            {
                // Who would write this down is no more; where nobody hears it, its exit code tells.
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
        // Whoever starts a command next relies on being watched. (Where the tick has panicked there is
        // no answer, and the server's state tells.)
        match is_started.recv() {
            Ok(Err(source)) => Err(failed(source)), // the drop waits for the threads' end
            Ok(Ok(())) | Err(_) => Ok(server),
        }
    }

    /// The segment it serves.
    pub fn segment(&self) -> Segment {
        self.segment
    }

    /// How it is.
    pub fn health(&self) -> Health {
        Health::of(&self.control)
    }

    /// A handle on how it is, for whoever tells others.
    pub fn vitals(&self) -> Vitals {
        Vitals::new(self.segment, Arc::clone(&self.control))
    }

    /// Lets the brake go. A standby does as soon as it serves.
    pub fn release_limiter(&self) {
        self.configure(|pending| pending.limiter = Some(ReleaseLimiter));
    }

    /// Changes what is done about expired timers from now on; no timer is lost, or forgiven, for it.
    pub fn set_policy(&self, policy: Policy) {
        self.configure(|pending| pending.policy = Some(policy));
    }

    /// Changes what is done from now on about an overdue worker that something holds up.
    pub fn set_holds(&self, holds: Holds) {
        self.configure(|pending| pending.holds = Some(holds));
    }

    fn configure(&self, configure: impl FnOnce(&mut PendingConfig)) {
        self.control.configure(configure);
        self.tick_waker.wake();
    }

    /// Waits until it has ended by itself, or was stopped through another handle's drop.
    pub fn wait(&self) -> Ended {
        self.control.wait()
    }

    /// Ends it: its lock is given back, the segment is as a successor wants it, its threads are gone, but
    /// for those that a disk or a log nobody reads holds for ever: these are left behind. Armed timers
    /// stay armed.
    pub fn stop(mut self) -> Summary {
        let ended = self.end();
        Summary { ended, health: self.health() }
    }

    /// As [`Server::stop`], and returns whether every thread of it has ended within a few seconds: whether
    /// nothing of it refers to the segment any more.
    pub fn stop_all_threads(mut self) -> bool {
        self.end();
        // Each thread holds the control until its body has ended.
        ends_within_time(|| Arc::strong_count(&self.control) == 1, ALL_THREADS)
    }

    fn end(&mut self) -> Ended {
        let (Some(tick), Some(log)) = (self.tick.take(), self.log.take()) else {
            return self.control.wait();
        };
        if self.canary.forked() {
            return Ended::Stopped; // the parent's
        }
        if self.control.end_standby() {
            // The thread waits in the kernel for a lock, and cannot be called; when it gets it, it
            // gives it back.
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

/// Waits until every event is told. A log that comes no further with one, held by a pipe that nobody
/// reads, say, is left behind: nobody could be told of it.
fn join_log(log: JoinHandle<()>, event_log: &EventLog) {
    let mut pending = event_log.pending();
    while !ends_within(&log, ONE_EVENT) {
        let before = std::mem::replace(&mut pending, event_log.pending());
        // Where all is told, the log comes to an end of its own: of hooks, which have a limit.
        if pending != 0 && pending == before {
            return;
        }
    }
    let _ = log.join();
}

/// The life of the tick thread: standby, service, end.
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
