//! One thread as the kernel shows it: its state, where it sleeps, its system call.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use hangwatch::sys::proc_file;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use syscalls::Sysno;

/// Threads of a process that are looked at, at most.
const THREADS: usize = 512;
/// What is read of the list of a process's mappings, bytes.
const MAPS_BYTES: u64 = 8 << 20;
/// Times that a running thread is looked at, and the time between.
const LOOKS: u32 = 4;
const BETWEEN: Duration = Duration::from_millis(5);
/// How often a thread is looked at that a helper of hangwatch has stopped.
const LET_GO: u32 = 40;

/// A process and its threads at one moment.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) tasks: Vec<Task>,
    /// How many threads it has in all.
    pub(super) count: usize,
    /// How deep its PID namespace is, as seen from here: 1 where it is ours.
    pub(super) depth: usize,
    pub(super) parent: u32,
    pub(super) is_kernel: bool,
    /// The threads by their ids in their own PID namespace.
    pub(super) by_inner: BTreeMap<u32, u32>,
    /// Signals it has handlers for that may wake a thread: a bit each, the first of number 1.
    pub(super) handled: u64,
}

/// A thread at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Task {
    pub(super) tid: u32,
    pub(super) name: String,
    /// The kernel's letter.
    pub(super) state: char,
    pub(super) tracer: u32,
    pub(super) wchan: String,
    /// How often it was given the processor: as often as before, it has slept ever since.
    pub(super) switches: u64,
    pub(super) call: Call,
}

/// What a thread does in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Call {
    /// On a processor, or in no system call.
    #[default]
    None,
    /// In a system call.
    In {
        /// Which; `None` where its number has no name here.
        call: Option<Sysno>,
        /// Its arguments.
        arguments: [u64; 6],
        /// The stack pointer.
        stack: u64,
    },
    /// The kernel does not tell whoever asks.
    Refused,
}

impl Process {
    /// Looks at a process; `None` where there is none.
    pub(super) fn look(pid: u32) -> Option<Process> {
        let status = proc_file::text(format!("/proc/{pid}/status")).ok()?;
        let number = |name: &str| field(&status, name)?.split_whitespace().next()?.parse().ok();
        let mut process = Process {
            pid,
            name: field(&status, "Name:")?.to_owned(),
            count: number("Threads:").unwrap_or(0) as usize,
            depth: field(&status, "NSpid:").map_or(1, |ids| ids.split_whitespace().count()),
            parent: number("PPid:").unwrap_or(0),
            is_kernel: field(&status, "VmSize:").is_none() && is_kernel_thread(pid),
            handled: handled(&status),
            ..Process::default()
        };
        let mut tids: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .take(THREADS)
            .collect();
        tids.sort_unstable();
        for tid in tids {
            let Some((task, inner)) = Task::look(pid, tid) else { continue };
            process.by_inner.insert(inner, tid);
            process.tasks.push(task);
        }
        process.settle();
        process.let_go();
        Some(process)
    }

    /// Looks again at the threads that were running: of one that computes, more than one look finds it so.
    fn settle(&mut self) {
        let pid = self.pid;
        let mut running: Vec<(usize, u32)> = self
            .tasks
            .iter()
            .enumerate()
            .filter(|(_, it)| it.state == 'R')
            .map(|(at, _)| (at, 1))
            .collect();
        for _ in 1..LOOKS {
            if running.is_empty() {
                return;
            }
            sleep(BETWEEN);
            for (at, seen) in &mut running {
                if let Some((task, _)) = Task::look(pid, self.tasks[*at].tid) {
                    *seen += u32::from(task.state == 'R');
                    self.tasks[*at] = task;
                }
            }
        }
        for (at, seen) in running {
            if seen > 1 {
                self.tasks[at].state = 'R';
            }
        }
    }

    /// Looks again at threads that another helper has stopped, until it lets them go.
    fn let_go(&mut self) {
        for at in 0..self.tasks.len() {
            for _ in 0..LET_GO {
                let Task { tid, state, tracer, .. } = self.tasks[at];
                if state != 't' || !is_helper(tracer) {
                    break;
                }
                sleep(BETWEEN);
                if let Some((task, _)) = Task::look(self.pid, tid) {
                    self.tasks[at] = task;
                }
            }
        }
    }

