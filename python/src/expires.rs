//! `hangwatch.expires`: a deadline as a context manager and as a decorator.

use std::time::Duration;

use hangwatch::{AcquireError, Guard, Released, Scope, Signal};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::meeting::Meeting;
use crate::{attachment, errors, scope, task, time};

/// Where one entering of a deadline stands.
enum Entered {
    No,
    Armed(Guard),
    /// There is no segment: none is required, or it is gone.
    NoOp,
}

/// A deadline: what `hangwatch.expires` gives. It holds within its `with` block; times are
/// in seconds.
///
/// Example:
///     >>> with hangwatch.expires(30, "forward") as deadline:
///     ...     deadline.extend(5)
///     >>> deadline.scope_name
///     'forward'
#[pyclass(module = "hangwatch")]
pub(crate) struct Expires {
    /// `None`: the scope's, by the watchdog's deadlines file.
    allowance: Option<Duration>,
    /// Whether the time that the deadlines file gives the scope counts more than `allowance`.
    prefers_learned: bool,
    scope: Py<PyString>,
    signal: Signal,
    meeting: Option<Meeting>,
    entered: Entered,
}

/// expires(seconds=None, scope=None, *, signal=None)
///
/// Give a block, a function or a coroutine a deadline.
///
/// Without a time, it has the one that the watchdog's deadlines file gives its scope
/// at the moment it is entered (`hangwatch run --deadlines FILE`, which `hangwatch
/// learn` writes): `hangwatch.expires("forward")`.
///
/// A block that does not end within *seconds* is found by the watchdog, which
/// reports it and removes this process. Nested and concurrent deadlines are all
/// enforced. Costs less than a microsecond; waits for nobody.
///
/// Args:
///     seconds: how long it may take, in seconds (a number) or as a timedelta;
///         more than 0, at most ten years; left out, the scope's. A str in its place
///         is the scope.
///     scope: the name it is reported under; file#line of the caller by default.
///     signal: sent at the deadline, by number (1 to 64) or name; 0 or "none": it is
///         reported only; None: the one given to attach(), else the watchdog's.
///
/// Raises:
///     ArgumentError: a time, scope or signal that is none.
///     NoSegmentError: on entering, where this process is not attached and no
///         segment is named. (One that HANGWATCH_SEGMENT names and that is gone makes
///         deadlines no-ops, and a warning says so once.)
///     AttachError: on entering, where the segment has no free lane.
///     AcquireError: on entering, where no timer is free, or no time is given and
///         none is known.
///
/// Example:
///     >>> with hangwatch.expires(30, "forward") as deadline:
///     ...     loss = model(batch)
///     ...     deadline.extend(5)
///     >>> with hangwatch.expires("forward"):    # as the deadlines file says
///     ...     loss = model(batch)
///     >>> @hangwatch.expires(5)
///     ... async def fetch(url): ...
#[pyfunction]
#[pyo3(signature = (seconds=None, scope=None, *, signal=None))]
pub(crate) fn expires<'py>(
    py: Python<'py>,
    seconds: Option<&Bound<'py, PyAny>>,
    scope: Option<&Bound<'py, PyAny>>,
    signal: Option<&Bound<'_, PyAny>>,
) -> PyResult<Expires> {
    let (seconds, scope) = time_and_scope(seconds, scope);
    let allowance = seconds.map(time::allowance).transpose()?;
    let scope = scope::given_or_caller(py, scope)?.unbind();
    Ok(Expires::new(allowance, scope, time::signal(py, signal)?, None))
}

/// A deadline with the time that the watchdog's deadlines file gives its scope when it is entered, or
/// with *seconds* where the file gives none.
#[pyfunction]
pub(crate) fn expires_by_default(
    seconds: &Bound<'_, PyAny>,
    scope: Bound<'_, PyString>,
) -> PyResult<Expires> {
    let allowance = Some(time::allowance(seconds)?);
    Ok(Expires::new(allowance, scope.unbind(), Signal::Default, None).preferring_learned())
}

