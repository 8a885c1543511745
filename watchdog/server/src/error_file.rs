//! Writes torch's error file for a worker of `torchrun` that is about to be killed.
//!
//! `torchrun` names a file for each worker in `TORCHELASTIC_ERROR_FILE`. When a worker fails, it reads the
//! files and reports the earliest failure as the root cause. A worker killed by SIGKILL writes no file, so a
//! peer whose collective then broke would be blamed. The watchdog writes the file between the condemnation
//! and the signal, which waits up to [`BUDGET_NS`]. A separate process (`process`) does the writing, and
//! `place` makes sure that it writes only where the worker itself could.
//!
//! The format is that of torch's `ErrorHandler`, read by its `ProcessFailure` (torch 1.9 and later).

mod place;
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hangwatch::Segment;
use hangwatch::sys::clock;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::event_log::{EventLog, Note, TimerNote, timer_facts};
use super::events::TimerFacts;
use super::worker::Admitted;
use hangwatch_evidence::redact::Redactor;

/// The environment variable that names the worker's error file.
const VARIABLE: &str = "TORCHELASTIC_ERROR_FILE";
/// How long a signal waits for the error file, ns. A disk that hangs must not protect a hung worker. On a
/// busy machine the write takes much of a second, and without the file torchrun blames a peer.
pub(super) const BUDGET_NS: u64 = 1_000_000_000;
/// Maximum number of queued orders. A worker whose order does not fit is killed without an error file.
const ORDERS: usize = 1024;

/// Runs the error-file writer process: reads orders, writes the files, and answers each order.
///
/// # Errors
/// If `orders` cannot be read or `answers` cannot be written.
pub fn serve_orders(
    orders: impl std::io::BufRead,
    answers: impl std::io::Write,
) -> std::io::Result<()> {
    process::run(orders, answers)
}

/// Returns the error file that the process's environment named at its exec.
///
/// May block on a lock that a hung process holds on its memory.
pub(super) fn named_by(pid: Pid) -> Option<PathBuf> {
    let path = hangwatch_process::proc::environment_variable(pid, VARIABLE).ok().flatten()?;
    Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty())
}

/// A request to write one file.
struct Order {
    worker: Arc<Admitted>,
    path: PathBuf,
    timers: Vec<TimerNote>,
    done: Arc<AtomicBool>,
}

/// Sends orders to the writer. Clones share one queue.
#[derive(Clone)]
pub(super) struct ErrorFiles {
    /// `None` starts the writer process ahead of the first order.
    orders: SyncSender<Option<Order>>,
}

/// Carries out the orders on its own thread.
pub(super) struct Writer {
    orders: Receiver<Option<Order>>,
    /// The program of the writer process. Without it the thread writes.
    program: Option<PathBuf>,
    helper: Option<process::Helper>,
}

/// Tells when an accepted order is done.
#[derive(Clone)]
pub(super) struct Ordered {
    done: Arc<AtomicBool>,
}

impl Ordered {
    /// Whether the file was written or has failed.
    pub(super) fn is_done(&self) -> bool {
        // Acquire: pairs with the Release in `run`, so that the file exists before the worker dies.
        self.done.load(Ordering::Acquire)
    }
}

/// Creates the sender and the writer.
///
/// The process that writes runs `program`. Without it, or if it cannot be started, the writer's thread
/// writes.
pub(super) fn error_files(program: Option<PathBuf>) -> (ErrorFiles, Writer) {
    let (sender, orders) = sync_channel(ORDERS);
    (ErrorFiles { orders: sender }, Writer { orders, program, helper: None })
}

