//! What `/proc` says about each thread, read while it does what it does.

use super::calls;
use super::target::{Target, why_io};
use super::teller::Why;
use hangwatch_incident::schema::Thread;

/// Threads listed at most.
const THREADS: usize = 512;

/// Some of a process's threads.
pub(super) struct Threads {
    pub(super) threads: Vec<Thread>,
    pub(super) left_out: u64,
}

/// The threads, the one with the id `first` in its own PID namespace first.
pub(super) fn capture(target: &Target, first: Option<u64>) -> Result<Threads, Why> {
    let tids = target.tids().map_err(|error| why_io(&error))?;
    let mut threads: Vec<Thread> = tids.iter().map(|&tid| named(target, tid)).collect();
    let is_first = |thread: &Thread| first.is_some() && thread.inner_tid.map(u64::from) == first;
    threads.sort_by_key(|thread| !is_first(thread));
    // More of them than are looked at are counted all the same.
    let all = target.thread_count().unwrap_or(0).max(threads.len());
    let left_out = all.saturating_sub(THREADS) as u64;
    threads.truncate(THREADS);
    threads.iter_mut().for_each(|thread| describe(target, thread));
    // Ended meanwhile.
    threads.retain(|thread| !thread.state.is_empty());
    Ok(Threads { threads, left_out })
}

/// A thread by its ids.
fn named(target: &Target, tid: u32) -> Thread {
    let status = target.read(format!("task/{tid}/status")).unwrap_or_default();
    let field = |name| status.lines().find_map(|line: &str| line.strip_prefix(name));
    let inner_tid = field("NSpid:").and_then(|ids| ids.split_whitespace().last()?.parse().ok());
    let state = field("State:").unwrap_or_default().trim_start();
    let name = field("Name:").unwrap_or_default().trim().to_owned();
    let state = state.chars().next().map(String::from).unwrap_or_default();
    Thread { tid, inner_tid, name, state, ..Thread::default() }
}

/// What it is doing. What the kernel keeps for itself is absent.
fn describe(target: &Target, thread: &mut Thread) {
    let read = |file: &str| target.read(format!("task/{}/{file}", thread.tid)).ok();
    let wait_channel = read("wchan").filter(|channel| !channel.is_empty() && channel != "0");
    let system_call = read("syscall").and_then(|text| calls::described(target, &text));
    let stack = read("stack").unwrap_or_default();
    thread.kernel_stack = stack.lines().filter_map(kernel_function).collect();
    thread.wait_channel = wait_channel;
    thread.system_call = system_call;
}

/// The function in a line of `/proc/PID/stack`: `[<0>] futex_wait_queue+0x60/0x90`.
fn kernel_function(line: &str) -> Option<String> {
    let function = line.split_once("] ")?.1.trim();
    let function = function.split_once('+').map_or(function, |(name, _)| name);
    (!function.is_empty()).then(|| function.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_kernel_stack_gives_its_function() {
        let function = |line| kernel_function(line).unwrap_or_default();
        assert_eq!(function("[<0>] futex_wait_queue+0x60/0x90"), "futex_wait_queue");
        assert_eq!(function("[<0>] do_syscall_64+0x5c/0x90 [kvm]"), "do_syscall_64");
        assert_eq!(function(""), "");
    }
}
