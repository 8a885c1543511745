//! Scopes by their Python strings: interned once a thread, found again by the string's bytes.

use std::cell::RefCell;

use hangwatch::{Scope, Signal};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use crate::{attachment, errors};

/// Names a thread finds again without asking: a program has few, and they are literals.
const KNOWN: usize = 128;

thread_local! {
    static NAMES: RefCell<[Option<Known>; KNOWN]> = const { RefCell::new([const { None }; KNOWN]) };
}

struct Known {
    epoch: u64,
    name: Box<str>,
    /// `None`: there is no segment, and none is required.
    scope: Option<Scope>,
}

/// The scope called `name` of the process's worker; `None` where deadlines are no-ops.
#[inline]
pub(crate) fn named(name: &Bound<'_, PyString>) -> PyResult<Option<Scope>> {
    let py = name.py();
    // A surrogate (a file name that is not UTF-8) costs no deadline.
    let Ok(text) = name.to_str() else { return look_up(py, &name.to_string_lossy()) };
    let place = (text.as_ptr() as usize >> 4) % KNOWN;
    let known = NAMES.try_with(|names| {
        let names = names.borrow();
        let known = names[place].as_ref()?;
        (known.epoch == attachment::epoch() && *known.name == *text).then_some(known.scope)
    });
    match known {
        Ok(Some(scope)) => Ok(scope),
        _ => intern(py, text, place),
    }
}

#[cold]
fn intern(py: Python<'_>, text: &str, place: usize) -> PyResult<Option<Scope>> {
    let scope = look_up(py, text)?;
    if scope.is_none() {
        return Ok(None); // a segment that is gone is looked for again
    }
    let known = Known { epoch: attachment::epoch(), name: text.into(), scope };
    // A thread that is ending remembers nothing.
    let _ = NAMES.try_with(|names| names.borrow_mut()[place] = Some(known));
    Ok(scope)
}

fn look_up(py: Python<'_>, text: &str) -> PyResult<Option<Scope>> {
    let Some(worker) = attachment::worker(py)? else { return Ok(None) };
    let scope = py.detach(|| worker.scope(text));
    attachment::unless_gone(py, scope)
}

/// The scope called `name` with a signal other than the worker's.
pub(crate) fn with_signal(name: &Bound<'_, PyString>, signal: Signal) -> PyResult<Option<Scope>> {
    let py = name.py();
    let Some(worker) = attachment::worker(py)? else { return Ok(None) };
    let text = name.to_string_lossy();
    let scope = py.detach(|| worker.with_signal(signal).scope(&text));
    attachment::unless_gone(py, scope)
}

/// What a caller gave as a scope, or `file#line` of the Python code that called.
pub(crate) fn given_or_caller<'py>(
    py: Python<'py>,
    scope: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyString>> {
    let Some(scope) = scope else { return caller(py) };
    let Ok(scope) = scope.cast::<PyString>() else {
        let class = scope.get_type();
        return Err(PyTypeError::new_err(format!("a scope is a str, or None, not {class}")));
    };
    if scope.len()? == 0 {
        return Err(errors::argument(py, &hangwatch::AcquireError::EmptyScope));
    }
    Ok(scope.clone())
}

fn caller(py: Python<'_>) -> PyResult<Bound<'_, PyString>> {
    static GET_FRAME: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let get_frame = GET_FRAME
        .get_or_try_init(py, || PyResult::Ok(py.import("sys")?.getattr("_getframe")?.unbind()))?;
    let frame = match get_frame.call0(py) {
        Ok(frame) => frame.into_bound(py),
        // Called from no Python code at all.
        Err(_) => return Ok(PyString::new(py, "(no frame)")),
    };
    let file = frame.getattr("f_code")?.getattr("co_filename")?;
    let line: u32 = frame.getattr("f_lineno")?.extract()?;
    Ok(PyString::new(py, &format!("{}#{line}", file.str()?.to_string_lossy())))
}