impl ErrorFiles {
    /// Orders the error file of a worker with condemned timers. Returns `None` if its environment names no
    /// file, or if the queue is full, which is logged.
    pub(super) fn order(
        &self,
        worker: &Arc<Admitted>,
        timers: Vec<TimerNote>,
        event_log: &EventLog,
    ) -> Option<Ordered> {
        // Without a timer there is nothing to report: a suspect may have none armed.
        timers.first()?;
        let path = worker.error_file.get()?.clone()?;
        let done = Arc::new(AtomicBool::new(false));
        let ordered = Ordered { done: Arc::clone(&done) };
        let order = Order { worker: Arc::clone(worker), path, timers, done };
        match self.orders.try_send(Some(order)) {
            Ok(()) => Some(ordered),
            Err(TrySendError::Full(Some(Order { worker, path, .. }))) => {
                let error = format!("{ORDERS} other error files are waiting to be written");
                event_log.note(Note::ErrorFile { worker, path, error: Some(error) });
                None
            }
            Err(_) => None, // the writer has ended: the server is ending
        }
    }

    /// Starts the writer process, because there is a worker with an error file.
    pub(super) fn prepare(&self) {
        let _ = self.orders.try_send(None); // if the queue is full, it was started before
    }
}

impl Writer {
    /// Writes files until every sender is dropped.
    pub(super) fn run(mut self, segment: Segment, redactor: &Redactor, event_log: &EventLog) {
        while let Ok(order) = self.orders.recv() {
            self.start_helper();
            let Some(Order { worker, path, timers, done }) = order else { continue };
            let facts = |note| timer_facts(segment, redactor, note);
            let timers: Vec<_> = timers.iter().map(facts).collect();
            let Some(first) = timers.first() else { continue };
            let text = report(first, &timers, Instants::now()).to_string();
            let error = self.write(&worker, &path, &text);
            event_log.note(Note::ErrorFile { worker, path, error });
            // Release: pairs with the Acquire in `is_done`.
            done.store(true, Ordering::Release);
        }
    }

    fn start_helper(&mut self) {
        if self.helper.is_none() {
            self.helper =
                self.program.as_deref().and_then(|program| process::Helper::start(program).ok());
        }
    }

    /// Writes a file. Returns why it was not written, if it was not.
    fn write(&mut self, worker: &Admitted, path: &Path, text: &str) -> Option<String> {
        let Some(helper) = &mut self.helper else {
            return place::write(&worker.process, path, text).err().map(|error| error.to_string());
        };
        helper.write(&worker.process, path, text).unwrap_or_else(|error| {
            self.helper = None; // the next file starts a new one
            Some(format!("the writer process ended: {error}"))
        })
    }
}

/// One instant on both clocks.
#[derive(Clone, Copy)]
struct Instants {
    monotonic_ns: u64,
    wall: SystemTime,
}

impl Instants {
    fn now() -> Instants {
        Instants { monotonic_ns: clock::monotonic_ns(), wall: SystemTime::now() }
    }

    fn wall_at(self, monotonic_ns: u64) -> SystemTime {
        self.wall - Duration::from_nanos(self.monotonic_ns.saturating_sub(monotonic_ns))
    }
}

/// Builds the content of the file.
///
/// Its timestamp is the start of the scope that hung, before any peer can have failed because of it. torch
/// compares whole seconds and breaks a tie by the lowest rank, so it is at least one second ago.
fn report(first: &TimerFacts, timers: &[TimerFacts], now: Instants) -> Value {
    let began = now.wall_at(first.acquired_at_ns).min(now.wall - Duration::from_secs(1));
    // A rank that waits is not the root cause: the rank it waits for may have begun to hang later.
    let since = if waits_for_others(first) { now.wall } else { began };
    let timestamp = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let summary = summary(first);
    let lines = timers.iter().map(|timer| format!("\n  {}", timer_line(timer, now)));
    let story = format!("{summary}{}", lines.collect::<String>());
    let extra = json!({ "py_callstack": story, "timestamp": timestamp.to_string() });
    json!({ "message": { "message": summary, "extraInfo": extra } })
}

/// The line that torchrun prints as the root cause.
fn summary(timer: &TimerFacts) -> String {
    let pid = timer.worker.as_ref().map_or(timer.owner.claimed_pid, |worker| worker.pid);
    let who = match timer.owner.rank {
        Some(rank) => format!("rank {rank} (pid {pid})"),
        None => format!("pid {pid}"),
    };
    let scope = &timer.scope;
    if waits_for_others(timer) {
        return format!(
            "hangwatch: {who} ran out of time in \"{scope}\", waiting for other ranks, and was removed"
        );
    }
    format!("hangwatch: {who} hung in \"{scope}\" and was removed")
}

