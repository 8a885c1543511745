//! The keyed acquires of `hangwatch.timer`: a deadline a scope, per process.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hangwatch::{AttachError, Segment, Signal, Worker, WorkerOptions};
use pyo3::prelude::*;

use crate::attachment::{LOOK_AGAIN, unless_gone, warn_once};
use crate::expires::ending;
use crate::{errors, segments, time};

/// Upstream's rule on one segment: a scope acquired again replaces its deadline.
#[pyclass(module = "hangwatch._hangwatch", frozen)]
pub(crate) struct Client {
    segment: Option<String>,
    signal: Signal,
    /// Whether a missing segment is an error.
    required: bool,
    worker: OnceLock<Worker>,
    /// When a missing segment is looked for again.
    next_look: Mutex<Option<Instant>>,
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (segment, signal, required))]
    fn new(
        py: Python<'_>,
        segment: Option<String>,
        signal: Option<&Bound<'_, PyAny>>,
        required: bool,
    ) -> PyResult<Client> {
        let signal = time::signal(py, signal)?;
        let (worker, next_look) = (OnceLock::new(), Mutex::new(None));
        Ok(Client { segment, signal, required, worker, next_look })
    }

    /// Set the deadline of `scope` to `seconds` from now; what has passed is due at once.
    fn acquire(&self, py: Python<'_>, scope: &str, seconds: f64) -> PyResult<()> {
        let allowance = if seconds.is_nan() {
            return Err(errors::argument(py, &"the expiration time is not a number"));
        } else if seconds <= 0.0 {
            Duration::from_nanos(1)
        } else {
            // Beyond all bounds: refused below.
            Duration::try_from_secs_f64(seconds)
                .unwrap_or(Duration::MAX)
                .max(Duration::from_nanos(1))
        };
        let Some(worker) = self.worker(py)? else { return Ok(()) };
        let acquired = py.detach(|| worker.acquire(scope, allowance));
        unless_gone(py, acquired).map(|_| ())
    }

    /// End the deadline of `scope`, and say how it ended.
    fn release(&self, py: Python<'_>, scope: &str) -> PyResult<&'static str> {
        let Some(worker) = self.worker(py)? else { return Ok("not_armed") };
        let released = py.detach(|| worker.release(scope));
        unless_gone(py, released).map(|released| released.map_or("not_armed", ending))
    }
}

impl Client {
    /// The worker, attached on first use: the server may be started after the client is made. `None`
    /// where there is no segment and none is required; it is looked for again each second.
    fn worker(&self, py: Python<'_>) -> PyResult<Option<Worker>> {
        if let Some(worker) = self.worker.get() {
            return Ok(Some(*worker));
        }
        let next_look = *self.next_look.lock().unwrap_or_else(PoisonError::into_inner);
        if next_look.is_some_and(|at| Instant::now() < at) {
            return Ok(None);
        }
        let name = Segment::name_or_environment(self.segment.as_deref())
            .map_err(|error| errors::open(py, &error))?;
        let options = WorkerOptions::new().signal(self.signal);
        match segments::looking(py, || options.attach(name.as_str())) {
            Ok(worker) => Ok(Some(*self.worker.get_or_init(|| worker))),
            Err(AttachError::Open(error)) if !self.required => {
                let at = Instant::now() + LOOK_AGAIN;
                *self.next_look.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
                warn_once(py, &error);
                Ok(None)
            }
            Err(error) => Err(errors::attach(py, &error)),
        }
    }
}
