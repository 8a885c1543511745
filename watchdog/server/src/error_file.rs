//! torch's error files: for a worker of `torchrun` that is reaped, what it can no longer write
//! itself.
//!
//! `torchrun` names each worker a file in `TORCHELASTIC_ERROR_FILE`, reads it when the worker has
//! failed, and calls the earliest of its failures the root cause. A worker that dies by SIGKILL
//! writes none, and its peers, whose collectives break for it, are blamed. So the watchdog writes it,
//! between the condemnation and the signal, by a process of its own (`process`), which a thread talks to:
//! the signal waits for it for [`BUDGET_NS`] at most. `place` finds the file's place safely and writes it.
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

/// How torchrun tells a worker which file is its.
const VARIABLE: &str = "TORCHELASTIC_ERROR_FILE";
/// How long a signal waits for the error file, ns: a disk that hangs must not save a hung worker.
/// On a busy machine the write takes much of a second, and without the file torchrun blames a peer.
pub(super) const BUDGET_NS: u64 = 1_000_000_000;
/// Orders that wait at most; a worker whose order finds no room is reaped without its file.
const ORDERS: usize = 1024;

/// Carries out the orders that come in, in the process that is started for it.
///
/// # Errors
/// Where nobody can be heard or told any more.
pub fn serve_orders(
    orders: impl std::io::BufRead,
    answers: impl std::io::Write,
) -> std::io::Result<()> {
    process::run(orders, answers)
}

/// The error file that the process's environment names, as it was at its exec.
///
/// May wait for a lock that a hung process holds over its memory.
pub(super) fn named_by(pid: Pid) -> Option<PathBuf> {
    let path = hangwatch_process::proc::environment_variable(pid, VARIABLE).ok().flatten()?;
    Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty())
}

/// One file to be written.
struct Order {
    worker: Arc<Admitted>,
    path: PathBuf,
    timers: Vec<TimerNote>,
    done: Arc<AtomicBool>,
}

/// Where files are ordered.
#[derive(Clone)]
pub(super) struct ErrorFiles {
    /// `None` only has the process started, before anybody waits for it.
    orders: SyncSender<Option<Order>>,
}

/// The other end.
pub(super) struct Writer {
    orders: Receiver<Option<Order>>,
    /// What writes; without it the thread does.
    program: Option<PathBuf>,
    helper: Option<process::Helper>,
}

/// An order that was taken.
#[derive(Clone)]
pub(super) struct Ordered {
    done: Arc<AtomicBool>,
}

impl Ordered {
    /// Whether it was written, or could not be.
    pub(super) fn is_done(&self) -> bool {
        // Acquire: pairs with the Release in `run`, so that the file is there for whoever hears of
        // the worker's death.
        self.done.load(Ordering::Acquire)
    }
}

/// The two ends. The files are written by a process that `program` has as a command; without one, or
/// where it cannot be started, by the thread that runs the writer.
pub(super) fn error_files(program: Option<PathBuf>) -> (ErrorFiles, Writer) {
    let (sender, orders) = sync_channel(ORDERS);
    (ErrorFiles { orders: sender }, Writer { orders, program, helper: None })
}

impl ErrorFiles {
    /// Orders the error file of a worker whose timers are condemned. `None` where its environment
    /// names none, or there is no room, which is said.
    pub(super) fn order(
        &self,
        worker: &Arc<Admitted>,
        timers: Vec<TimerNote>,
        event_log: &EventLog,
    ) -> Option<Ordered> {
        // Without a timer there is nothing to report: a suspect that had none armed.
        timers.first()?;
        let path = worker.error_file.get()?.clone()?;
        let done = Arc::new(AtomicBool::new(false));
        let ordered = Ordered { done: Arc::clone(&done) };
        let order = Order { worker: Arc::clone(worker), path, timers, done };
        match self.orders.try_send(Some(order)) {
            Ok(()) => Some(ordered),
            Err(TrySendError::Full(Some(Order { worker, path, .. }))) => {
                let error = format!("{ORDERS} others wait for theirs");
                event_log.note(Note::ErrorFile { worker, path, error: Some(error) });
                None
            }
            Err(_) => None, // its writer is no more: the server ends
        }
    }

    /// There are workers with an error file: the process that writes it is started before it is needed.
    pub(super) fn prepare(&self) {
        let _ = self.orders.try_send(None); // full, it has been started long ago
    }
}

impl Writer {
    /// Writes until nobody orders any more.
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

    /// Writes a file; why that was not done.
    fn write(&mut self, worker: &Admitted, path: &Path, text: &str) -> Option<String> {
        let Some(helper) = &mut self.helper else {
            return place::write(&worker.process, path, text).err().map(|error| error.to_string());
        };
        helper.write(&worker.process, path, text).unwrap_or_else(|error| {
            self.helper = None; // the next file gets another
            Some(format!("its writer ended: {error}"))
        })
    }
}

/// The same instant on both clocks.
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

/// What the file says.
///
/// Its time is when the scope that hung began: before any peer can have failed for it. torch
/// compares whole seconds and takes the lowest rank of a tie, so it is at least one second ago.
fn report(first: &TimerFacts, timers: &[TimerFacts], now: Instants) -> Value {
    let began = now.wall_at(first.acquired_at_ns).min(now.wall - Duration::from_secs(1));
    // A rank that waits is not the root cause: whoever it waits for may have begun to hang after it.
    let since = if waits_for_others(first) { now.wall } else { began };
    let timestamp = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let summary = summary(first);
    let lines = timers.iter().map(|timer| format!("\n  {}", timer_line(timer, now)));
    let story = format!("{summary}{}", lines.collect::<String>());
    let extra = json!({ "py_callstack": story, "timestamp": timestamp.to_string() });
    json!({ "message": { "message": summary, "extraInfo": extra } })
}

/// The one line that is the reason for all this.
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
    fn a_report_names_the_rank_and_every_scope() {
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
    fn a_short_hang_is_the_first_failure_all_the_same() {
        let hung = timer("load", 99_700_000_000, 99_900_000_000);
        let report = report(&hung, &[], at(1_000_000));
        assert_eq!(report["message"]["extraInfo"]["timestamp"], "999999");
    }
}