    /// Whether every one of its threads was looked at.
    pub(super) fn is_whole(&self) -> bool {
        self.tasks.len() >= self.count && self.tasks.iter().all(|it| it.call != Call::Refused)
    }

    /// The main thread, or the first that still runs where that one has ended.
    pub(super) fn leader(&self) -> Option<&Task> {
        let is_alive = |task: &&Task| !matches!(task.state, 'Z' | 'X');
        let first = self.tasks.first();
        first.filter(is_alive).or_else(|| self.tasks.iter().find(is_alive)).or(first)
    }

    /// The thread that has this id in the process's own PID namespace.
    pub(super) fn by_inner_id(&self, inner: u32) -> Option<u32> {
        self.by_inner.get(&inner).copied()
    }

    /// Bytes of its memory; `None` where not all of them can be read.
    pub(super) fn memory<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        read_memory(self.pid, address, &mut bytes).ok().filter(|&read| read == N)?;
        Some(bytes)
    }

    pub(super) fn word(&self, address: u64) -> Option<u32> {
        self.memory(address).map(u32::from_ne_bytes)
    }

    pub(super) fn long(&self, address: u64) -> Option<u64> {
        self.memory(address).map(u64::from_ne_bytes)
    }

    /// Whether an address is in memory that it shares with nobody. A process that shares all of its memory
    /// with a child is rare, and then both are looked at.
    pub(super) fn is_private(&self, address: u64) -> bool {
        self.mapping(address).is_some_and(|mapping| mapping.get(3..4) == Some("p"))
    }

    /// Whether another process maps the same shared memory as is at an address.
    pub(super) fn shares(&self, address: u64, with: u32) -> bool {
        let Some(mapping) = self.mapping(address) else { return false };
        // Behind the permissions: offset, device, inode.
        let object = |line: &str| {
            let mut words = line.split_whitespace().skip(2);
            Some((words.next()?.to_owned(), words.next()?.to_owned()))
        };
        let (own, theirs) = (object(&mapping), maps(with));
        let mut lines = theirs.lines().filter_map(|line| line.split_once(' '));
        own.is_some() && lines.any(|(_, rest)| rest.get(3..4) == Some("s") && object(rest) == own)
    }

    /// What `/proc/PID/maps` says of the mapping at an address, from its permissions on.
    fn mapping(&self, address: u64) -> Option<String> {
        maps(self.pid).lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let hex = |text| u64::from_str_radix(text, 16).ok();
            (hex(from)?..hex(to)?).contains(&address).then(|| rest.to_owned())
        })
    }

    /// Its children, of all its threads, up to a bound.
    pub(super) fn children(&self) -> Vec<u32> {
        let lists = self.tasks.iter().filter_map(|task| {
            proc_file::text(format!("/proc/{}/task/{}/children", self.pid, task.tid)).ok()
        });
        let pids = lists.flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()
        });
        pids.take(THREADS).collect()
    }

    /// The pid that a descendant has in this process's PID namespace.
    pub(super) fn pid_here(&self, pid: u32) -> Option<u32> {
        let status = proc_file::text(format!("/proc/{pid}/status")).ok()?;
        field(&status, "NSpid:")?.split_whitespace().nth(self.depth.checked_sub(1)?)?.parse().ok()
    }
}

impl Task {
    /// The thread, and its id in its own PID namespace.
    pub(super) fn look(pid: u32, tid: u32) -> Option<(Task, u32)> {
        let root = format!("/proc/{pid}/task/{tid}");
        let status = proc_file::text(format!("{root}/status")).ok()?;
        let inner =
            field(&status, "NSpid:").and_then(|ids| ids.split_whitespace().last()?.parse().ok());
        let wchan = proc_file::text(format!("{root}/wchan")).unwrap_or_default();
        let task = Task {
            tid,
            name: field(&status, "Name:").unwrap_or_default().to_owned(),
            state: field(&status, "State:")?.chars().next()?,
            switches: switches(&status),
            tracer: field(&status, "TracerPid:").and_then(|it| it.parse().ok()).unwrap_or(0),
            wchan: if wchan == "0" { String::new() } else { wchan },
            call: Call::of(proc_file::text(format!("{root}/syscall"))),
        };
        Some((task, inner.unwrap_or(tid)))
    }