/// Whether `run --auto` says of a scope that a rank waits for others in it.
fn waits_for_others(timer: &TimerFacts) -> bool {
    timer.scope.starts_with("together: ")
}

fn timer_line(timer: &TimerFacts, now: Instants) -> String {
    let to_ms = |ns: u64| humantime::format_duration(Duration::from_millis(ns / 1_000_000));
    let began = humantime::format_rfc3339_seconds(now.wall_at(timer.acquired_at_ns));
    let thread = match timer.owner.thread.as_str() {
        "" => String::new(),
        name => format!(", in thread {name}"),
    };
    let (scope, allowed) = (&timer.scope, to_ms(timer.allowance_ns()));
    format!("\"{scope}\" began at {began}{thread}, and had {allowed}")
}

#[cfg(test)]
mod tests {
    use hangwatch_core::wire::lane::TimerKind;

    use super::super::events::WorkerFacts;
    use super::super::worker::LaneFacts;
    use super::*;

    const NOW: Instants = Instants { monotonic_ns: 100_000_000_000, wall: SystemTime::UNIX_EPOCH };

    fn timer(scope: &str, began_ns: u64, deadline_ns: u64) -> TimerFacts {
        let owner = LaneFacts { rank: Some(3), thread: "python".into(), ..LaneFacts::default() };
        TimerFacts {
            lane: 0,
            timer: 0,
            worker: Some(WorkerFacts { pid: 4711, ..WorkerFacts::default() }),
            owner,
            scope: scope.to_owned(),
            kind: TimerKind::Guard,
            acquired_at_ns: began_ns,
            deadline_ns,
        }
    }

    fn at(seconds: u64) -> Instants {
        Instants { wall: UNIX_EPOCH + Duration::from_secs(seconds), ..NOW }
    }

    #[test]
    fn report_names_the_rank_and_every_scope() {
        let timers = [
            timer("load", 90_000_000_000, 92_000_000_000),
            timer("epoch", 50_000_000_000, 91_000_000_000),
        ];
        let report = report(&timers[0], &timers, at(1_000_000));
        let message = &report["message"];
        assert_eq!(
            message["message"],
            "hangwatch: rank 3 (pid 4711) hung in \"load\" and was removed"
        );
        let story = message["extraInfo"]["py_callstack"].as_str().unwrap();
        let expected = "hangwatch: rank 3 (pid 4711) hung in \"load\" and was removed\n  \
            \"load\" began at 1970-01-12T13:46:30Z, in thread python, and had 2s\n  \
            \"epoch\" began at 1970-01-12T13:45:50Z, in thread python, and had 41s";
        assert_eq!(story, expected);
        assert_eq!(message["extraInfo"]["timestamp"], "999990");
    }

    #[test]
    fn a_rank_that_waits_for_others_is_not_the_root_cause() {
        let waits = timer("together: all_reduce", 10_000_000_000, 99_900_000_000);
        let hung = timer("alone: between collectives", 50_000_000_000, 99_000_000_000);
        let of = |timer: &TimerFacts| report(timer, &[], at(1_000_000))["message"].clone();
        let (waits, hung) = (of(&waits), of(&hung));
        assert_eq!(
            waits["message"],
            "hangwatch: rank 3 (pid 4711) ran out of time in \"together: all_reduce\", waiting for other \
             ranks, and was removed"
        );
        let stamp = |message: &Value| {
            message["extraInfo"]["timestamp"].as_str().unwrap().parse::<u64>().unwrap()
        };
        assert!(stamp(&hung) < stamp(&waits));
    }

    #[test]
    fn short_hang_still_counts_as_the_first_failure() {
        let hung = timer("load", 99_700_000_000, 99_900_000_000);
        let report = report(&hung, &[], at(1_000_000));
        assert_eq!(report["message"]["extraInfo"]["timestamp"], "999999");
    }
}
