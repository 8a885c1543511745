//! The process's worker: attached by `attach`, or on first use.
//!
//! A segment that only the environment names may vanish, with the watchdog that made it: then deadlines
//! are no-ops, one warning says so, and it is looked for again each second. A worker never fails because
//! its watchdog is gone. What `attach` is given by name, and a process that nobody gave a segment to, are
//! errors of whoever wrote or started the program.
//!
//! [`State`] is the same for all threads and survives a fork: a `Worker` finds its way in a child by
//! itself. Whoever keeps something derived from it keeps the [`epoch`] with it. The lock is held for
//! a copy only and never while the interpreter's lock is let go, so a fork never finds it held.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hangwatch::{
    AcquireError, AttachError, ClockKind, Labels, OpenError, Ptracer, Segment, Worker,
    WorkerOptions,
};
use pyo3::prelude::*;

use crate::{errors, segments, time};

/// Set to 1, a missing segment is no error for whoever does not say otherwise.
const OPTIONAL_VARIABLE: &str = "HANGWATCH_OPTIONAL";

#[derive(Clone, Copy)]
enum State {
    /// Not attached yet: the first use does it.
    Fresh,
    Attached(Worker),
    /// There is no segment, and none is required: every deadline is a no-op.
    Absent,
    /// The environment's segment could not be opened: every deadline is a no-op until the next look.
    Gone {
        next_look: Instant,
    },
}

/// How often a segment that is gone is looked for.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);

static STATE: Mutex<State> = Mutex::new(State::Fresh);
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// Counts the attaches: what was derived from the worker of another epoch is stale.
#[inline]
pub(crate) fn epoch() -> u64 {
    // Relaxed: whoever reads it holds the interpreter's lock, as does whoever changes it.
    EPOCH.load(Ordering::Relaxed)
}

/// The process's worker, attached now if it was not; `None` where there is no segment and none is
/// required.
pub(crate) fn worker(py: Python<'_>) -> PyResult<Option<Worker>> {
    let state = *STATE.lock().unwrap_or_else(PoisonError::into_inner);
    match state {
        State::Attached(worker) => Ok(Some(worker)),
        State::Absent => Ok(None),
        State::Gone { next_look } if Instant::now() < next_look => Ok(None),
        State::Fresh | State::Gone { .. } => attach_by_itself(py),
    }
}

/// Attaches on first use, to the segment that the environment names.
fn attach_by_itself(py: Python<'_>) -> PyResult<Option<Worker>> {
    let is_optional = env::var(OPTIONAL_VARIABLE).is_ok_and(|value| value == "1");
    match try_attach(py, None, WorkerOptions::new()) {
        Ok(worker) => Ok(Some(become_attached(worker))),
        Err(AttachError::Open(error)) if is_optional && errors::is_missing(&error) => {
            change(State::Absent);
            Ok(None)
        }
        Err(AttachError::Open(error)) if !matches!(error, OpenError::Unnamed) => {
            change(State::Gone { next_look: Instant::now() + LOOK_AGAIN });
            warn_once(py, &error);
            Ok(None)
        }
        Err(error) => Err(errors::attach(py, &error)),
    }
}

/// What became of an acquire; `None` where its segment is gone, as in a child that closed the
/// descriptor it inherited. Everything else that fails is the caller's error.
pub(crate) fn unless_gone<T>(
    py: Python<'_>,
    acquired: Result<T, AcquireError>,
) -> PyResult<Option<T>> {
    match acquired {
        Ok(acquired) => Ok(Some(acquired)),
        Err(AcquireError::Attach(error)) if matches!(&*error, AttachError::Open(_)) => {
            warn_once(py, &error);
            Ok(None)
        }
        Err(error) => Err(errors::acquire(py, &error)),
    }
}

/// Logs, once a process, that deadlines are not enforced. A log that fails fails no worker.
pub(crate) fn warn_once(py: Python<'_>, why: &dyn std::fmt::Display) {
    static WARNED: AtomicU64 = AtomicU64::new(0);
    if WARNED.swap(1, Ordering::Relaxed) == 1 {
        return;
    }
    let message = format!("deadlines are not enforced in this process: {why}");
    let logged = py
        .import("logging")
        .and_then(|logging| logging.call_method1("getLogger", ("hangwatch",)))
        .and_then(|log| log.call_method1("warning", ("%s", message)));
    drop(logged);
}

/// Attaches this process to a segment.
///
/// See `hangwatch.attach` for its arguments.
#[expect(clippy::too_many_arguments, reason = "one for each of Python's")]
#[pyfunction]
#[pyo3(signature = (name, required, clock, signal, job, rank, require_watchdog, ptracer))]
pub(crate) fn attach(
    py: Python<'_>,
    name: Option<String>,
    required: bool,
    clock: &str,
    signal: Option<&Bound<'_, PyAny>>,
    job: Option<String>,
    rank: Option<u32>,
    require_watchdog: bool,
    ptracer: Option<&str>,
) -> PyResult<Option<&'static str>> {
    let clock = match clock {
        // The default: whatever the thread uses already is right.
        "counter" => None,
        "system" => Some(ClockKind::System),
        "coarse" => Some(ClockKind::Coarse),
        other => {
            let message =
                format!("{other:?} is no clock: give \"counter\", \"system\" or \"coarse\"");
            return Err(errors::argument(py, &message));
        }
    };
    let mut options = WorkerOptions::new().signal(time::signal(py, signal)?);
    if let Some(clock) = clock {
        options = options.clock(clock);
    }
    if job.is_some() || rank.is_some() {
        let mut labels = Labels::from_environment();
        labels.rank = rank.or(labels.rank);
        labels.job = job.unwrap_or(labels.job);
        options = options.labels(labels);
    }
    let options = match ptracer.map(|word| (word, Ptracer::named(word))) {
        None => options,
        Some((_, Some(ptracer))) => options.ptracer(ptracer),
        Some((word, None)) => {
            let message =
                format!("{word:?} is nobody to trace it: give \"watchdog\", \"any\" or \"nobody\"");
            return Err(errors::argument(py, &message));
        }
    };
    let options = if require_watchdog { options.require_watchdog() } else { options };
    let Some(worker) = attach_to(py, name, options, required)? else { return Ok(None) };
    let segment = worker.segment().map_err(|error| errors::attach(py, &error))?;
    Ok(Some(segment.name()))
}

fn attach_to(
    py: Python<'_>,
    name: Option<String>,
    options: WorkerOptions,
    required: bool,
) -> PyResult<Option<Worker>> {
    match try_attach(py, name, options) {
        Ok(worker) => Ok(Some(become_attached(worker))),
        Err(AttachError::Open(error)) if !required && errors::is_missing(&error) => {
            change(State::Absent);
            Ok(None)
        }
        Err(error) => Err(errors::attach(py, &error)),
    }
}

fn try_attach(
    py: Python<'_>,
    name: Option<String>,
    options: WorkerOptions,
) -> Result<Worker, AttachError> {
    // The environment is read with the interpreter's lock held: Python changes it so, too.
    let name = Segment::name_or_environment(name.as_deref())?;
    segments::looking(py, || options.attach(name.as_str()))
}

fn become_attached(worker: Worker) -> Worker {
    change(State::Attached(worker));
    worker
}

fn change(state: State) {
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = state;
    EPOCH.fetch_add(1, Ordering::Relaxed);
}