    /// Whether it has slept in the same call since an earlier look at it.
    pub(super) fn has_slept_since(&self, before: &Task) -> bool {
        self.state != 'R' && self.switches == before.switches && self.call == before.call
    }
}

impl Call {
    fn of(text: std::io::Result<String>) -> Call {
        match text {
            Ok(text) => Call::read(&text).unwrap_or(Call::None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Call::None,
            Err(_) => Call::Refused,
        }
    }

    /// `202 0x7f.. 0x80 0x2 0x0 0x0 0x0 STACK PC`; "running", or "-1 STACK PC" in no call.
    fn read(text: &str) -> Option<Call> {
        let mut words = text.split_whitespace();
        let number: usize = words.next()?.parse().ok()?;
        let mut hex = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = hex()?;
        }
        let stack = hex()?;
        Some(Call::In { call: Sysno::new(number), arguments, stack })
    }
}

/// Whether a tracer is a helper of a watchdog, which stops a process for some milliseconds.
fn switches(status: &str) -> u64 {
    let count = |name: &str| field(status, name)?.parse::<u64>().ok();
    let [by_choice, forced] = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
        .map(|it| count(it).unwrap_or(0));
    by_choice.wrapping_add(forced)
}

/// The signals of a process that have handlers, but for those that tell of faults or of the terminal, those
/// that the C library keeps for itself, and INT, which Python handles wherever it runs.
fn handled(status: &str) -> u64 {
    const WAKE_NOBODY: [u32; 16] = [2, 4, 5, 6, 7, 8, 11, 13, 18, 20, 21, 22, 27, 28, 32, 33];
    let mask = field(status, "SigCgt:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    WAKE_NOBODY.iter().fold(mask.unwrap_or(0), |mask, signal| mask & !(1 << (signal - 1)))
}

fn is_helper(tracer: u32) -> bool {
    let name = proc_file::text(format!("/proc/{tracer}/comm")).unwrap_or_default();
    name.trim_end() == crate::helper::THREAD_NAME
}

/// The mappings of a process, up to a bound.
fn maps(pid: u32) -> String {
    let bytes = proc_file::bytes(format!("/proc/{pid}/maps"), MAPS_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What stands behind a name in `/proc/PID/status`.
pub(super) fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether it is a thread of the kernel, by its flag (`PF_KTHREAD`): one of a process has memory.
fn is_kernel_thread(pid: u32) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    let stat = proc_file::text(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags = rest.split_whitespace().nth(6).and_then(|flags| flags.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// Reads memory of another process; how many bytes of it there were.
pub(super) fn read_memory(pid: u32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    let base = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    let remote = [RemoteIoVec { base, len: into.len() }];
    process_vm_readv(
        Pid::from_raw(pid.cast_signed()),
        &mut [std::io::IoSliceMut::new(into)],
        &remote,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_syscall_gives_the_call_and_its_arguments() {
        let text = "202 0x7f10 0x80 0x2 0x0 0x0 0x0 0x7ffc00 0x7f44d5\n";
        let Some(Call::In { call, arguments, stack }) = Call::read(text) else { panic!() };
        assert_eq!((arguments, stack), ([0x7f10, 0x80, 2, 0, 0, 0], 0x7f_fc00));
        assert_eq!(call, Sysno::new(202));
        assert_eq!(Call::read("running\n"), None);
        assert_eq!(Call::read("-1 0x1 0x2\n"), None);
        assert_eq!(Call::read("202 0x1"), None, "cut");
    }

    #[test]
    fn this_process_is_read_with_its_memory() {
        let process = Process::look(std::process::id()).unwrap();
        assert!(!process.is_kernel && process.depth == 1 && process.count >= 1);
        assert_eq!(process.by_inner_id(std::process::id()), Some(std::process::id()));
        let word = 0x1234_5678_u32;
        assert_eq!(process.word(&raw const word as u64), Some(word));
        assert_eq!(process.word(1), None);
    }
}