/// A time and a scope as they were given: a str in the time's place is the scope.
pub(crate) fn time_and_scope<'a, 'py>(
    seconds: Option<&'a Bound<'py, PyAny>>,
    scope: Option<&'a Bound<'py, PyAny>>,
) -> (Option<&'a Bound<'py, PyAny>>, Option<&'a Bound<'py, PyAny>>) {
    match (seconds, scope) {
        (Some(name), None) if name.is_instance_of::<PyString>() => (None, Some(name)),
        given => given,
    }
}

impl Expires {
    /// A deadline that is not entered.
    pub(crate) fn new(
        allowance: Option<Duration>,
        scope: Py<PyString>,
        signal: Signal,
        meeting: Option<Meeting>,
    ) -> Expires {
        let (prefers_learned, entered) = (false, Entered::No);
        Expires { allowance, prefers_learned, scope, signal, meeting, entered }
    }

    /// The same, whose `allowance` counts only where the deadlines file gives the scope no time.
    pub(crate) fn preferring_learned(self) -> Expires {
        Expires { prefers_learned: true, ..self }
    }

    fn scope(&self, py: Python<'_>) -> PyResult<Option<Scope>> {
        match self.signal {
            Signal::Default => scope::named(self.scope.bind(py)),
            signal => scope::with_signal(self.scope.bind(py), signal),
        }
    }

    fn arm(&self, py: Python<'_>, scope: &Scope) -> PyResult<Result<Guard, AcquireError>> {
        let meeting = match &self.meeting {
            Some(meeting) => match meeting.begin(py)? {
                Some(begun) => Some(begun),
                None => return Ok(Err(AcquireError::NotArmed)), // attached anew just now
            },
            None => None,
        };
        if self.prefers_learned || self.allowance.is_none() {
            let learned = match meeting {
                Some((group, sequence)) => group.meeting_default(scope, sequence),
                None => scope.expires_default(),
            };
            let has_none = matches!(learned, Err(AcquireError::NoDeadline { .. }));
            if !has_none || self.allowance.is_none() {
                return Ok(learned);
            }
        }
        let allowance = self.allowance.unwrap_or_default();
        Ok(match meeting {
            Some((group, sequence)) => group.meeting(scope, sequence, allowance),
            None if scope.is_own() => scope.expires(allowance),
            None => return self.expires_by_name(py, allowance),
        })
    }

    /// Where the segment has no room for the scope's name, the name goes beside the timer.
    #[cold]
    fn expires_by_name(
        &self,
        py: Python<'_>,
        allowance: Duration,
    ) -> PyResult<Result<Guard, AcquireError>> {
        let Some(worker) = attachment::worker(py)? else {
            return Ok(Err(AcquireError::NotArmed)); // another thread attached anew just now
        };
        let worker = match self.signal {
            Signal::Default => worker,
            signal => worker.with_signal(signal),
        };
        let name = self.scope.bind(py).to_string_lossy();
        Ok(py.detach(|| worker.expires(&name, allowance)))
    }

    fn guard(&self, py: Python<'_>) -> PyResult<Option<&Guard>> {
        match &self.entered {
            Entered::Armed(guard) => Ok(Some(guard)),
            Entered::NoOp => Ok(None),
            Entered::No => Err(errors::exception(
                py,
                "NotArmedError",
                &"the deadline is not entered: it holds within its `with` block only",
            )),
        }
    }
}

