//! The process's worker: attached by `attach`, or on first use.
//!
//! [`State`] is the same for all threads and survives a fork: a `Worker` finds its way in a child by
//! itself. Whoever keeps something derived from it keeps the [`epoch`] with it. The lock is held for
//! a copy only and never while the interpreter's lock is let go, so a fork never finds it held.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hangwatch::{AttachError, ClockKind, Labels, Ptracer, Segment, Worker, WorkerOptions};
use pyo3::prelude::*;

use crate::{errors, time};

/// Set to 1, a missing segment is no error for whoever does not say otherwise.
const OPTIONAL_VARIABLE: &str = "HANGWATCH_OPTIONAL";

#[derive(Clone, Copy)]
enum State {
    /// Not attached yet: the first use does it.
    Fresh,
    Attached(Worker),
    /// There is no segment, and none is required: every deadline is a no-op.
    Absent,
}

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
        State::Fresh => {
            let required = env::var(OPTIONAL_VARIABLE).is_ok_and(|value| value == "1");
            attach_to(py, None, WorkerOptions::new(), !required)
        }
    }
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
    signal: Option<i64>,
    job: Option<String>,
    rank: Option<u32>,
    require_watchdog: bool,
    ptracer: Option<&str>,
) -> PyResult<Option<&'static str>> {
    let clock = match clock {
        "counter" => ClockKind::Counter,
        "system" => ClockKind::System,
        "coarse" => ClockKind::Coarse,
        other => {
            let message =
                format!("{other:?} is no clock: give \"counter\", \"system\" or \"coarse\"");
            return Err(errors::argument(py, &message));
        }
    };
    let mut labels = Labels::from_environment();
    labels.rank = rank.or(labels.rank);
    if let Some(job) = job {
        labels.job = job;
    }
    let options =
        WorkerOptions::new().clock(clock).signal(time::signal(py, signal)?).labels(labels);
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
    // The environment is read with the interpreter's lock held: Python changes it so, too.
    let name = Segment::name_or_environment(name.as_deref()).map_err(AttachError::from);
    let attached = name.and_then(|name| py.detach(|| options.attach(name.as_str())));
    let state = match attached {
        Ok(worker) => State::Attached(worker),
        Err(AttachError::Open(error)) if !required && errors::is_missing(&error) => State::Absent,
        Err(error) => return Err(errors::attach(py, &error)),
    };
    *STATE.lock().unwrap_or_else(PoisonError::into_inner) = state;
    EPOCH.fetch_add(1, Ordering::Relaxed);
    match state {
        State::Attached(worker) => Ok(Some(worker)),
        State::Absent | State::Fresh => Ok(None),
    }
}
