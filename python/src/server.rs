//! The watchdog in a thread: what `hangwatch.timer.ShmTimerServer` serves with.
//!
//! The server's own threads never touch Python: its events wait in a channel until a thread of
//! Python's asks for the next one.

use std::ffi::OsString;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hangwatch::sys::file;
use hangwatch::{CreateError, CreateOptions, Lifetime, Segment};
use hangwatch_cli::cli::config::Variables;
use hangwatch_cli::cli::{Cli, Command};
use hangwatch_cli::program::PROGRAM_VARIABLE;
use hangwatch_core::wire::lane::TimerSignal;
use hangwatch_server::events::{Expiry, TimerFacts, What, WorkerFacts};
use hangwatch_server::{ErrorFiles, ServeError, ServerEvent, ServerOptions, State};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::time::ns_to_seconds;
use crate::{errors, segments, time};

/// Make the segment `name`, and say whether it is this process's to remove: made now, or left behind
/// by a process that was killed (True); or somebody else's (False). One that *dies with its maker* is
/// removed by whoever finds it, should this process be killed.
#[pyfunction]
#[pyo3(signature = (name, max_interval, dies_with_maker=false))]
pub(crate) fn make_segment(
    py: Python<'_>,
    name: &str,
    max_interval: &Bound<'_, PyAny>,
    dies_with_maker: bool,
) -> PyResult<bool> {
    let max_interval = time::allowance(max_interval)?;
    if !hangwatch::MAX_INTERVALS.contains(&max_interval) {
        let message = "the longest time between two looks must be from 0.001 to 60 seconds";
        return Err(errors::argument(py, &message));
    }
    let lifetime = if dies_with_maker { Lifetime::Makers } else { Lifetime::Kept };
    let options = CreateOptions { max_interval, lifetime, ..CreateOptions::default() };
    segments::join(py, name);
    let is_only_use = segments::uses(py, name) == 1;
    let made = segments::looking(py, || {
        if dies_with_maker {
            segments::remove_left_behind(name);
        }
        match Segment::create(name, options) {
            Ok(_) => Ok(true),
            Err(CreateError::File { source: file::CreateError::AlreadyExists { .. }, .. }) => {
                let found = Segment::open(name)?;
                Ok(dies_with_maker && is_only_use && segments::inherit(found))
            }
            Err(error) => Err(error),
        }
    });
    made.map_err(|error: CreateError| {
        segments::leave(py, name);
        match error {
            CreateError::Open(error) => errors::open(py, &error),
            other => errors::create(py, &other),
        }
    })
}

/// Remove the name of a segment; whoever has it open keeps it.
#[pyfunction]
pub(crate) fn remove_segment(py: Python<'_>, name: &str) -> PyResult<()> {
    py.detach(|| Segment::remove(name)).map_err(|error| errors::remove(py, &error))
}

/// Remove a segment that died with its maker, if it did; whether it is gone now.
#[pyfunction]
pub(crate) fn remove_stale_segment(py: Python<'_>, name: &str) -> bool {
    py.detach(|| Segment::remove_if_stale(name)).is_ok_and(|removed| removed)
}

/// Undo one make_segment() in this process: the last one closes the segment, unless a thread of this
/// process attached to it.
#[pyfunction]
pub(crate) fn close_segment(py: Python<'_>, name: &str) {
    segments::leave(py, name);
}

/// A running watchdog.
#[pyclass(module = "hangwatch._hangwatch", frozen)]
pub(crate) struct Server {
    server: Mutex<Option<hangwatch_server::Server>>,
    events: Mutex<Receiver<ServerEvent>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl Server {
    /// Serve the segment `name`; `only_reports`: signal nobody, whatever a timer asks for.
    #[new]
    fn new(py: Python<'_>, name: &str, only_reports: bool) -> PyResult<Server> {
        segments::join(py, name);
        let segment = segments::looking(py, || Segment::open(name)).map_err(|error| {
            segments::leave(py, name);
            errors::open(py, &error)
        })?;
        let (told, events) = channel();
        // Nobody listens any more: then nobody wants to know.
        let log = move |event| drop(told.send(event));
        let server = py
            .detach(|| hangwatch_server::Server::start(segment, options(name, only_reports), log));
        let server = server.map_err(|error| {
            // Of one that fails later, a thread may still be ending: its use is not given back.
            if matches!(error, ServeError::AlreadyServed { .. }) {
                segments::leave(py, name);
            }
            errors::serve(py, &error)
        })?;
        Ok(Server { server: Mutex::new(Some(server)), events: Mutex::new(events) })
    }

    /// The next event, as a dictionary; None where there is none for `seconds`; raises
    /// StopIteration once the server has stopped and all was told.
    fn next_event<'py>(
        &self,
        py: Python<'py>,
        seconds: f64,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO);
        match py.detach(|| lock(&self.events).recv_timeout(wait)) {
            Ok(event) => described(py, &event).map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => {
                Err(pyo3::exceptions::PyStopIteration::new_err("the server has stopped"))
            }
        }
    }

    /// Ticks so far, workers reaped so far, and whether it serves.
    fn health(&self, py: Python<'_>) -> (u64, u64, bool) {
        py.detach(|| {
            lock(&self.server).as_ref().map_or((0, 0, false), |server| {
                let health = server.health();
                (health.ticks, health.reaped, health.state == State::Serving)
            })
        })
    }

    /// End it. Armed timers stay armed, for a successor.
    fn stop(&self, py: Python<'_>) {
        let stopped = py.detach(|| {
            let server = lock(&self.server).take()?;
            let name = server.segment().name().to_owned();
            server.stop_all_threads().then_some(name)
        });
        if let Some(name) = stopped {
            segments::leave(py, &name);
        }
    }
}

