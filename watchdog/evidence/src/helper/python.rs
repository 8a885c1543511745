//! Python stacks, by `py-spy`: read from the interpreter's memory, whoever holds its lock.

use std::fmt::Display;
use std::panic::catch_unwind;
use std::time::Duration;

use py_spy::config::{Config, LockingStrategy};
use py_spy::{PythonSpy, StackTrace};

use super::modules::Modules;
use super::privileges;
use super::target::Target;
use super::teller::Why;
use crate::piece::PythonStack;
use hangwatch_incident::schema::Frame;

/// Frames of a stack at most.
const FRAMES: usize = 256;

/// Finds the interpreter in the worker, within `most`; `None` where it has none.
///
/// `py-spy` opens the interpreter's library by its name. So that is looked at first, and what opens it is a
/// thread that nobody waits for longer: a name that means something else by then costs the Python stacks
/// and no others.
pub(super) fn find(
    target: &Target,
    modules: &Modules,
    most: Duration,
) -> Result<Option<PythonSpy>, Why> {
    if !has_python(modules) {
        return Ok(None);
    }
    if let Some(why) = modules.left_out() {
        return Err(why); // py-spy reads all of it
    }
    if let Some(path) = modules.replaced_library() {
        let path = path.display();
        return Err(format!(
            "its interpreter's library {path} is no regular file: it was removed or replaced"
        ));
    }
    let pid = target.tid.cast_signed();
    let (tell, told) = std::sync::mpsc::channel();
    let find = move || {
        let config = Config {
            // Nobody but the stop stops the worker: py-spy would with PTRACE_ATTACH.
            blocking: LockingStrategy::AlreadyLocked,
            native: false,
            dump_locals: 0,
            full_filenames: true,
            ..Config::default()
        };
        let found = catch_unwind(|| PythonSpy::new(pid, &config));
        let _ = tell.send(found); // nobody waits any more
    };
    let spawned = std::thread::Builder::new().spawn(find);
    spawned.map_err(|error| format!("no thread to look for its interpreter: {error}"))?;
    match told.recv_timeout(most) {
        Ok(Ok(found)) => found.map(Some).map_err(|error| unreadable(target, &error)),
        Ok(Err(_)) => Err("hangwatch failed over its interpreter".to_owned()),
        Err(_) => {
            Err("too slow: its interpreter was not found in its share of the time".to_owned())
        }
    }
}

/// Why `py-spy` could not read an interpreter.
fn unreadable(target: &Target, error: &dyn Display) -> Why {
    if privileges::may_read(target.tid) {
        return format!("its interpreter could not be read: {error:#}");
    }
    "not captured: the worker's own user may not read its memory, and nobody else parses it: it is not \
     dumpable (PR_SET_DUMPABLE), it is in another user namespace, or kernel.yama.ptrace_scope or another \
     security module forbids it"
        .to_owned()
}

/// A Python stack, and the C library's name for its thread (`pthread_self`).
pub(super) struct Found {
    pub(super) stack: PythonStack,
    pub(super) pthread: u64,
}

/// Finds each stack's thread where the interpreter does not say it: before 3.11 it knows only the C
/// library's name for a thread, which on x86-64 is where its thread-local memory begins.
pub(super) fn with_threads(
    found: Vec<Found>,
    bases: &[(u32, Option<u64>)],
    tids: &Inner,
) -> Vec<PythonStack> {
    let tid_of = |pthread: u64| {
        if let ([_], Some(only)) = (&found[..], tids.keys().next().filter(|_| tids.len() == 1)) {
            return Some(*only);
        }
        let mut same = bases.iter().filter(|(_, base)| *base == Some(pthread));
        // Bases are set by the threads themselves: of two that say the same, neither is believed.
        same.next().filter(|_| same.next().is_none()).map(|(tid, _)| *tid)
    };
    let tids: Vec<Option<u32>> =
        found.iter().map(|found| tids.get(&tid_of(found.pthread)?).copied()).collect();
    found
        .into_iter()
        .zip(tids)
        .map(|(Found { stack, .. }, tid)| {
            let inner_tid = stack.inner_tid.or(tid);
            PythonStack { inner_tid, ..stack }
        })
        .collect()
}

/// The id of each thread in its own PID namespace, by its id here.
pub(super) type Inner = std::collections::HashMap<u32, u32>;

/// The stack of each thread that the interpreter knows.
pub(super) fn stacks(spy: &mut PythonSpy) -> Result<Vec<Found>, Why> {
    let traces = spy.get_stack_traces();
    let traces = traces.map_err(|error| format!("its interpreter could not be read: {error:#}"))?;
    Ok(traces.into_iter().map(stack).collect())
}

/// Whether an interpreter is mapped: as a library, or as a program called after it.
fn has_python(modules: &Modules) -> bool {
    let is_python = |name: &str| {
        let name = name.trim_end_matches(" (deleted)");
        name.starts_with("libpython") || name.starts_with("python")
    };
    modules
        .code_paths()
        .any(|path| path.file_name().is_some_and(|name| is_python(&name.to_string_lossy())))
}

fn stack(trace: StackTrace) -> Found {
    let frame = |frame: py_spy::Frame| Frame {
        function: frame.name,
        file: Some(frame.filename),
        line: u32::try_from(frame.line).ok().filter(|&line| line > 0),
        module: None,
    };
    let pthread = trace.thread_id;
    let stack = PythonStack {
        inner_tid: trace.os_thread_id.and_then(|tid| u32::try_from(tid).ok()),
        name: trace.thread_name,
        holds_gil: trace.owns_gil,
        frames: trace.frames.into_iter().take(FRAMES).map(frame).collect(),
    };
    Found { stack, pthread }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(inner_tid: Option<u32>, pthread: u64) -> Found {
        let stack = PythonStack { inner_tid, name: None, holds_gil: false, frames: Vec::new() };
        Found { stack, pthread }
    }

    fn threads(found: Vec<Found>, bases: &[(u32, Option<u64>)], tids: &[(u32, u32)]) -> Vec<u32> {
        let tids = tids.iter().copied().collect();
        let stacks = with_threads(found, bases, &tids);
        stacks.into_iter().map(|stack| stack.inner_tid.unwrap_or(0)).collect()
    }

    #[test]
    fn a_stack_stands_at_the_thread_of_its_base() {
        let bases = [(101, Some(0x1000)), (102, Some(0x2000)), (103, None)];
        let tids = [(101, 1), (102, 2), (103, 3)];
        let stacks = vec![found(None, 0x2000), found(None, 0x1000), found(Some(3), 0x3000)];
        assert_eq!(threads(stacks, &bases, &tids), [2, 1, 3]);
        assert_eq!(threads(vec![found(None, 0x9000)], &bases, &tids), [0], "nobody's");
        let lying = [(101, Some(0x1000)), (102, Some(0x1000))];
        assert_eq!(threads(vec![found(None, 0x1000)], &lying, &tids), [0], "two say the same");
        assert_eq!(threads(vec![found(None, 0x1000)], &[], &tids[..1]), [1], "the only one");
    }
}
