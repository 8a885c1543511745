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
//! | `modules`, `native` | the native stacks, by `framehop` |
//! | `symbols` | the names in them, by `blazesym` |

mod calls;
mod files;
mod modules;
mod native;
mod process;
mod python;
mod stop;
mod symbols;
mod target;
mod teller;
mod threads;

use std::ffi::CString;
use std::io;
use std::panic::set_hook;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal};

use self::modules::Modules;
use self::target::Target;
use self::teller::Teller;
use super::capture::MayStop;
use super::piece::{Piece, Stage};
use super::redact::Redactor;

/// The memory a helper may take for itself, bytes. Files it maps do not count.
const MEMORY_BYTES: u64 = 1 << 30;
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
    bound(request.budget)?;
    let target = Target::take(request.pid)?;
    // A panic over what is found in a worker is told like anything else that could not be had.
    set_hook(Box::new(|_| {}));
    let mut teller = Teller::new(&target);
    teller.stage(Stage::Process, |tell| process::capture(&target, &request.redactor, tell));
    let threads = teller.stage(Stage::Threads, |tell| {
        let threads = threads::capture(&target, request.first_tid)?;
        let tids: Vec<u32> = threads.threads.iter().map(|thread| thread.tid).collect();
        tell(Piece::Threads { threads: threads.threads, left_out: threads.left_out });
        Ok(tids)
    });
    let tids = threads.unwrap_or_else(|| vec![request.pid]);
    match request.may_stop {
        MayStop::Yes => capture_stacks(&target, &tids, ends_at, &mut teller),
        MayStop::No => capture_in_passing(&target, &mut teller),
    }
    Ok(())
}

/// Python's, the native ones, and the names in these.
fn capture_stacks(target: &Target, tids: &[u32], ends_at: Instant, teller: &mut Teller<'_>) {
    // Found before the worker is stopped: this is the slow half.
    let mut spy = teller.part(Stage::Python, |_| python::find(target)).flatten();
    let modules = teller.part(Stage::Native, |_| Modules::of(target)).unwrap_or_default();
    let left = ends_at.saturating_duration_since(Instant::now());
    let stopped = stop::while_stopped(target, tids, &modules, STOP_WAIT.min(left / 4), || {
        spy.as_mut().map(python::stacks)
    });
    teller.stage(Stage::Python, |tell| {
        if let Some(stacks) = stopped.seen.transpose()? {
            tell(Piece::Python(stacks));
        }
        Ok(())
    });
    let stacks = teller.stage(Stage::Native, |tell| {
        tell(Piece::Stopped { for_ns: stopped.for_ns });
        stopped.missing.into_iter().for_each(|missing| tell(Piece::Missing(missing)));
        let stacks = native::unwind(target, &modules, &stopped.threads);
        for stack in &stacks {
            tell(Piece::Native { tid: stack.tid, frames: stack.frames() });
        }
        Ok(stacks)
    });
    teller.stage(Stage::Symbols, |tell| {
        symbols::name(target, stacks.as_deref().unwrap_or_default(), tell)
    });
}

/// The Python stacks of a worker that runs on: each may be torn, and there are no native ones.
fn capture_in_passing(target: &Target, teller: &mut Teller<'_>) {
    teller.stage(Stage::Python, |tell| {
        if let Some(mut spy) = python::find(target)? {
            tell(Piece::Python(python::stacks(&mut spy)?));
        }
        Ok(())
    });
    let why = || "the worker is only reported, and so not stopped for its stack".to_owned();
    teller.stage(Stage::Native, |_| Err::<(), _>(why()));
    teller.stage(Stage::Symbols, |_| Ok(()));
}

/// Ends with the watchdog, and takes neither its place nor its memory.
fn bound(budget: Duration) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    limit(Resource::Core, 0)?;
    limit(Resource::Data, MEMORY_BYTES)?;
    // The watchdog may have lowered its own. Where memory runs out, this process is to go first; where
    // that cannot be said, it is as likely as any.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    rustix::thread::set_name(&CString::new(THREAD_NAME)?)?;
    // Should nobody be left to end it.
    std::thread::spawn(move || {
        std::thread::sleep(budget + LINGER);
        std::process::exit(1);
    });
    Ok(())
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let bound = |now: Option<u64>| Some(now.map_or(most, |now| now.min(most)));
    let lower = Rlimit { current: bound(now.current), maximum: bound(now.maximum) };
    Ok(rustix::process::setrlimit(resource, lower)?)
}
