//! `hangwatch.observe`: a picture of a segment, as dictionaries; hangwatch/_observe.py makes its
//! dataclasses of them.

use hangwatch::sys::lock::Holder;
use hangwatch::{ClockKind, Condemned, LaneView, Observation, ScopeView, Segment, TimerView};
use hangwatch_core::wire::lane::{LaneState, TimerKind, TimerSignal};
use hangwatch_core::wire::stats::{BUCKETS, bucket_begins_ns};
use hangwatch_core::wire::timer::TimerState;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::time::ns_to_seconds;
use crate::{errors, segments};

/// A picture of the segment `name`, or of `$HANGWATCH_SEGMENT`'s.
#[pyfunction]
#[pyo3(signature = (name))]
pub(crate) fn observe(py: Python<'_>, name: Option<String>) -> PyResult<Bound<'_, PyDict>> {
    let name =
        Segment::name_or_environment(name.as_deref()).map_err(|error| errors::open(py, &error))?;
    let seen = segments::looking(py, || Segment::observe(&name));
    let seen = seen.map_err(|error| errors::open(py, &error))?;
    observation(py, &seen)
}

/// The timers of this process that the watchdog has condemned, the longest overdue first.
#[pyfunction]
pub(crate) fn condemned(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyDict>>> {
    let found =
        segments::looking(py, Segment::condemned).map_err(|error| errors::open(py, &error))?;
    found.iter().map(|timer| condemned_timer(py, timer)).collect()
}

fn condemned_timer<'py>(py: Python<'py>, timer: &Condemned) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("acquire", (&timer.segment, timer.lane, timer.timer, timer.acquired_at.0))?;
    dict.set_item("scope", &timer.scope)?;
    dict.set_item("thread", &timer.thread)?;
    dict.set_item("allowance", crate::time::in_seconds(timer.timeout))?;
    Ok(dict)
}

fn seconds(ns: u64) -> f64 {
    ns_to_seconds(ns.cast_signed())
}

fn observation<'py>(py: Python<'py>, seen: &Observation) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("segment", &seen.segment)?;
    dict.set_item("at", seconds(seen.at.0))?;
    let watchdog_pid = match seen.watchdog.holder {
        Holder::Process(pid) => Some(pid.as_raw_pid()),
        Holder::Free | Holder::Unseen | Holder::Description => None,
    };
    dict.set_item("watched", seen.watchdog.holder != Holder::Free)?;
    dict.set_item("watchdog_pid", watchdog_pid)?;
    let last_tick = seen.watchdog.last_tick_at.0;
    dict.set_item("last_tick_at", (last_tick > 0).then(|| seconds(last_tick)))?;
    dict.set_item("braked", seen.watchdog.limited)?;
    let lanes: PyResult<Vec<_>> = seen.lanes.iter().map(|view| lane(py, view)).collect();
    dict.set_item("lanes", lanes?)?;
    dict.set_item("lane_count", seen.lane_count)?;
    let scopes: PyResult<Vec<_>> = seen.scopes.iter().map(|view| scope(py, view)).collect();
    dict.set_item("scopes", scopes?)?;
    dict.set_item("scopes_overflowed", seen.scopes_overflowed)?;
    let counters = PyDict::new(py);
    for (name, count) in &seen.counters {
        counters.set_item(name, count)?;
    }
    dict.set_item("counters", counters)?;
    Ok(dict)
}

fn lane<'py>(py: Python<'py>, view: &LaneView) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("lane", view.lane)?;
    dict.set_item("pid", view.pid)?;
    dict.set_item("tid", view.tid)?;
    let state = match view.state {
        Some(LaneState::Free) => "free",
        Some(LaneState::Claimed) => "claimed",
        Some(LaneState::Attached) => "attached",
        Some(LaneState::Detached) => "detached",
        Some(LaneState::Recycling) => "recycling",
        None => "invalid",
    };
    dict.set_item("state", state)?;
    dict.set_item("quarantined", view.quarantined)?;
    dict.set_item("thread", &view.thread)?;
    dict.set_item("job", &view.job)?;
    dict.set_item("host", &view.host)?;
    dict.set_item("rank", view.rank)?;
    dict.set_item("world_size", (view.world_size > 0).then_some(view.world_size))?;
    dict.set_item("local_rank", view.local_rank)?;
    let clock = match view.clock {
        ClockKind::Counter => "counter",
        ClockKind::System => "system",
        ClockKind::Coarse => "coarse",
    };
    dict.set_item("clock", clock)?;
    dict.set_item("attached_at", seconds(view.attached_at.0))?;
    dict.set_item("records", view.records)?;
    let timers: PyResult<Vec<_>> = view.timers.iter().map(|view| timer(py, view)).collect();
    dict.set_item("timers", timers?)?;
    Ok(dict)
}

fn timer<'py>(py: Python<'py>, view: &TimerView) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("timer", view.timer)?;
    let state = match view.state {
        TimerState::Idle => "idle",
        TimerState::Armed => "armed",
        TimerState::Reported => "reported",
        TimerState::Paused => "paused",
        TimerState::Condemned => "condemned",
        TimerState::Limited => "braked",
    };
    dict.set_item("state", state)?;
    dict.set_item("scope", &view.scope)?;
    let kind = match view.kind {
        TimerKind::Guard => "guard",
        TimerKind::Keyed => "keyed",
        TimerKind::Heartbeat => "heartbeat",
    };
    dict.set_item("kind", kind)?;
    let signal = match view.signal {
        TimerSignal::Default => None,
        TimerSignal::NotifyOnly => Some(0),
        TimerSignal::Signal(number) => Some(number),
    };
    dict.set_item("signal", signal)?;
    dict.set_item("age", crate::time::in_seconds(view.age))?;
    dict.set_item("allowance", crate::time::in_seconds(view.timeout))?;
    dict.set_item("left", view.left_ns.map(ns_to_seconds))?;
    dict.set_item("group", view.meeting.as_ref().map(|meeting| &meeting.group))?;
    dict.set_item("sequence", view.meeting.as_ref().map(|meeting| meeting.sequence))?;
    Ok(dict)
}

fn scope<'py>(py: Python<'py>, view: &ScopeView) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let counts = &view.counts;
    dict.set_item("name", &view.name)?;
    dict.set_item("acquired", counts.acquired)?;
    dict.set_item("released", counts.released())?;
    dict.set_item("reported", counts.reported)?;
    dict.set_item("condemned", counts.condemned)?;
    dict.set_item("abandoned", counts.abandoned)?;
    dict.set_item("rearmed", counts.rearmed)?;
    dict.set_item("total", seconds(counts.sum_ns))?;
    dict.set_item("longest", seconds(counts.max_ns))?;
    let durations: Vec<(f64, u64)> = (0..BUCKETS)
        .filter(|bucket| counts.buckets[*bucket] > 0)
        .map(|bucket| (seconds(bucket_begins_ns(bucket)), counts.buckets[bucket]))
        .collect();
    dict.set_item("durations", durations)?;
    Ok(dict)
}
