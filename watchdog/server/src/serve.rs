//! The tick's thread from start to end: starts the other threads, adopts the segment, and runs the [`Tick`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hangwatch::Segment;
use hangwatch::sys::{clock, crash};
use hangwatch_core::atomic::add_single_writer;
use hangwatch_core::watchdog::expiry::Expiry;
use hangwatch_core::watchdog::reap::Reaping;
use hangwatch_core::watchdog::tick::Watchdog;
use hangwatch_core::watchdog::updates::Rings;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::Nanos;
use hangwatch_process::limits;
use rustix::process::{Resource, getrlimit};

use super::calibrate::Calibrator;
use super::control::{Control, Ended};
use super::descendant_killer::Progress;
use super::doorbell::{Doorbell, TickWaker};
use super::event_log::{EventLog, Note};
use super::evidence_collector::LAST_WRITES;
use super::lock::WatchLock;
use super::messages::Answers;
use super::options::ServerOptions;
use super::process_control::{PidfdControl, PidfdControlParts};
use super::protect;
use super::resume::Resumer;
use super::threads::{Spawner, ThreadParts, Threads};
use super::tick::{SystemClock, Tick};
use crate::options::CONNECTIONS;
use hangwatch_process::join::ends_within;
use hangwatch_process::sigbus;

/// Maximum number of queued answers. Threads wait when the queue is full.
const ANSWERS: usize = 256;
/// Descriptors for purposes other than workers, including those of HTTP connections.
const SPARE_DESCRIPTORS: u64 = 128 + CONNECTIONS as u64;

/// How often the progress of the descendant killer is checked.
const KILLER_LOOK: Duration = Duration::from_millis(100);
/// How long the attestor may take to end. Its system calls take microseconds, unless `/proc` hangs.
const CLERK_ENDS: Duration = Duration::from_secs(4);
/// How long the evidence collector may take to end: longer than the sum of its own time limits.
const WITNESS_ENDS: Duration = Duration::from_secs(4);

/// What the tick's thread is given.
pub(super) struct Parts {
    pub(super) segment: Segment,
    pub(super) options: ServerOptions,
    pub(super) control: Arc<Control>,
    pub(super) event_log: EventLog,
    pub(super) tick_waker: TickWaker,
    /// Reports whether all threads could be started. Nothing receives it for a standby.
    pub(super) started: SyncSender<std::io::Result<()>>,
}

/// Protects this process, raises its limit of descriptors, and guards the segment's mapping against SIGBUS.
fn prepare(
    segment: Segment,
    options: &ServerOptions,
    event_log: &EventLog,
) -> Option<sigbus::Guard> {
    protect::protect(options.protection, event_log);
    // Two for each worker: its pidfd and its program's memory.
    let wanted = 2 * u64::from(segment.geometry().lanes) + SPARE_DESCRIPTORS;
    // The full limit: descriptors opened for a moment, for a worker's descendants, need room as well.
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(wanted);
    if let Err(error) = limits::raise_descriptor_limit(wanted.max(allowed)) {
        event_log.note(Note::Admission(error.to_string()));
    }
    match sigbus::Guard::new(segment) {
        Ok(guard) => Some(guard),
        Err(error) => {
            event_log.note(Note::Unprotected(format!("no handler for SIGBUS: {error}")));
            None
        }
    }
}

/// Finishes what an earlier watchdog began, and signs the segment. When that was.
fn adopt(segment: Segment) -> Nanos {
    let words = segment.words();
    crash::cover_core();
    words.finish_fold();
    crash::point("adopt");
    let now = Nanos(clock::monotonic_ns());
    add_single_writer(words.counter(Counter::Adopted), 1);
    words.watchdog().pid().store(std::process::id().into(), Ordering::Relaxed);
    words.watchdog().started_at().store(now.0, Ordering::Relaxed);
    now
}

