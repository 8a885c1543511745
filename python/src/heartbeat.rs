//! `hangwatch.heartbeat`: a deadline that each kick moves on.

use hangwatch::AcquireError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::expires::{ending, time_and_scope};
use crate::{attachment, errors, scope, task, time};

/// A loop that must come round in time: what `hangwatch.heartbeat` gives.
///
/// Example:
///     >>> with hangwatch.heartbeat(60, "loop") as beat:
///     ...     for batch in batches:
///     ...         beat.kick()
#[pyclass(module = "hangwatch")]
pub(crate) struct Heartbeat {
    beat: Beat,
    scope: Py<PyString>,
}

enum Beat {
    Armed(hangwatch::Heartbeat),
    /// There is no segment: none is required, or it is gone.
    NoOp,
    Released,
}

/// heartbeat(seconds=None, scope=None, *, signal=None)
///
/// Begin a heartbeat: from now on it must be kicked at least every *seconds*.
///
/// Without a time, it must be kicked within the one that the watchdog's deadlines
/// file gives its scope, as it is at each kick: `hangwatch.heartbeat("loop")`.
///
/// It ends by release(), at the end of its `with` block, or when it is collected.
/// Any thread may kick it.
///
/// Args:
///     seconds: how long a round may take, in seconds (a number) or as a timedelta;
///         more than 0, at most ten years; left out, the scope's. A str in its place
///         is the scope.
///     scope: the name it is reported under; file#line of the caller by default.
///     signal: sent at the deadline, by number (1 to 64) or name; 0 or "none": it is
///         reported only; None: the one given to attach(), else the watchdog's.
///
/// Raises:
///     ArgumentError: a time, scope or signal that is none.
///     NoSegmentError, AttachError: as of expires().
///     AcquireError: no timer is free, or no time is given and none is known.
///
/// Example:
///     >>> beat = hangwatch.heartbeat(60, "loop")
///     >>> for batch in batches:
///     ...     beat.kick()
///     ...     train(batch)
#[pyfunction]
#[pyo3(signature = (seconds=None, scope=None, *, signal=None))]
pub(crate) fn heartbeat<'py>(
    py: Python<'py>,
    seconds: Option<&Bound<'py, PyAny>>,
    scope: Option<&Bound<'py, PyAny>>,
    signal: Option<&Bound<'_, PyAny>>,
) -> PyResult<Heartbeat> {
    let (seconds, scope) = time_and_scope(seconds, scope);
    let allowance = seconds.map(time::allowance).transpose()?;
    let scope = scope::given_or_caller(py, scope)?;
    let signal = time::signal(py, signal)?;
    let Some(worker) = attachment::worker(py)? else {
        return Ok(Heartbeat { beat: Beat::NoOp, scope: scope.unbind() });
    };
    let worker =
        if signal == hangwatch::Signal::Default { worker } else { worker.with_signal(signal) };
    let text = scope.to_string_lossy();
    let beat = py.detach(|| match allowance {
        Some(allowance) => worker.heartbeat(&text, allowance),
        None => worker.heartbeat_default(&text),
    });
    let beat = attachment::unless_gone(py, beat)?;
    beat.iter().for_each(|beat| beat.note_task(task::current(py)));
    let beat = beat.map_or(Beat::NoOp, Beat::Armed);
    Ok(Heartbeat { beat, scope: scope.unbind() })
}

impl Heartbeat {
    fn ask(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&hangwatch::Heartbeat) -> Result<(), AcquireError>,
    ) -> PyResult<()> {
        match &self.beat {
            Beat::Armed(beat) => ask(beat).map_err(|error| errors::acquire(py, &error)),
            Beat::NoOp => Ok(()),
            Beat::Released => Err(errors::exception(
                py,
                "NotArmedError",
                &"the heartbeat was released: begin a new one",
            )),
        }
    }
}

#[pymethods]
impl Heartbeat {
    /// kick()
    ///
    /// A sign of life: the whole time from now on.
    ///
    /// Raises:
    ///     NotArmedError: it comes too late, or the heartbeat is paused, was
    ///         released, or is that of the parent of this forked process.
    ///
    /// Example:
    ///     >>> beat.kick()
    fn kick(&self, py: Python<'_>) -> PyResult<()> {
        self.ask(py, hangwatch::Heartbeat::kick)
    }

    /// pause(why="paused")
    ///
    /// Rest: there is no deadline until resume(). *why* goes into the records.
    ///
    /// Raises:
    ///     NotArmedError: it is too late, or it is paused or released already.
    ///
    /// Example:
    ///     >>> beat.pause("waiting for work")
    #[pyo3(signature = (why="paused"))]
    fn pause(&self, py: Python<'_>, why: &str) -> PyResult<()> {
        self.ask(py, |beat| beat.pause(why))
    }

    /// resume()
    ///
    /// Go on, with the time that was left at pause().
    ///
    /// Raises:
    ///     NotArmedError: it is not paused.
    ///
    /// Example:
    ///     >>> beat.resume()
    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.ask(py, hangwatch::Heartbeat::resume)
    }

    /// release()
    ///
    /// End it, and say how: "in_time", "reported", "too_late" or "not_armed"; see
    /// Expires.release().
    ///
    /// Example:
    ///     >>> beat.release()
    ///     'in_time'
    fn release(&mut self) -> &'static str {
        match std::mem::replace(&mut self.beat, Beat::Released) {
            Beat::Armed(beat) => ending(beat.release()),
            Beat::NoOp | Beat::Released => "not_armed",
        }
    }

    /// The seconds left; 0.0 when overdue, None when not armed.
    ///
    /// Example:
    ///     >>> beat.remaining
    ///     59.99...
    #[getter]
    fn remaining(&self) -> Option<f64> {
        match &self.beat {
            Beat::Armed(beat) => time::seconds(beat.remaining()),
            Beat::NoOp | Beat::Released => None,
        }
    }

    /// The name the heartbeat is reported under.
    #[getter]
    fn scope_name<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        self.scope.bind(py).clone()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type=None, exc_value=None, traceback=None, /))]
    fn __exit__(
        &mut self,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc_value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let _ = (exc_type, exc_value, traceback);
        self.release();
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let scope = self.scope.bind(py).repr()?;
        Ok(match self.remaining() {
            Some(left) => format!("<hangwatch.Heartbeat {scope}, {left:.3} s left>"),
            None => format!("<hangwatch.Heartbeat {scope}>"),
        })
    }
}