#[pymethods]
impl Expires {
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let py = slf.py();
        let mut this = slf.try_borrow_mut()?;
        if !matches!(this.entered, Entered::No) {
            let message = "the deadline is entered already: call hangwatch.expires() anew for a \
                           block within its own block";
            return Err(errors::exception(py, "AcquireError", &message));
        }
        this.entered = match this.scope(py)? {
            None => Entered::NoOp,
            Some(scope) => {
                let armed = this.arm(py, &scope)?;
                let armed = attachment::unless_gone(py, armed)?;
                armed.iter().for_each(|guard| guard.note_task(task::current(py)));
                armed.map_or(Entered::NoOp, Entered::Armed)
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

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("hangwatch._wrap")?.call_method1("entered", (slf,))
    }

    #[pyo3(signature = (exc_type=None, exc_value=None, traceback=None, /))]
    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        exc_type: Option<&Bound<'py, PyAny>>,
        exc_value: Option<&Bound<'py, PyAny>>,
        traceback: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = (exc_type, exc_value, traceback);
        slf.py().import("hangwatch._wrap")?.call_method1("left", (slf,))
    }

    /// Decorate a function or a coroutine function: each call has the deadline.
    #[pyo3(signature = (function, /))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("hangwatch._wrap")?.call_method1("wrapped", (slf, function))
    }

    /// Another deadline like this one, not entered.
    fn _anew(&self, py: Python<'_>) -> Expires {
        let meeting = self.meeting.as_ref().map(|meeting| meeting.clone_ref(py));
        let prefers_learned = self.prefers_learned;
        let anew = Expires::new(self.allowance, self.scope.clone_ref(py), self.signal, meeting);
        Expires { prefers_learned, ..anew }
    }

    /// extend(seconds)
    ///
    /// Move the deadline on by *seconds* (a number or a timedelta).
    ///
    /// Raises:
    ///     ArgumentError: a time that is none.
    ///     NotArmedError: it is too late: the watchdog has acted; or the block is
    ///         not entered, or was entered by the parent of this forked process.
    ///
    /// Example:
    ///     >>> with hangwatch.expires(30) as deadline:
    ///     ...     deadline.extend(timedelta(minutes=1))
    fn extend(&self, py: Python<'_>, seconds: &Bound<'_, PyAny>) -> PyResult<()> {
        let by = time::allowance(seconds)?;
        let Some(guard) = self.guard(py)? else { return Ok(()) };
        guard.extend(by).map_err(|error| errors::acquire(py, &error))
    }

    /// release()
    ///
    /// End the deadline before its block does, and say how it ended: "in_time";
    /// "reported", after the deadline of a timer that signals nobody; "too_late",
    /// when the watchdog is removing this process already; "not_armed", when there
    /// was nothing to end.
    ///
    /// Example:
    ///     >>> with hangwatch.expires(30) as deadline:
    ///     ...     deadline.release()
    ///     'in_time'
    fn release(&mut self) -> &'static str {
        match std::mem::replace(&mut self.entered, Entered::No) {
            Entered::Armed(guard) => ending(guard.release()),
            Entered::NoOp | Entered::No => "not_armed",
        }
    }

    /// The seconds left; 0.0 when overdue, None when not armed.
    ///
    /// Example:
    ///     >>> with hangwatch.expires(30) as deadline:
    ///     ...     deadline.remaining
    ///     29.99...
    #[getter]
    fn remaining(&self) -> Option<f64> {
        match &self.entered {
            Entered::Armed(guard) => time::seconds(guard.remaining()),
            Entered::NoOp | Entered::No => None,
        }
    }

    /// The name the deadline is reported under.
    #[getter]
    fn scope_name<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        self.scope.bind(py).clone()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let scope = self.scope.bind(py).repr()?;
        let state = match self.remaining() {
            Some(left) => format!(", {left:.3} s left"),
            None => String::new(),
        };
        let seconds = self.allowance.map(|time| format!("{}, ", crate::time::in_seconds(time)));
        Ok(format!("<hangwatch.expires({}{scope}){state}>", seconds.unwrap_or_default()))
    }
}

/// How an acquire ended, for Python.
pub(crate) fn ending(released: Released) -> &'static str {
    match released {
        Released::InTime => "in_time",
        Released::Reported => "reported",
        Released::TooLate => "too_late",
        Released::NotArmed => "not_armed",
    }
}
