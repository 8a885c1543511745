//! The keyed acquires of `hangwatch.timer`: a deadline a scope, per process.

use std::sync::OnceLock;
use std::time::Duration;

use hangwatch::{Segment, Signal, Worker, WorkerOptions};
use pyo3::prelude::*;

use crate::expires::ending;
use crate::{errors, time};

/// Upstream's rule on one segment: a scope acquired again replaces its deadline.
#[pyclass(module = "hangwatch._hangwatch", frozen)]
pub(crate) struct Client {
    segment: Option<String>,
    signal: Signal,
    worker: OnceLock<Worker>,
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (segment, signal))]
    fn new(py: Python<'_>, segment: Option<String>, signal: Option<i64>) -> PyResult<Client> {
        Ok(Client { segment, signal: time::signal(py, signal)?, worker: OnceLock::new() })
    }

    /// Set the deadline of `scope` to `seconds` from now; what has passed is due at once.
    fn acquire(&self, py: Python<'_>, scope: &str, seconds: f64) -> PyResult<()> {
        let worker = self.worker(py)?;
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
        let acquired = py.detach(|| worker.acquire(scope, allowance));
        acquired.map_err(|error| errors::acquire(py, &error))
    }

    /// End the deadline of `scope`, and say how it ended.
    fn release(&self, py: Python<'_>, scope: &str) -> PyResult<&'static str> {
        let worker = self.worker(py)?;
        let released = py.detach(|| worker.release(scope));
        released.map(ending).map_err(|error| errors::acquire(py, &error))
    }
}

impl Client {
    /// The worker, attached on first use: the server may be started after the client is made.
    fn worker(&self, py: Python<'_>) -> PyResult<Worker> {
        if let Some(worker) = self.worker.get() {
            return Ok(*worker);
        }
        let name = Segment::name_or_environment(self.segment.as_deref())
            .map_err(|error| errors::open(py, &error))?;
        let options = WorkerOptions::new().signal(self.signal);
        let worker = py
            .detach(|| options.attach(name.as_str()))
            .map_err(|error| errors::attach(py, &error))?;
        Ok(*self.worker.get_or_init(|| worker))
    }
}
