//! Times and signals as Python gives them: seconds as a number, or a `timedelta`.

use std::time::Duration;

use hangwatch::{MAX_ALLOWANCE, Signal};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyFloat, PyInt};

use crate::errors;

const SECOND_NS: i128 = 1_000_000_000;

/// How long a scope may take: more than nothing, ten years at most, rounded up to a nanosecond.
pub(crate) fn allowance(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let py = value.py();
    if let Ok(delta) = value.cast::<PyDelta>() {
        let seconds = i128::from(delta.get_days()) * 86_400 + i128::from(delta.get_seconds());
        let ns = seconds * SECOND_NS + i128::from(delta.get_microseconds()) * 1_000;
        return match u64::try_from(ns) {
            Ok(ns) if ns > 0 && Duration::from_nanos(ns) <= MAX_ALLOWANCE => {
                Ok(Duration::from_nanos(ns))
            }
            _ => Err(absurd(value)),
        };
    }
    let is_number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    let seconds: Result<f64, PyErr> = value.extract();
    match seconds {
        Ok(_) if value.is_instance_of::<PyBool>() => Err(not_a_time(value)),
        Ok(seconds) => from_seconds(seconds).ok_or_else(|| absurd(value)),
        // An integer too great for a float.
        Err(_) if is_number => Err(absurd(value)),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Err(not_a_time(value)),
        Err(error) => Err(error),
    }
}

/// `None` where it is not a number, nothing, negative or beyond all bounds.
#[expect(clippy::cast_sign_loss, reason = "checked to be positive")]
fn from_seconds(seconds: f64) -> Option<Duration> {
    let bound = MAX_ALLOWANCE.as_secs_f64();
    (seconds > 0.0 && seconds <= bound).then(|| Duration::from_nanos((seconds * 1e9).ceil() as u64))
}

fn absurd(value: &Bound<'_, PyAny>) -> PyErr {
    let given = value.str().map_or_else(|_| "that".to_owned(), |text| text.to_string());
    let message = format!(
        "{given} is no deadline: give seconds greater than 0 and at most ten years ({}), as a \
         number or a timedelta",
        MAX_ALLOWANCE.as_secs()
    );
    errors::argument(value.py(), &message)
}

fn not_a_time(value: &Bound<'_, PyAny>) -> PyErr {
    let class = value.get_type();
    PyTypeError::new_err(format!("a deadline is seconds as a number, or a timedelta, not {class}"))
}

/// The signal of a timer: `None` is the watchdog's, 0 none (it is reported only).
pub(crate) fn signal(py: Python<'_>, signal: Option<i64>) -> PyResult<Signal> {
    match signal {
        None => Ok(Signal::Default),
        Some(0) => Ok(Signal::NotifyOnly),
        Some(number @ 1..=64) => Ok(Signal::Number(number.unsigned_abs() as u8)),
        Some(other) => {
            let message = format!("{other} is no signal: give 1 to 64, or 0 to be reported only");
            Err(errors::argument(py, &message))
        }
    }
}

/// Seconds for Python.
pub(crate) fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

/// Nanoseconds as seconds for Python.
#[expect(clippy::cast_precision_loss, reason = "a float has microseconds for a century")]
pub(crate) fn ns_to_seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}
