//! What fails, as the exceptions of `hangwatch/_errors.py`.

use std::fmt::Display;

use hangwatch::sys::file;
use hangwatch::{AcquireError, AttachError, CreateError, OpenError};
use hangwatch_server::ServeError;
use pyo3::prelude::*;

/// An exception of `hangwatch/_errors.py` that says `message`.
///
/// Looked up each time it is needed, so that an interpreter that is shutting down answers with an
/// `ImportError` at worst.
pub(crate) fn exception(py: Python<'_>, class: &str, message: &dyn Display) -> PyErr {
    let made = py
        .import("hangwatch._errors")
        .and_then(|errors| errors.getattr(class))
        .and_then(|class| class.call1((message.to_string(),)));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// A value that no deadline can have.
pub(crate) fn argument(py: Python<'_>, message: &dyn Display) -> PyErr {
    exception(py, "ArgumentError", message)
}

pub(crate) fn open(py: Python<'_>, error: &OpenError) -> PyErr {
    let class = if is_missing(error) { "NoSegmentError" } else { "AttachError" };
    exception(py, class, error)
}

/// Whether there simply is no segment, named or made.
pub(crate) fn is_missing(error: &OpenError) -> bool {
    let not_found = |error: &file::OpenError| matches!(error, file::OpenError::NotFound { .. });
    match error {
        OpenError::Unnamed => true,
        OpenError::File { source, .. } => not_found(source),
        _ => false,
    }
}

pub(crate) fn attach(py: Python<'_>, error: &AttachError) -> PyErr {
    match error {
        AttachError::Open(error) => open(py, error),
        other => exception(py, "AttachError", other),
    }
}

pub(crate) fn acquire(py: Python<'_>, error: &AcquireError) -> PyErr {
    let class = match error {
        AcquireError::Attach(error) => return attach(py, error),
        AcquireError::Zero | AcquireError::Absurd { .. } | AcquireError::EmptyScope => {
            "ArgumentError"
        }
        AcquireError::NotArmed => "NotArmedError",
        _ => "AcquireError",
    };
    exception(py, class, error)
}

pub(crate) fn create(py: Python<'_>, error: &CreateError) -> PyErr {
    exception(py, "SegmentError", error)
}

pub(crate) fn remove(py: Python<'_>, error: &file::RemoveError) -> PyErr {
    exception(py, "SegmentError", error)
}

pub(crate) fn serve(py: Python<'_>, error: &ServeError) -> PyErr {
    exception(py, "ServeError", error)
}
