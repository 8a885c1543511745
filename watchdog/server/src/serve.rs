//! The tick thread from its start to its end: hires the other threads, adopts what is in the segment,
//! and hands the [`Tick`] all that it needs.

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

/// Answers that wait for the tick at most; the clerk waits with the next.
const ANSWERS: usize = 256;
/// Descriptors beside the workers' pidfds; the listener's connections take none from them.
const SPARE_DESCRIPTORS: u64 = 128 + CONNECTIONS as u64;

/// How often it is looked whether the descendant killer makes progress.
const KILLER_LOOK: Duration = Duration::from_millis(100);
/// How long the clerk may take to end: what it asks the kernel takes microseconds, unless a `/proc` hangs.
const CLERK_ENDS: Duration = Duration::from_secs(4);
/// How long the witness may take to bring in the last evidence: longer than its own limits together.
const WITNESS_ENDS: Duration = Duration::from_secs(4);

/// What the tick thread is given.
pub(super) struct Parts {
    pub(super) segment: Segment,
    pub(super) options: ServerOptions,
    pub(super) control: Arc<Control>,
    pub(super) event_log: EventLog,
    pub(super) tick_waker: TickWaker,
    /// Told whether all threads are there; whoever started a standby does not listen.
    pub(super) started: SyncSender<std::io::Result<()>>,
}

/// Serves the segment until told to stop, or until it cannot be served. The lock is given back as soon as
/// nothing is done to the segment any more; what is left to be done about incidents comes after that.
pub(super) fn serve(parts: Parts, lock: WatchLock) -> Ended {
    let Parts { segment, options, control, event_log, tick_waker, started } = parts;
    protect::protect(options.protection, &event_log);
    // For a worker, and for the memory of its program.
    let wanted = 2 * u64::from(segment.geometry().lanes) + SPARE_DESCRIPTORS;
    // All that is allowed: what is opened in passing, for a worker's descendants, finds room beside those.
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(wanted);
    if let Err(error) = limits::raise_descriptor_limit(wanted.max(allowed)) {
        event_log.note(Note::Admission(error.to_string()));
    }
    let guard = match sigbus::Guard::new(segment) {
        Ok(guard) => Some(guard),
        Err(error) => {
            event_log.note(Note::Unprotected(format!("no handler for SIGBUS: {error}")));
            None
        }
    };
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
        desk,
        helpers,
        attestor,
        descendants,
        collector_handle,
        collector,
        incident_writer,
    } = match threads.spawn() {
        Ok(started) => started,
        Err(error) => {
            event_log.note(Note::Admission(format!("no clerk could be had: {error}")));
            let _ = started.send(Err(error));
            return Ended::Failed;
        }
    };
    let _ = started.send(Ok(()));

    let words = segment.words();
    crash::cover_core();
    words.finish_fold();
    crash::point("adopt");
    let now = Nanos(clock::monotonic_ns());
    add_single_writer(words.counter(Counter::Adopted), 1);
    words.watchdog().pid().store(std::process::id().into(), Ordering::Relaxed);
    words.watchdog().started_at().store(now.0, Ordering::Relaxed);
    event_log.note(Note::Serving { adopted_lanes: words.lanes_used() });

    let interval_ns = words.fixed().max_interval_ns;
    let process_control = PidfdControl::new(
        segment,
        desk,
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
        // A predecessor's: said again, because nobody is signalled here either.
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
        tick_waker,
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
    // The desk and the stand went with the tick: clerk and witness hear that nobody is left.
    if ends_within(&attestor, CLERK_ENDS) {
        let _ = attestor.join();
    } else {
        // It only reads, of the segment and of `/proc`.
        event_log.note(Note::LeftBehind("clerk"));
    }
    if let Some((thread, progress)) = descendants {
        await_killer(thread, &progress, &event_log);
    }
    words.next_wake().store(0, Ordering::Relaxed);
    words.watchdog().pid().store(0, Ordering::Relaxed);
    // Before another serves it: deadlines are published by whoever serves. From here on this server only
    // reads the segment, and rings its doorbell, as anybody may.
    let ended = control.end(ended);
    drop(lock);
    if let Some(collector) = collector {
        if ends_within(&collector, WITNESS_ENDS) {
            let _ = collector.join();
        } else {
            event_log.note(Note::LeftBehind("witness"));
            // What it has filed is written, or told to be lost.
            incident_writer.inspect(|incident_writer| incident_writer.close(LAST_WRITES));
        }
    }
    ended
}

/// Waits until the removals under way are over, so that no process is left stopped; says so where the
/// killer makes no progress.
fn await_killer(thread: JoinHandle<()>, progress: &Progress, event_log: &EventLog) {
    let mut killer = progress.watch();
    while !ends_within(&thread, KILLER_LOOK) && killer.makes_progress() {}
    if thread.is_finished() {
        let _ = thread.join();
    } else {
        event_log.note(Note::LeftBehind("descendant killer"));
    }
}
