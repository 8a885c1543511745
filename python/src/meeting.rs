//! `hangwatch.Group` and `hangwatch.meeting`: deadlines of what the ranks of a group do together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hangwatch::AcquireError;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::expires::Expires;
use crate::{attachment, errors, scope, time};

/// Group(name, members=None)
///
/// The ranks that meet in a collective or barrier.
///
/// Each member gives the same meeting the same sequence number, so that the watchdog
/// knows which rank the others wait for: the one that has not entered the meeting
/// they are in. Ranks are those of attach(), or of the launcher's environment.
///
/// Args:
///     name: what the group is called in reports.
///     members: the ranks that take part, in any order; None: all ranks of the job.
///
/// Raises:
///     ArgumentError: an empty name.
///
/// Example:
///     >>> group = hangwatch.Group("data parallel", range(0, 8, 2))
///     >>> with group.meeting("all_reduce", seconds=600):
///     ...     dist.all_reduce(gradient)
#[pyclass(module = "hangwatch", frozen)]
pub(crate) struct Group {
    name: Py<PyString>,
    members: Vec<u32>,
    /// Meetings that were entered without a number of the caller's.
    counted: AtomicU64,
    /// The group in the segment, and the attach it was found by.
    interned: Mutex<Option<(u64, hangwatch::Group)>>,
}

/// The meeting that a deadline is of.
pub(crate) struct Meeting {
    pub(crate) group: Py<Group>,
    /// `None`: the group counts.
    pub(crate) sequence: Option<u64>,
}

impl Meeting {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Meeting {
        Meeting { group: self.group.clone_ref(py), sequence: self.sequence }
    }

    /// The group in the segment, and the number of the meeting that is entered now. `None` where
    /// deadlines are no-ops.
    pub(crate) fn begin(&self, py: Python<'_>) -> PyResult<Option<(hangwatch::Group, u64)>> {
        let group = self.group.get();
        // Relaxed: whoever counts holds the interpreter's lock.
        let counted = || group.counted.fetch_add(1, Ordering::Relaxed) + 1;
        let sequence = self.sequence.unwrap_or_else(counted);
        Ok(group.interned(py)?.map(|group| (group, sequence)))
    }
}

impl Group {
    fn interned(&self, py: Python<'_>) -> PyResult<Option<hangwatch::Group>> {
        let epoch = attachment::epoch();
        let known = *self.interned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, group)) = known
            && of == epoch
        {
            return Ok(Some(group));
        }
        let Some(worker) = attachment::worker(py)? else { return Ok(None) };
        let name = self.name.bind(py).to_string_lossy();
        let group = py.detach(|| worker.group(&name, &self.members));
        let group = attachment::unless_gone(py, group)?;
        if let Some(group) = group {
            // Read again: the first use attaches.
            let known = Some((attachment::epoch(), group));
            *self.interned.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
        Ok(group)
    }
}

#[pymethods]
impl Group {
    #[new]
    #[pyo3(signature = (name, members=None))]
    fn new(
        py: Python<'_>,
        name: Bound<'_, PyString>,
        members: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Group> {
        if name.len()? == 0 {
            return Err(errors::argument(py, &AcquireError::EmptyScope));
        }
        let (counted, interned) = (AtomicU64::new(0), Mutex::new(None));
        let members = members.map(ranks).transpose()?.unwrap_or_default();
        Ok(Group { name: name.unbind(), members, counted, interned })
    }

    /// meeting(name, sequence=None, seconds=None, *, signal=None)
    ///
    /// Give a block in which the group meets a deadline.
    ///
    /// Args:
    ///     name: what the group does there: the scope it is reported under.
    ///     sequence: the meeting's number in the group, the same at all members and
    ///         growing; None: each block that is entered without a number gets the
    ///         next one, from 1.
    ///     seconds: as in expires().
    ///     signal: as in expires().
    ///
    /// Raises:
    ///     ArgumentError, NoSegmentError, AttachError, AcquireError: as expires().
    ///     OverflowError: a sequence that is negative or needs more than 64 bits.
    ///
    /// Example:
    ///     >>> with group.meeting("all_reduce", 9, seconds=600):
    ///     ...     dist.all_reduce(gradient)
    #[pyo3(signature = (name, sequence=None, seconds=None, *, signal=None))]
    fn meeting(
        slf: Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        sequence: Option<u64>,
        seconds: Option<&Bound<'_, PyAny>>,
        signal: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Expires> {
        let py = slf.py();
        let meeting = Meeting { group: slf.unbind(), sequence };
        let scope = scope::given_or_caller(py, Some(name))?;
        let allowance = seconds.map(time::allowance).transpose()?;
        Ok(Expires::new(allowance, scope.unbind(), time::signal(py, signal)?, Some(meeting)))
    }

    /// As meeting(), with the time that the watchdog's deadlines file gives the scope when it is
    /// entered, or with *seconds* where the file gives none.
    #[pyo3(signature = (name, sequence, seconds))]
    fn _meeting_by_default(
        slf: Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        sequence: Option<u64>,
        seconds: &Bound<'_, PyAny>,
    ) -> PyResult<Expires> {
        Ok(Group::meeting(slf, name, sequence, Some(seconds), None)?.preferring_learned())
    }

    /// The name of the group.
    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        self.name.bind(py).clone()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (name, count) = (self.name.bind(py).repr()?, self.members.len());
        Ok(match count {
            0 => format!("<hangwatch.Group({name}, all ranks)>"),
            _ => format!("<hangwatch.Group({name}, {count} ranks)>"),
        })
    }
}

/// meeting(name, group, members, sequence, seconds=None, *, signal=None)
///
/// Give a block in which the ranks of a group wait for each other a deadline.
///
/// As expires(), for a collective or barrier: with `--cascade`, the watchdog removes the
/// rank that has not entered the meeting in which the others wait, and spares them.
/// Who meets often makes a Group once, which takes less time.
///
/// Args:
///     name: what the group does there: the scope it is reported under.
///     group: the group's name.
///     members: the ranks that take part, in any order; None: all ranks of the job.
///     sequence: the meeting's number in the group, the same at all members and
///         growing.
///     seconds: as in expires().
///     signal: as in expires().
///
/// Raises:
///     ArgumentError, NoSegmentError, AttachError, AcquireError: as expires().
///     OverflowError: a sequence that is negative or needs more than 64 bits.
///
/// Example:
///     >>> with hangwatch.meeting("barrier", "world", None, step, seconds=600):
///     ...     dist.barrier()
#[pyfunction]
#[pyo3(signature = (name, group, members, sequence, seconds=None, *, signal=None))]
pub(crate) fn meeting(
    py: Python<'_>,
    name: &Bound<'_, PyAny>,
    group: Bound<'_, PyString>,
    members: Option<&Bound<'_, PyAny>>,
    sequence: u64,
    seconds: Option<&Bound<'_, PyAny>>,
    signal: Option<&Bound<'_, PyAny>>,
) -> PyResult<Expires> {
    let group = Bound::new(py, Group::new(py, group, members)?)?;
    Group::meeting(group, name, Some(sequence), seconds, signal)
}

/// The ranks in any iterable.
fn ranks(members: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let members = members.try_iter().map_err(|_| {
        PyTypeError::new_err(format!("members are ranks, or None, not {}", members.get_type()))
    })?;
    let ranks: PyResult<Vec<u32>> = members.map(|rank| rank?.extract()).collect();
    match ranks {
        Ok(ranks) if ranks.is_empty() => {
            Err(PyValueError::new_err("a group has members; None stands for all ranks"))
        }
        ranks => ranks,
    }
}
