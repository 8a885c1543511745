//! The helper: a process that captures one worker's evidence and tells it line by line.
//!
//! It is `hangwatch evidence-helper`, started by [`capture`](super::capture) with a pidfd of the
//! worker as its standard input and a pipe as its output. The stages stand in the order of their cost;
//! each is told before the next begins. It ends when it is done, when its watchdog dies, or when its
//! watchdog has had enough of it.
//!
//! | file | what it finds out |
//! | --- | --- |
//! | `target` | whose evidence it is, and that it still is |
//! | `process`, `files`, `threads`, `calls` | what `/proc` says |
//! | `stop` | registers and stacks of every thread, stopped for the while |
//! | `python` | the Python stacks, by `py-spy` |
//! | `maps`, `modules`, `native` | the native stacks, by `framehop` |
//! | `symbols`, `perf_map` | the names in them, by `blazesym` |
//! | `variables` | the names of the locks that threads wait for |
//!
//! It begins with the watchdog's privileges, with which it reads `/proc` and holds what is mapped. Where the
//! worker's own user may stop the worker and read its memory, it becomes that user then (`privileges`);
//! else it stops it and copies its stacks first. Nothing of the worker's is parsed before. Its memory is
//! bounded (`memory`), and where that is too little, it says so (`abort`).

mod abort;
mod calls;
mod files;
mod maps;
pub mod memory;
mod modules;
mod native;
mod perf_map;
mod privileges;
mod process;
mod python;
mod stop;
mod symbols;
mod target;
mod teller;
mod threads;
mod variables;

use std::ffi::CString;
use std::io;
use std::panic::set_hook;
use std::time::{Duration, Instant};

use hangwatch_wait_graph::WaitGraph;
use nix::sys::signal::SigSet;
use py_spy::PythonSpy;
use rustix::process::{Resource, Rlimit, Signal};

use self::modules::Modules;
use self::privileges::Standing;
use self::python::Inner;
use self::stop::StoppedThread;
use self::target::Target;
use self::teller::{Teller, Why};
use self::variables::Lock;
use super::capture::MayStop;
use super::piece::{Piece, Stage};
use super::redact::Redactor;
use crate::waits;
use hangwatch_incident::schema::{Missing, Thread};

/// What files a helper maps may take beside its own memory, bytes.
const MAPPED_BYTES: u64 = 64 << 30;
/// Descriptors a helper may have.
const DESCRIPTORS: u64 = 4096;
/// The largest file it may write: its output is a pipe, and it has a copy of the vDSO.
const FILE_BYTES: u64 = 1 << 20;
/// How long it waits at most for the worker's threads to stop.
const STOP_WAIT: Duration = Duration::from_millis(200);

/// What its threads are called, by which other watchdogs know it.
pub const THREAD_NAME: &str = "hangwatch-look";

/// How long after its budget it ends by itself, if it has not been ended.
const LINGER: Duration = Duration::from_secs(1);

/// What a helper is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// The worker.
    pub pid: u32,
    /// How long the helper has.
    pub budget: Duration,
    /// What is redacted.
    pub redactor: Redactor,
    /// The thread that matters most, by its id in its own PID namespace: it is told first.
    pub first_tid: Option<u64>,
    /// Whether the worker may be stopped for its stacks.
    pub may_stop: MayStop,
    /// The memory a helper may take, bytes.
    pub memory_bytes: u64,
    /// How many helpers may be at work at once.
    pub at_once: u32,
}

/// Why a helper could not begin.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Nobody started it as it must be.
    #[error("this command is for the watchdog: its standard input must be a pidfd of the worker")]
    NoPidfd,
    /// A limit was refused.
    #[error("cannot bound this process: {0}")]
    Unbound(#[from] io::Error),
}

