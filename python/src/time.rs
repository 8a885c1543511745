//! Times and signals as Python gives them: seconds as a number, or a `timedelta`.

use std::time::Duration;

use hangwatch::{MAX_TIMEOUT, Signal};
use hangwatch_cli::cli::value::reap_signal;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDeltaAccess, PyFloat, PyInt, PyString};

use crate::errors;

const SECOND_NS: i128 = 1_000_000_000;

/// How long a scope may take: more than nothing, ten years at most, rounded up to a nanosecond.
#[inline]
pub(crate) fn allowance(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    if value.is_exact_instance_of::<PyInt>() {
        // An integer too great for 64 bits is absurd like any other too great.
        let seconds: Option<i64> = value.extract().ok();
        return seconds.and_then(from_whole_seconds).ok_or_else(|| absurd(value));
    }
    if value.is_exact_instance_of::<PyFloat>() {
        return from_seconds(value.extract()?).ok_or_else(|| absurd(value));
    }
    other_allowance(value)
}

/// A `timedelta`, or what can be made a number.
#[cold]
fn other_allowance(value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    if let Ok(delta) = value.cast::<PyDelta>() {
        let seconds = i128::from(delta.get_days()) * 86_400 + i128::from(delta.get_seconds());
        let ns = seconds * SECOND_NS + i128::from(delta.get_microseconds()) * 1_000;
        let time = u64::try_from(ns).ok().map(Duration::from_nanos);
        let time = time.filter(|time| !time.is_zero() && *time <= MAX_TIMEOUT);
        return time.ok_or_else(|| absurd(value));
    }
    if value.is_instance_of::<PyBool>() {
        return Err(not_a_time(value));
    }
    match value.extract() {
        Ok(seconds) => from_seconds(seconds).ok_or_else(|| absurd(value)),
        Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => Err(not_a_time(value)),
        Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => Err(absurd(value)),
        Err(error) => Err(error),
    }
}

fn from_whole_seconds(seconds: i64) -> Option<Duration> {
    let time = Duration::from_secs(u64::try_from(seconds).ok()?);
    (!time.is_zero() && time <= MAX_TIMEOUT).then_some(time)
}

/// `None` where it is not a number, nothing, negative or beyond all bounds.
#[expect(clippy::cast_sign_loss, reason = "checked to be positive")]
fn from_seconds(seconds: f64) -> Option<Duration> {
    let bound = MAX_TIMEOUT.as_secs_f64();
    (seconds > 0.0 && seconds <= bound).then(|| Duration::from_nanos((seconds * 1e9).ceil() as u64))
}

fn absurd(value: &Bound<'_, PyAny>) -> PyErr {
    let given = value.str().map_or_else(|_| "that".to_owned(), |text| text.to_string());
    let message = format!(
        "{given} is no deadline: give seconds greater than 0 and at most ten years ({}), as a \
         number or a timedelta",
        MAX_TIMEOUT.as_secs()
    );
    errors::argument(value.py(), &message)
}

fn not_a_time(value: &Bound<'_, PyAny>) -> PyErr {
    let class = value.get_type();
    PyTypeError::new_err(format!("a deadline is seconds as a number, or a timedelta, not {class}"))
}

/// The signal of a timer: `None` is the watchdog's, 0 or "none" no signal (it is reported only); else
/// what the command line takes, too: 1 to 64, or a name.
pub(crate) fn signal(py: Python<'_>, given: Option<&Bound<'_, PyAny>>) -> PyResult<Signal> {
    let Some(given) = given else { return Ok(Signal::Default) };
    let is_text = given.is_instance_of::<PyString>();
    if !is_text && !given.is_instance_of::<PyInt>() {
        let class = given.get_type();
        return Err(PyTypeError::new_err(format!(
            "a signal is an int, a str or None, not {class}"
        )));
    }
    // By its value: the name of a signal.Signals is none to everybody.
    let text =
        if is_text { given.to_string() } else { given.call_method0("__index__")?.to_string() };
    if !is_text && text == "0" {
        return Ok(Signal::NotifyOnly);
    }
    match reap_signal(&text) {
        Ok(signal) => signal
            .number()
            .map_or(Ok(Signal::NotifyOnly), Signal::number)
            .map_err(|why| errors::argument(py, &why.to_string())),
        Err(why) => Err(errors::argument(py, &format!("{text:?} {why}"))),
    }
}

/// Seconds for Python.
pub(crate) fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(in_seconds)
}

/// A duration as seconds for Python: the float next to it, of which Python shows no more digits than it has.
#[expect(clippy::cast_precision_loss, reason = "a float has microseconds for a century")]
pub(crate) fn in_seconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e9
}

/// Nanoseconds as seconds for Python.
#[expect(clippy::cast_precision_loss, reason = "a float has microseconds for a century")]
pub(crate) fn ns_to_seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}