/// As of `hangwatch run`, whose settings hold here, too: with evidence and error files. Where these are
/// wrong, or this process does not know the `hangwatch` command, there is no evidence.
fn options(name: &str, only_reports: bool) -> ServerOptions {
    let mut options = ServerOptions { error_files: ErrorFiles::Write, ..ServerOptions::default() };
    if only_reports {
        options.policy.signal = TimerSignal::NotifyOnly;
    }
    let words = ["hangwatch", "run", "--segment", name].map(OsString::from);
    let settings = Cli::try_read_from(words, &Variables::of_process());
    if std::env::var_os(PROGRAM_VARIABLE).is_some()
        && let Ok(Cli { command: Command::Run(run), .. }) = settings
    {
        (options.evidence, _) = run.evidence.options();
    }
    options
}

/// Whether an event that has no name of its own here tells of something that went wrong.
fn is_trouble(what: &What) -> bool {
    match what {
        What::ErrorFile { error, .. } => error.is_some(),
        What::DescendantsKilled { removed, .. } => !removed.survivors.is_empty(),
        What::IncidentLost { .. }
        | What::DescendantsUnlisted { .. }
        | What::Quarantined { .. }
        | What::AdmissionFailed { .. }
        | What::LeftBehind { .. }
        | What::Panicked { .. }
        | What::ScopesFull { .. } => true,
        _ => false,
    }
}

fn described<'py>(py: Python<'py>, event: &ServerEvent) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let name = match &event.what {
        What::Expired(expiry) => {
            describe_expiry(&dict, expiry)?;
            "expired"
        }
        What::Warning(timer) => {
            describe_timer(&dict, timer)?;
            "warning"
        }
        What::Held { timer, hold } => {
            describe_timer(&dict, timer)?;
            dict.set_item("hold", format!("{hold:?}").to_lowercase())?;
            "held"
        }
        What::Signalled { worker, signal } => {
            describe_worker(&dict, worker)?;
            dict.set_item("signal", signal)?;
            "signalled"
        }
        What::ReapFailed { worker, error } => {
            describe_worker(&dict, worker)?;
            dict.set_item("error", error)?;
            "reap_failed"
        }
        What::Admitted(worker) => {
            describe_worker(&dict, worker)?;
            "admitted"
        }
        What::Left { worker, .. } => {
            describe_worker(&dict, worker)?;
            "left"
        }
        What::Serving { .. } => "serving",
        What::Standby => "standby",
        What::Ended(_) => "ended",
        What::LimiterReleased => "brake_released",
        What::Captured(_) => "captured",
        What::Closed { .. } => "closed",
        other if is_trouble(other) => {
            dict.set_item("error", format!("{other:?}"))?;
            "trouble"
        }
        other => {
            dict.set_item("text", format!("{other:?}"))?;
            "told"
        }
    };
    dict.set_item("event", name)?;
    Ok(dict)
}

fn describe_worker(dict: &Bound<'_, PyDict>, worker: &WorkerFacts) -> PyResult<()> {
    dict.set_item("pid", worker.pid)?;
    dict.set_item("command", worker.command.to_string())
}

fn describe_timer(dict: &Bound<'_, PyDict>, timer: &TimerFacts) -> PyResult<()> {
    if let Some(worker) = &timer.worker {
        describe_worker(dict, worker)?;
    }
    dict.set_item("scope", &timer.scope)?;
    dict.set_item("rank", timer.owner.rank)?;
    dict.set_item("deadline", ns_to_seconds(timer.deadline_ns.cast_signed()))?;
    dict.set_item("allowance", ns_to_seconds(timer.allowance_ns().cast_signed()))
}

fn describe_expiry(dict: &Bound<'_, PyDict>, expiry: &Expiry) -> PyResult<()> {
    describe_timer(dict, &expiry.timer)?;
    dict.set_item("signal", expiry.signal)?;
    dict.set_item("late", ns_to_seconds(expiry.late_ns.cast_signed()))?;
    dict.set_item("outcome", expiry.outcome.name())
}