/// Serves the segment until the server is stopped or cannot continue.
///
/// The lock is released as soon as the segment is no longer changed; work on incidents may follow.
pub(super) fn serve(parts: Parts, lock: WatchLock) -> Ended {
    let Parts { segment, options, control, event_log, tick_waker, started } = parts;
    let guard = prepare(segment, &options, &event_log);
    let (sender, answers) = sync_channel(ANSWERS);
    let answerer = Answers { sender, tick_waker: tick_waker.clone() };
    let policy = options.policy;
    let (own_process, holds_matter) = (options.own_process, options.holds.matter());
    let reach = options.reach;
    let threads = ThreadParts {
        segment,
        options,
        control: &control,
        event_log: &event_log,
        answers: answerer,
    };
    let Threads {
        attestor_handle,
        helpers,
        attestor,
        descendants,
        collector_handle,
        collector,
        incident_writer,
    } = match threads.spawn() {
        Ok(started) => started,
        Err(error) => {
            event_log
                .note(Note::Admission(format!("cannot start the watchdog's threads: {error}")));
            let _ = started.send(Err(error));
            return Ended::Failed;
        }
    };
    let _ = started.send(Ok(()));

    let words = segment.words();
    let now = adopt(segment);
    event_log.note(Note::Serving { adopted_lanes: words.lanes_used() });

    let interval_ns = words.fixed().max_interval_ns;
    let process_control = PidfdControl::new(
        segment,
        attestor_handle,
        PidfdControlParts {
            helpers,
            reach,
            collector: collector_handle,
            own_process,
            holds_matter,
            control: Arc::clone(&control),
        },
        event_log.clone(),
    );
    let dog = Watchdog::new(
        SystemClock,
        Rings::new(words, Doorbell::new(tick_waker.clone(), interval_ns)),
        Expiry::new(words, policy, now),
        Reaping::new(words, policy, process_control),
        interval_ns,
    );
    if dog.reaper.is_limited() {
        // Set by an earlier watchdog. Reported again, because nothing is signalled.
        event_log.note(Note::Limited { max_reaps: policy.max_reaps.unwrap_or_default() });
    }
    let (calibrator, departed) = (Calibrator::default(), Vec::new());
    let signed_at = now;
    let spawner = Spawner::new(&control, &event_log, &tick_waker);
    let resumer = Resumer { segment, event_log: event_log.clone(), spawner, waiting: Vec::new() };
    let tick = Tick {
        segment,
        control: Arc::clone(&control),
        event_log: event_log.clone(),
        waker: tick_waker,
        answers,
        dog,
        calibrator,
        guard,
        resumer,
        departed,
        signed_at,
        said_scopes_full: false,
    };
    let ended = tick.run();
    // The tick's handles were dropped with it, so the attestor and the evidence collector end.
    if ends_within(&attestor, CLERK_ENDS) {
        let _ = attestor.join();
    } else {
        // It only reads the segment and `/proc`.
        event_log.note(Note::LeftBehind("attestor"));
    }
    if let Some((thread, progress)) = descendants {
        await_killer(thread, &progress, &event_log);
    }
    words.next_wake().store(0, Ordering::Relaxed);
    words.watchdog().pid().store(0, Ordering::Relaxed);
    // Before another watchdog serves: only the one that serves publishes deadlines. From here on this
    // server only reads the segment and rings its doorbell.
    let ended = control.end(ended);
    drop(lock);
    if let Some(collector) = collector {
        if ends_within(&collector, WITNESS_ENDS) {
            let _ = collector.join();
        } else {
            event_log.note(Note::LeftBehind("evidence collector"));
            // Its pending writes are written or reported as lost.
            incident_writer.inspect(|incident_writer| incident_writer.close(LAST_WRITES));
        }
    }
    ended
}

/// Waits until the kills in progress are complete, so that no process stays stopped. Reports a killer that
/// makes no progress.
fn await_killer(thread: JoinHandle<()>, progress: &Progress, event_log: &EventLog) {
    let mut killer = progress.watch();
    while !ends_within(&thread, KILLER_LOOK) && killer.makes_progress() {}
    if thread.is_finished() {
        let _ = thread.join();
    } else {
        event_log.note(Note::LeftBehind("descendant killer"));
    }
}
