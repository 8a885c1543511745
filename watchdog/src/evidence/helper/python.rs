//! Python stacks, by `py-spy`: read from the interpreter's memory, whoever holds its lock.

use py_spy::config::{Config, LockingStrategy};
use py_spy::{PythonSpy, StackTrace};

use super::target::Target;
use super::teller::Why;
use crate::evidence::piece::PythonStack;
use crate::incident::schema::Frame;

/// Frames of a stack at most.
const FRAMES: usize = 256;

/// Finds the interpreter in the worker; `None` where it has none.
pub(super) fn find(target: &Target) -> Result<Option<PythonSpy>, Why> {
    if !has_python(target)? {
        return Ok(None);
    }
    let config = Config {
        // Nobody but the stop stops the worker: py-spy would with PTRACE_ATTACH.
        blocking: LockingStrategy::AlreadyLocked,
        native: false,
        dump_locals: 0,
        full_filenames: true,
        ..Config::default()
    };
    let found = PythonSpy::new(target.tid.cast_signed(), &config);
    found.map(Some).map_err(|error| format!("its interpreter could not be read: {error:#}"))
}

/// The stack of each thread that the interpreter knows.
pub(super) fn stacks(spy: &mut PythonSpy) -> Result<Vec<PythonStack>, Why> {
    let traces = spy.get_stack_traces();
    let traces = traces.map_err(|error| format!("its interpreter could not be read: {error:#}"))?;
    Ok(traces.into_iter().map(stack).collect())
}

/// Whether an interpreter is mapped: as a library, or as a program called after it.
fn has_python(target: &Target) -> Result<bool, Why> {
    let is_python = |name: &str| {
        let name = name.trim_end_matches(" (deleted)");
        name.starts_with("libpython") || name.starts_with("python")
    };
    Ok(target.maps()?.into_iter().any(|map| match map.pathname {
        procfs::process::MMapPath::Path(path) => {
            map.perms.contains(procfs::process::MMPermissions::EXECUTE)
                && path.file_name().is_some_and(|name| is_python(&name.to_string_lossy()))
        }
        _ => false,
    }))
}

fn stack(trace: StackTrace) -> PythonStack {
    let frame = |frame: py_spy::Frame| Frame {
        function: frame.name,
        file: Some(frame.filename),
        line: u32::try_from(frame.line).ok().filter(|&line| line > 0),
        module: None,
    };
    PythonStack {
        inner_tid: trace.os_thread_id.and_then(|tid| u32::try_from(tid).ok()),
        name: trace.thread_name,
        holds_gil: trace.owns_gil,
        frames: trace.frames.into_iter().take(FRAMES).map(frame).collect(),
    }
}
