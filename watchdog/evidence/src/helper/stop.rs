//! The stop: the worker's threads are stopped for as long as their registers and stacks are copied.
//!
//! `PTRACE_SEIZE` and `PTRACE_INTERRUPT`, never `PTRACE_ATTACH`: a thread that is stopped so goes on,
//! or goes back to the stop it was in, when its tracer lets it go *or ends*. All of it is done by a
//! thread of its own, whose end lets go of those too that could not be: one in an uninterruptible
//! sleep, or in a frozen control group, does not stop, and is not waited for longer than a moment.

use std::time::{Duration, Instant};

use hangwatch::sys::crash;
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::modules::{Modules, read_memory};
use super::native::Registers;
use super::target::{Target, why_io};
use hangwatch_incident::schema::Missing;

/// How much of each stack is copied, bytes: what is beyond is not unwound.
const STACK_BYTES: u64 = 512 << 10;
/// How much of all stacks is copied, bytes.
const ALL_STACKS_BYTES: u64 = 64 << 20;
/// How often it is looked whether a thread has stopped.
const LOOK: Duration = Duration::from_micros(100);
/// Threads stopped at most.
const THREADS: usize = 1024;
/// How often threads are looked for that were started meanwhile.
const ROUNDS: u32 = 3;

/// One thread's registers and stack, of one moment.
pub(super) struct StoppedThread {
    pub(super) tid: u32,
    pub(super) registers: Registers,
    /// From the stack pointer on.
    pub(super) stack: Vec<u8>,
    /// Whether there was more.
    pub(super) is_cut: bool,
}

/// What was seen while the worker was stopped.
pub(super) struct Stopped<T> {
    pub(super) threads: Vec<StoppedThread>,
    /// What the caller looked at meanwhile.
    pub(super) seen: T,
    /// How long, ns: from the first thread's stop until all were let go.
    pub(super) for_ns: u64,
    pub(super) missing: Vec<Missing>,
}

/// Stops the threads `tids`, and those started meanwhile, for no longer than `look` takes; it is
/// called all the same where they cannot be stopped.
pub(super) fn while_stopped<T: Send>(
    target: &Target,
    tids: &[u32],
    modules: &Modules,
    wait: Duration,
    look: impl FnOnce() -> T + Send,
) -> Stopped<T> {
    let stop = || {
        let begun = Instant::now();
        let mut tracer = Tracer::default();
        tracer.stop_all(target, tids, begun + wait);
        crash::point("evidence-stopped");
        let mut copied = 0;
        let mut threads = Vec::new();
        for stop in &tracer.stopped {
            threads.extend(copy(target, modules, stop.tid, &mut copied));
        }
        // After the copies: it may give up the right to make them.
        let seen = look();
        let missing = tracer.missing();
        drop(tracer);
        let for_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Stopped { threads, seen, for_ns, missing }
    };
    std::thread::scope(|scope| match scope.spawn(stop).join() {
        Ok(stopped) => stopped,
        Err(payload) => std::panic::resume_unwind(payload),
    })
}

/// Copies what is needed to unwind a thread that is stopped.
fn copy(target: &Target, modules: &Modules, tid: u32, copied: &mut u64) -> Option<StoppedThread> {
    let registers = Registers::of(Pid::from_raw(tid.cast_signed())).ok()?;
    let from = registers.stack_pointer();
    let end = modules.find(from).map_or(from.saturating_add(STACK_BYTES), |stack| stack.range.end);
    let wanted = (end - from).min(STACK_BYTES).min(ALL_STACKS_BYTES - *copied);
    let stack = read_memory(target, from..from + wanted).unwrap_or_default();
    *copied += stack.len() as u64;
    let is_cut = from + (stack.len() as u64) < end;
    Some(StoppedThread { tid, registers, stack, is_cut })
}

/// A thread that is stopped, and the signal that was about to be delivered to it.
struct Stop {
    tid: u32,
    signal: Option<Signal>,
}