/// Captures and tells, from stage to stage.
///
/// # Errors
/// Where it could not begin. What goes wrong later is told as missing.
pub fn run(request: &Request) -> Result<(), HelperError> {
    let ends_at = Instant::now() + request.budget;
    let memory = memory::bound(request.memory_bytes, request.at_once);
    bound(request.budget, *memory.as_ref().unwrap_or(&request.memory_bytes))?;
    let target = Target::take(request.pid)?;
    // A panic over what is found in a worker is told like anything else that could not be had.
    set_hook(Box::new(|_| {}));
    let mut teller = Teller::new(&target);
    let memory_bytes = match memory {
        Ok(bytes) => bytes,
        Err(why) => {
            for stage in Stage::ALL {
                teller.stage(stage, |_| Err::<(), _>(format!("not captured: {why}")));
            }
            return Ok(());
        }
    };
    abort::say_when_memory_runs_out();
    let standing = Standing::of(&target);
    teller.stage(Stage::Process, |tell| process::capture(&target, &request.redactor, tell));
    let threads = teller.stage(Stage::Threads, |tell| {
        let threads = threads::capture(&target, request.first_tid)?;
        let tids: Vec<u32> = threads.threads.iter().map(|thread| thread.tid).collect();
        let of = |thread: &Thread| Some((thread.tid, thread.inner_tid?));
        let inner: Inner = threads.threads.iter().filter_map(of).collect();
        tell(Piece::Threads { threads: threads.threads, left_out: threads.left_out });
        Ok((tids, inner))
    });
    let (tids, inner) = threads.unwrap_or_else(|| (vec![request.pid], Inner::new()));
    // Before the worker is stopped: a thread that is stopped waits for its tracer.
    let scan = request.budget / 8;
    let locks = teller.stage(Stage::Waits, |tell| {
        let mut graph = waits::capture(&[request.pid], scan);
        begin_with(&mut graph, &inner, request.first_tid);
        let locks = variables::locks(&graph, request.pid);
        tell(Piece::Waits(Box::new(graph)));
        Ok(locks)
    });
    let locks = locks.unwrap_or_default();
    // The files are held while the helper may still look at them.
    let modules = teller.part(Stage::Native, |_| Modules::of(&target, memory_bytes));
    let modules = modules.unwrap_or_default();
    let look = Look {
        target: &target,
        standing: &standing,
        modules: &modules,
        inner: &inner,
        locks: &locks,
        ends_at,
    };
    match request.may_stop {
        MayStop::Yes => look.stopped(&tids, &mut teller),
        MayStop::No => look.in_passing(&mut teller),
    }
    Ok(())
}

/// Has the thread that matters most asked about, and then the others.
fn begin_with(graph: &mut WaitGraph, inner: &Inner, first: Option<u64>) {
    let is_it = |(_, inner): &(&u32, &u32)| Some(u64::from(**inner)) == first;
    let tid = inner.iter().find(is_it).map(|(tid, _)| *tid);
    if let Some(node) = tid.and_then(|tid| graph.thread_node(tid)) {
        graph.roots = vec![node];
    }
}

/// What is needed to look at a worker's stacks.
#[derive(Clone, Copy)]
struct Look<'t> {
    target: &'t Target,
    /// Whom the helper is to become, or why that is not known.
    standing: &'t Result<Standing, Why>,
    modules: &'t Modules,
    /// The threads' ids in their own PID namespace.
    inner: &'t Inner,
    /// What its threads wait for.
    locks: &'t [Lock],
    ends_at: Instant,
}

