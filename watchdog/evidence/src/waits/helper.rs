//! The process that makes a capture: it may hang over a file of `/proc` without harm.
//!
//! It is `hangwatch wait-helper`, with the graph as JSON on its standard output. Whoever asks waits for its
//! budget and no longer: what is late is missing.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use hangwatch_process::children;
use hangwatch_wait_graph::WaitGraph;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, Signal};

/// What a graph may take as JSON, bytes.
const MOST_BYTES: usize = 16 << 20;
/// What the helper may take of memory, bytes.
const MEMORY_BYTES: u64 = 512 << 20;
/// Descriptors it may have.
const DESCRIPTORS: u64 = 256;
/// How long a helper that was killed is waited for.
const DEATH: Duration = Duration::from_millis(200);

/// Has a helper look at processes; what it found, or why there is nothing.
///
/// # Errors
/// Why there is no graph, in one sentence.
pub fn look(program: &Path, pids: &[u32], budget: Duration) -> Result<WaitGraph, String> {
    let until = Instant::now() + budget;
    let mut command = Command::new(program);
    let milliseconds = budget.as_millis().max(1);
    command.arg("wait-helper").arg("--budget").arg(format!("{milliseconds}ms"));
    command.args(pids.iter().map(u32::to_string));
    command.env_remove("HANGWATCH_SEGMENT").env_remove("HANGWATCH_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let starting = children::starting();
    let mut child =
        command.spawn().map_err(|error| format!("no helper: {}: {error}", program.display()))?;
    starting.has_begun(child.id());
    let told = child.stdout.take().map(|output| read(output, until));
    end(child);
    let bytes = told.unwrap_or_else(|| Err("no pipe to the helper".to_owned()))?;
    serde_json::from_slice(&bytes).map_err(|_| "the helper failed".to_owned())
}

/// All it tells, until its end or the budget's.
fn read(mut output: ChildStdout, until: Instant) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut awaited = [PollFd::new(&output, PollFlags::IN)];
        match poll(&mut awaited, timeout.as_ref()) {
            Ok(0) => return Err("too slow: the budget is over".to_owned()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        match output.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(read) if bytes.len() + read > MOST_BYTES => {
                return Err("the graph is larger than is kept".to_owned());
            }
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Ends it. One that cannot be killed at once is left to init.
fn end(mut child: Child) {
    let _ = child.kill(); // dead already, it is only waited for
    let until = Instant::now() + DEATH;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > until {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    children::ended(child.id());
}

/// The helper itself: makes the capture and writes it.
///
/// # Errors
/// Where it cannot bound itself, or nobody reads what it writes.
pub fn run(pids: &[u32], budget: Duration) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Data, MEMORY_BYTES),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Cpu, 10 + budget.as_secs()),
    ] {
        let now = rustix::process::getrlimit(resource);
        let bound = |now: Option<u64>| Some(now.map_or(most, |now| now.min(most)));
        let lower = Rlimit { current: bound(now.current), maximum: bound(now.maximum) };
        rustix::process::setrlimit(resource, lower)?;
    }
    let seconds = u32::try_from(budget.as_secs()).unwrap_or(u32::MAX);
    nix::unistd::alarm::set(seconds.saturating_add(2));
    let graph = super::capture(pids, budget / 2);
    serde_json::to_writer(io::stdout().lock(), &graph)?;
    Ok(())
}