/// The tracer of some threads. Dropped, it lets go of those that are stopped.
#[derive(Default)]
struct Tracer {
    stopped: Vec<Stop>,
    /// Seized and interrupted, and not stopped yet.
    awaited: Vec<u32>,
    refused: Vec<(u32, Errno)>,
    /// Stopped by a real-time signal, which the library has no name for. Let go when the tracer's thread
    /// ends, they get it.
    nameless: Vec<u32>,
}

impl Tracer {
    fn stop_all(&mut self, target: &Target, tids: &[u32], until: Instant) {
        let mut tids = tids.to_vec();
        for _ in 0..ROUNDS {
            for tid in tids {
                self.seize(tid);
            }
            self.wait(until);
            let known = |tid: &u32| {
                self.stopped.iter().any(|stop| stop.tid == *tid)
                    || self.awaited.contains(tid)
                    || self.nameless.contains(tid)
                    || self.refused.iter().any(|(refused, _)| refused == tid)
            };
            tids = target.tids().unwrap_or_default();
            tids.retain(|tid| !known(tid));
            tids.truncate(THREADS.saturating_sub(self.count()));
            if tids.is_empty() || Instant::now() >= until {
                return;
            }
        }
    }

    fn count(&self) -> usize {
        self.stopped.len() + self.awaited.len() + self.refused.len()
    }

    fn seize(&mut self, tid: u32) {
        let pid = Pid::from_raw(tid.cast_signed());
        match ptrace::seize(pid, Options::empty()).and_then(|()| ptrace::interrupt(pid)) {
            Ok(()) => self.awaited.push(tid),
            Err(errno) => self.refused.push((tid, errno)),
        }
    }

    /// Waits until all have stopped or ended, or `until`.
    fn wait(&mut self, until: Instant) {
        loop {
            let Tracer { stopped, awaited, nameless, .. } = self;
            awaited.retain(|&tid| {
                let pid = Pid::from_raw(tid.cast_signed());
                match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                    Ok(WaitStatus::StillAlive) => return true,
                    // The interrupt's stop, or the group's that it was in already.
                    Ok(WaitStatus::PtraceEvent(..)) => stopped.push(Stop { tid, signal: None }),
                    // One that a signal was just being delivered to; it gets it when let go.
                    Ok(WaitStatus::Stopped(_, signal)) => {
                        stopped.push(Stop { tid, signal: Some(signal) });
                    }
                    Err(Errno::EINVAL) => nameless.push(tid),
                    // Ended meanwhile.
                    _ => {}
                }
                false
            });
            if self.awaited.is_empty() || Instant::now() >= until {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    fn missing(&self) -> Vec<Missing> {
        let native = |why| Missing { what: "native".to_owned(), why };
        let gone = |(_, errno): &&(u32, Errno)| *errno != Errno::ESRCH;
        let mut missing = Vec::new();
        let refused: Vec<_> = self.refused.iter().filter(gone).collect();
        if let Some((tid, errno)) = refused.first() {
            let why = why_io(&std::io::Error::from(*errno));
            missing
                .push(native(format!("{} of its threads, {tid} the first: {why}", refused.len())));
        }
        if let Some(tid) = self.nameless.first() {
            missing.push(native(format!(
                "{} of its threads, {tid} the first, were getting a real-time signal",
                self.nameless.len(),
            )));
        }
        if let Some(tid) = self.awaited.first() {
            missing.push(native(format!(
                "{} of its threads, {tid} the first, did not stop: in an uninterruptible sleep, or frozen",
                self.awaited.len(),
            )));
        }
        missing
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        for stop in &self.stopped {
            // One that was killed meanwhile is let go already.
            let _ = ptrace::detach(Pid::from_raw(stop.tid.cast_signed()), stop.signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_stop_by_a_real_time_signal_is_told() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let mut tracer = Tracer::default();
        ptrace::seize(Pid::from_raw(child.id().cast_signed()), Options::empty()).unwrap();
        tracer.awaited.push(child.id());
        let send = format!("kill -s RTMIN+1 {}", child.id());
        assert!(Command::new("bash").args(["-c", &send]).status().unwrap().success());
        tracer.wait(Instant::now() + Duration::from_mins(1));
        let missing = tracer.missing();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].why.contains("real-time signal"), "{missing:?}");
    }
}
