//! Which task of this thread runs now: asyncio's, Trio's or a greenlet. What tasks enter side by side is
//! not nested, though one thread has entered it all.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString};

/// A function of a module, once the program has imported that.
type Known = PyOnceLock<Py<PyAny>>;

static LOOP: Known = PyOnceLock::new();
static TASK: Known = PyOnceLock::new();
static TRIO: Known = PyOnceLock::new();
static GREENLET: Known = PyOnceLock::new();
static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
/// How many modules there were when they were last looked at: most programs have none of these, and no
/// import goes unseen for longer than until the next but one.
static SEEN: AtomicUsize = AtomicUsize::new(0);

/// The task that runs in this thread, by a number that no other task has at the time; 0 where none does.
pub(crate) fn current(py: Python<'_>) -> u32 {
    // What cannot be found out is told as no task.
    let _ = look_for_modules(py);
    asyncio(py).or_else(|| trio(py)).or_else(|| greenlet(py)).unwrap_or(0)
}

fn look_for_modules(py: Python<'_>) -> PyResult<()> {
    let modules = MODULES.get_or_try_init(py, || {
        PyResult::Ok(py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.unbind())
    })?;
    let modules = modules.bind(py);
    if SEEN.swap(modules.len(), Ordering::Relaxed) == modules.len() {
        return Ok(());
    }
    let find = |known: &Known, module: &Bound<'_, PyString>, name: &Bound<'_, PyString>| {
        if known.get(py).is_none()
            && let Ok(Some(module)) = modules.get_item(module)
            // One that is being imported may not have it yet.
            && let Ok(function) = module.getattr(name)
        {
            let _ = known.set(py, function.unbind());
        }
    };
    find(&LOOP, intern!(py, "asyncio.events"), intern!(py, "_get_running_loop"));
    find(&TASK, intern!(py, "asyncio.tasks"), intern!(py, "current_task"));
    find(&TRIO, intern!(py, "trio.lowlevel"), intern!(py, "current_task"));
    find(&GREENLET, intern!(py, "greenlet"), intern!(py, "getcurrent"));
    Ok(())
}

fn asyncio(py: Python<'_>) -> Option<u32> {
    let running = LOOP.get(py)?.call0(py).ok().filter(|running| !running.is_none(py))?;
    let task = TASK.get(py)?.call1(py, (running,)).ok()?;
    number(py, &task)
}

fn trio(py: Python<'_>) -> Option<u32> {
    number(py, &TRIO.get(py)?.call0(py).ok()?)
}

fn greenlet(py: Python<'_>) -> Option<u32> {
    let current = GREENLET.get(py)?.call0(py).ok()?;
    // The main one is the thread itself.
    let parent = current.getattr(py, intern!(py, "parent")).ok()?;
    if parent.is_none(py) { None } else { number(py, &current) }
}

/// Two objects that live have two addresses, objects stand at multiples of 16, and what is above these
/// 36 bits is alike for all.
#[expect(clippy::cast_possible_truncation, reason = "the lower bits tell them apart")]
fn number(py: Python<'_>, task: &Py<PyAny>) -> Option<u32> {
    (!task.is_none(py)).then(|| ((task.as_ptr().addr() >> 4) as u32).max(1))
}
