//! `hangwatch.paused`: a stretch that this thread's timers do not count.

use std::time::Duration;

use hangwatch::Pause;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::{attachment, errors, scope, task, time};

/// A stretch that a thread's timers do not count: what `hangwatch.paused` gives.
///
/// Example:
///     >>> with hangwatch.paused("checkpoint", max=600) as pause:
///     ...     save()
///     ...     pause.remaining
///     540.2
#[pyclass(module = "hangwatch")]
pub(crate) struct Paused {
    scope: Py<PyString>,
    max: Duration,
    entered: Entered,
}

enum Entered {
    No,
    Pause(Pause),
    /// There is no segment: none is required, or it is gone.
    NoOp,
}

/// paused(scope=None, max=600.0)
///
/// Hold up this thread's deadlines for the length of a block.
///
/// Every timer that is armed in this thread when the block begins has the same time
/// left when it ends. The block has a deadline of its own, *max*. A timer whose
/// deadline changes within the block (a kick, an extension) keeps the deadline that
/// gave it. A block like this one within the block holds up the outer block's own
/// deadline, too: each timer has its whole time.
///
/// Args:
///     scope: the name the block is reported under; file#line of the caller by
///         default.
///     max: how long the block may take, in seconds (a number) or as a timedelta.
///
/// Raises:
///     ArgumentError: a time or scope that is none.
///     NoSegmentError, AttachError: on entering, as of expires().
///     AcquireError: on entering, where no timer is free; nothing is paused then.
///
/// Example:
///     >>> with hangwatch.expires(30, "step"):
///     ...     with hangwatch.paused("checkpoint", max=600):
///     ...         torch.save(model.state_dict(), path)
#[pyfunction]
#[pyo3(signature = (scope=None, max=None))]
pub(crate) fn paused<'py>(
    py: Python<'py>,
    scope: Option<&Bound<'py, PyAny>>,
    max: Option<&Bound<'py, PyAny>>,
) -> PyResult<Paused> {
    let max = max.map_or(Ok(Duration::from_mins(10)), time::allowance)?;
    let scope = scope::given_or_caller(py, scope)?.unbind();
    Ok(Paused { scope, max, entered: Entered::No })
}

#[pymethods]
impl Paused {
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let py = slf.py();
        let mut this = slf.try_borrow_mut()?;
        if !matches!(this.entered, Entered::No) {
            let message = "the pause is entered already: call hangwatch.paused() anew for a block \
                           within its own block";
            return Err(errors::exception(py, "AcquireError", &message));
        }
        this.entered = match attachment::worker(py)? {
            None => Entered::NoOp,
            Some(worker) => {
                let (max, scope) = (this.max, this.scope.bind(py).to_string_lossy());
                let pause = py.detach(|| worker.pause(&scope, max));
                let pause = attachment::unless_gone(py, pause)?;
                pause.iter().for_each(|pause| pause.note_task(task::current(py)));
                pause.map_or(Entered::NoOp, Entered::Pause)
            }
        };
        drop(this);
        Ok(slf)
    }

    #[pyo3(signature = (exc_type=None, exc_value=None, traceback=None, /))]
    fn __exit__(
        &mut self,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc_value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) {
        let _ = (exc_type, exc_value, traceback);
        self.entered = Entered::No;
    }

    /// The seconds left to the pause; 0.0 when overdue, None when not entered.
    ///
    /// Example:
    ///     >>> with hangwatch.paused("checkpoint", max=600) as pause:
    ///     ...     pause.remaining
    ///     599.99...
    #[getter]
    fn remaining(&self) -> Option<f64> {
        match &self.entered {
            Entered::Pause(pause) => time::seconds(pause.remaining()),
            Entered::NoOp | Entered::No => None,
        }
    }
}