impl Look<'_> {
    /// Python's stacks, the native ones, and the names in these.
    fn stopped(self, tids: &[u32], teller: &mut Teller<'_>) {
        let Look { target, modules, .. } = self;
        // The rule: nothing is parsed before this has succeeded.
        let suffices = self.standing.as_ref().is_ok_and(|standing| standing.suffices(target));
        let early = suffices.then(|| self.drop_privileges());
        // Found before the worker is stopped, where it can be: this is the slow half.
        let mut spy = match early {
            Some(Ok(())) => teller.part(Stage::Python, |_| self.python(2)).flatten(),
            _ => None,
        };
        let wait = STOP_WAIT.min(self.left() / 4);
        let (standing, is_early, left) = (self.standing, early.is_some(), self.left());
        let stopped = stop::while_stopped(target, tids, modules, wait, || {
            if !is_early {
                take(standing)?;
                spy = python::find(target, modules, left / 4)?;
            }
            spy.as_mut().map(python::stacks).transpose()
        });
        // Where it was dropped in the stop, it was by another thread, which has capabilities of its own.
        let dropped = early.unwrap_or_else(|| self.drop_privileges());
        teller.stage(Stage::Python, |tell| {
            if let Some(stacks) = stopped.seen? {
                let base = |thread: &StoppedThread| (thread.tid, thread.registers.thread_base());
                let bases: Vec<_> = stopped.threads.iter().map(base).collect();
                tell(Piece::Python(python::with_threads(stacks, &bases, self.inner)));
            }
            Ok(())
        });
        let stacks = teller.stage(Stage::Native, |tell| {
            tell(Piece::Stopped { for_ns: stopped.for_ns });
            stopped.missing.into_iter().for_each(|missing| tell(Piece::Missing(missing)));
            dropped?;
            let (stacks, failures) = native::unwind(modules, &stopped.threads);
            for stack in &stacks {
                tell(Piece::Native { tid: stack.tid, frames: stack.frames() });
            }
            for why in failures {
                tell(Piece::Missing(Missing { what: Stage::Native.name().to_owned(), why }));
            }
            Ok(stacks)
        });
        teller.stage(Stage::Symbols, |tell| {
            // Nothing of the worker's is parsed without its own privileges.
            if stacks.is_some() && !self.locks.is_empty() {
                tell(Piece::Variables(variables::named(modules, self.locks)));
            }
            symbols::name(target, modules, stacks.as_deref().unwrap_or_default(), tell);
            Ok(())
        });
    }

    /// The Python stacks of a worker that runs on: each may be torn, and there are no native ones.
    fn in_passing(self, teller: &mut Teller<'_>) {
        teller.stage(Stage::Python, |tell| {
            self.drop_privileges()?;
            if let Some(mut spy) = self.python(2)? {
                tell(Piece::Python(python::with_threads(
                    python::stacks(&mut spy)?,
                    &[],
                    self.inner,
                )));
            }
            Ok(())
        });
        let why = || "the worker is only reported, and so not stopped for its stack".to_owned();
        teller.stage(Stage::Native, |_| Err::<(), _>(why()));
        teller.stage(Stage::Symbols, |_| Ok(()));
    }

    /// The interpreter, in its share of the time that is left.
    fn python(self, share: u32) -> Result<Option<PythonSpy>, Why> {
        python::find(self.target, self.modules, self.left() / share)
    }

    fn left(self) -> Duration {
        self.ends_at.saturating_duration_since(Instant::now())
    }

    fn drop_privileges(self) -> Result<(), Why> {
        take(self.standing)
    }
}

/// Becomes the worker's user, for good.
fn take(standing: &Result<Standing, Why>) -> Result<(), Why> {
    standing.as_ref().map_err(Clone::clone)?.take()
}

/// Ends with the watchdog, and takes neither its place nor its memory.
fn bound(budget: Duration, memory_bytes: u64) -> io::Result<()> {
    end_with_the_watchdog()?;
    limit(Resource::Core, 0)?;
    limit(Resource::Data, memory_bytes)?;
    limit(Resource::As, memory_bytes.saturating_add(MAPPED_BYTES))?;
    limit(Resource::Nofile, DESCRIPTORS)?;
    limit(Resource::Fsize, FILE_BYTES)?;
    // Its processors' time, of which threads may use more than passes.
    limit(Resource::Cpu, 60 + 4 * budget.as_secs())?;
    // The watchdog may have lowered its own. Where memory runs out, this process is to go first; where
    // that cannot be said, it is as likely as any.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_name(&CString::new(THREAD_NAME)?)?;
    // Should nobody be left to end it. A thread would have credentials of its own.
    let alarm = SigSet::from_iter([nix::sys::signal::Signal::SIGALRM]);
    alarm.thread_unblock().map_err(io::Error::from)?;
    let seconds = u32::try_from((budget + LINGER).as_secs()).unwrap_or(u32::MAX);
    nix::unistd::alarm::set(seconds.saturating_add(1));
    Ok(())
}

/// Ends with the thread of the watchdog that started it.
fn end_with_the_watchdog() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let bound = |now: Option<u64>| Some(now.map_or(most, |now| now.min(most)));
    let lower = Rlimit { current: bound(now.current), maximum: bound(now.maximum) };
    Ok(rustix::process::setrlimit(resource, lower)?)
}
