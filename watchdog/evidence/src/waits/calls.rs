//! What a thread waits for, by the system call it sleeps in.

use hangwatch::sys::proc_file;
use hangwatch_wait_graph::{End, FileLock, Resource, Source};
use rustix::time::{ClockId, clock_gettime};
use syscalls::Sysno;

use super::builder::{Builder, Toward};
use super::descriptors::{self, For};
use super::futex::{Futex, Wait};
use super::holders::{self, link_of};
use super::locks;
use super::task::{Call, Process, Task};

/// Children of a process that are followed, at most.
const CHILDREN: usize = 16;
/// The call that is gone on with as `poll`.
const POLL: Sysno = {
    #[cfg(target_arch = "x86_64")]
    let call = Sysno::poll;
    #[cfg(not(target_arch = "x86_64"))]
    let call = Sysno::ppoll;
    call
};
/// Bytes of a path that are read from a process's memory.
const PATH: usize = 256;
/// A stack below this is of a program of 32 bits, whose calls have other numbers.
const LEAST_STACK: u64 = 1 << 32;

/// What a sleeping thread waits for: one way, or several, any of which may end the wait.
pub(super) fn ways(builder: &mut Builder, process: &Process, task: &Task) -> Vec<Toward> {
    let (call, arguments) = match task.call {
        Call::Refused => {
            return vec![Toward::unknown("may not be looked at: that takes its own user, or root")];
        }
        Call::None => return vec![outside_of_calls(task)],
        Call::In { stack, .. } if stack < LEAST_STACK => {
            return vec![Toward::unknown(
                "is a program of 32 bits, whose system calls are not read",
            )];
        }
        Call::In { call, arguments, .. } => (call, arguments),
    };
    if task.state == 'D' && is_vfork(task, call, arguments) {
        return children(process, |_| true, |_| Resource::Vfork);
    }
    if task.state == 'D' {
        return descriptors::device(builder, process, task, call, arguments);
    }
    match call {
        Some(Sysno::restart_syscall) => match interrupted(process, task, arguments) {
            Some(call) => sleeping_in(builder, process, task, call, arguments),
            None => vec![Toward::unknown(
                "waits in a system call that was interrupted, of a kind not told",
            )],
        },
        Some(call) => sleeping_in(builder, process, task, call, arguments),
        None => vec![Toward::unknown("waits in a system call without a name here")],
    }
}

fn sleeping_in(
    builder: &mut Builder,
    process: &Process,
    task: &Task,
    call: Sysno,
    arguments: [u64; 6],
) -> Vec<Toward> {
    let [first, second, third, ..] = arguments;
    match call {
        Sysno::futex => futex(process, arguments),
        Sysno::nanosleep => vec![sleep(process, first)],
        Sysno::clock_nanosleep if second & 1 == 0 => vec![sleep(process, third)],
        Sysno::clock_nanosleep => vec![sleep_until(process, first, third)],
        Sysno::rt_sigsuspend | Sysno::rt_sigtimedwait => signal(process),
        Sysno::wait4 => {
            let wanted = first as i32;
            let is_it = |pid| wanted <= 0 || process.pid_here(pid) == Some(wanted.unsigned_abs());
            children(process, is_it, child)
        }
        Sysno::waitid => waitid(process, first, second),
        Sysno::flock | Sysno::fcntl => file_lock(builder, process, call, first),
        Sysno::openat => open(builder, process, second),
        Sysno::ppoll => poll(builder, process, arguments, third != 0),
        Sysno::pselect6 => select(builder, process, arguments),
        Sysno::epoll_pwait | Sysno::epoll_pwait2 => epoll(builder, process, arguments, call),
        Sysno::msgrcv | Sysno::msgsnd => {
            vec![Toward::unknown(
                "waits for a System V message queue, whose users are not recorded",
            )]
        }
        Sysno::semop | Sysno::semtimedop => {
            vec![Toward::unknown("waits for a System V semaphore, whose holder is not recorded")]
        }
        Sysno::io_uring_enter | Sysno::io_getevents => {
            vec![Toward::unknown(
                "waits for asynchronous input or output, whose files are not recorded",
            )]
        }
        _ => by_old_name(builder, process, task, call, arguments),
    }
}

/// Calls that only some processors have, and those on a descriptor.
fn by_old_name(
    builder: &mut Builder,
    process: &Process,
    task: &Task,
    call: Sysno,
    arguments: [u64; 6],
) -> Vec<Toward> {
    let [first, _, third, ..] = arguments;
    match call.name() {
        "pause" => signal(process),
        "poll" => poll(builder, process, arguments, (third as u32).cast_signed() >= 0),
        "select" => select(builder, process, arguments),
        "epoll_wait" => epoll(builder, process, arguments, call),
        "open" => open(builder, process, first),
        name => match descriptors::purpose(name) {
            Some(wanted) => descriptors::ways(builder, process, first, wanted),
            None if descriptors::is_of_files(name) => {
                descriptors::device(builder, process, task, Some(call), arguments)
            }
            None => vec![Toward::unknown(format!("waits in {name}, which tells nobody whom for"))],
        },
    }
}

/// Whether it waits until a child that shares its memory executes a program or ends.
fn is_vfork(task: &Task, call: Option<Sysno>, arguments: [u64; 6]) -> bool {
    const CLONE_VFORK: u64 = 0x4000;
    let is_asked = match call.map(|call| call.name()) {
        Some("clone") => arguments[0] & CLONE_VFORK != 0,
        // The flags of `clone3` are in memory.
        Some("vfork" | "clone3") => true,
        _ => false,
    };
    is_asked && (task.wchan.contains("vfork") || task.wchan.contains("clone"))
}

/// The call that goes on after a signal or a tracer interrupted it: its number is lost, its arguments are
/// not. By the kernel's stack, which root may read; else by what the arguments can be of.
fn interrupted(process: &Process, task: &Task, arguments: [u64; 6]) -> Option<Sysno> {
    let stack = proc_file::text(format!("/proc/{}/task/{}/stack", process.pid, task.tid));
    let stack = stack.unwrap_or_default() + &task.wchan;
    let kinds = [("futex", Sysno::futex), ("poll", POLL), ("nanosleep", Sysno::clock_nanosleep)];
    let by_stack = kinds.into_iter().find(|(part, _)| stack.contains(part)).map(|(_, call)| call);
    let [first, second, third, ..] = arguments;
    let is_time = |at: u64| process.long(at.wrapping_add(8)).is_some_and(|ns| ns < 1_000_000_000);
    match by_stack {
        // Of both calls that sleep, the older one has the time in front.
        None | Some(Sysno::clock_nanosleep) if first < 16 && second <= 1 && is_time(third) => {
            Some(Sysno::clock_nanosleep)
        }
        Some(Sysno::clock_nanosleep) => Some(Sysno::nanosleep),
        other => other,
    }
}

fn outside_of_calls(task: &Task) -> Toward {
    let at = if task.wchan.is_empty() { String::new() } else { format!(" ({})", task.wchan) };
    match task.state {
        'D' => Toward::End(End::Device(format!("the kernel, outside of any system call{at}"))),
        _ => Toward::unknown(format!("sleeps outside of any system call{at}")),
    }
}

fn waiting(what: &str) -> Vec<Toward> {
    vec![Toward::End(End::Waiting(what.to_owned()))]
}

/// A signal: where it catches that of its children, as shells do that wait for one, perhaps theirs.
fn signal(process: &Process) -> Vec<Toward> {
    const CHILD: u64 = 1 << 16;
    let status = proc_file::text(format!("/proc/{}/status", process.pid)).unwrap_or_default();
    let caught = super::task::field(&status, "SigCgt:").map(|mask| u64::from_str_radix(mask, 16));
    let catches = caught.is_some_and(|mask| mask.is_ok_and(|mask| mask & CHILD != 0));
    let pids = if catches { process.children() } else { Vec::new() };
    if pids.is_empty() {
        return waiting("a signal");
    }
    let way = |&pid: &u32| Toward::Process(pid, child(pids.len()), Source::Inferred);
    let mut ways: Vec<Toward> = pids.iter().take(CHILDREN).map(way).collect();
    ways.push(Toward::Outside("a signal".to_owned(), End::Waiting("a signal".to_owned())));
    ways
}

/// Something that ends the wait beside what is waited for.
fn timer() -> Toward {
    Toward::Outside("a timer".to_owned(), End::Waiting("a timer".to_owned()))
}

/// A sleep, with its time, where the request can be read.
fn sleep(process: &Process, request: u64) -> Toward {
    Toward::End(End::Sleeping(process.long(request).filter(|&seconds| seconds < i64::MAX as u64)))
}

/// A sleep until a point in time of a clock.
fn sleep_until(process: &Process, clock: u64, until: u64) -> Toward {
    let clock = match clock {
        0 => Some(ClockId::Realtime),
        1 => Some(ClockId::Monotonic),
        7 => Some(ClockId::Boottime),
        _ => None,
    };
    let now = clock.map(|clock| clock_gettime(clock).tv_sec);
    let until = process.long(until).and_then(|until| i64::try_from(until).ok());
    let left = now.zip(until).and_then(|(now, until)| u64::try_from(until.checked_sub(now)?).ok());
    Toward::End(End::Sleeping(left))
}

fn futex(process: &Process, arguments: [u64; 6]) -> Vec<Toward> {
    let Some(futex) = Futex::of(arguments) else {
        return vec![Toward::unknown("waits for several locks at once, or for one that moves")];
    };
    let way = match futex.wait(process) {
        Wait::Owner(inner, resource) => match process.by_inner_id(inner) {
            Some(tid) => Toward::Thread(process.pid, tid, resource, Source::Memory),
            None => Toward::unknown("waits for a lock whose owner ended meanwhile"),
        },
        Wait::Foreign(owner, resource) => match process_of(process, owner, arguments[0]) {
            Some(pid) => Toward::Thread(pid, owner, resource, Source::Memory),
            None => Toward::unknown("waits for a lock that a process shares which cannot be found"),
        },
        Wait::Gone(end) => Toward::End(end),
        Wait::AnyThread(address) => {
            Toward::AnyThread(process.pid, Resource::Unowned { address }, Source::Inferred)
        }
        Wait::Shared(address) => Toward::unknown(format!(
            "waits for a lock or semaphore at {address:#x} that processes share and that records no holder"
        )),
    };
    if futex.is_timed { vec![way, timer()] } else { vec![way] }
}

/// The process of a thread that holds a lock in memory which both share. Its id is one of this namespace only
/// where the process that waits is of it.
fn process_of(process: &Process, tid: u32, lock: u64) -> Option<u32> {
    if process.depth != 1 {
        return None;
    }
    let status = proc_file::text(format!("/proc/{tid}/status")).ok()?;
    let pid = super::task::field(&status, "Tgid:")?.parse().ok()?;
    process.shares(lock, pid).then_some(pid)
}

fn child(of: usize) -> Resource {
    Resource::Child { of: u32::try_from(of).unwrap_or(u32::MAX) }
}

fn children(
    process: &Process,
    is_it: impl Fn(u32) -> bool,
    resource: impl Fn(usize) -> Resource,
) -> Vec<Toward> {
    let pids: Vec<u32> = process.children().into_iter().filter(|&pid| is_it(pid)).collect();
    if pids.is_empty() {
        return vec![Toward::unknown("waits for a child that cannot be found")];
    }
    let count = pids.len();
    let way = |pid| Toward::Process(pid, resource(count), Source::Kernel);
    pids.into_iter().take(CHILDREN).map(way).collect()
}

fn waitid(process: &Process, kind: u64, id: u64) -> Vec<Toward> {
    const PID: u64 = 1;
    const PIDFD: u64 = 3;
    match kind {
        PID => {
            let is_it = |pid| process.pid_here(pid).map(u64::from) == Some(id);
            children(process, is_it, child)
        }
        PIDFD => match u32::try_from(id).ok().and_then(|fd| of_pidfd(process.pid, fd)) {
            Some(pid) => vec![Toward::Process(pid, child(1), Source::Kernel)],
            None => vec![Toward::unknown("waits for a child that cannot be found")],
        },
        _ => children(process, |_| true, child),
    }
}

/// The process that a pidfd is of.
pub(super) fn of_pidfd(pid: u32, fd: u32) -> Option<u32> {
    holders::info(pid, fd, "Pid:")?.parse().ok()
}

fn file_lock(builder: &mut Builder, process: &Process, call: Sysno, fd: u64) -> Vec<Toward> {
    let path = link_of(process.pid, fd).unwrap_or_else(|| "a file".to_owned());
    let wanted = locks::wanted_by(process.pid);
    let kind = if call == Sysno::flock { "flock" } else { "fcntl lock" };
    let Some(lock) = wanted.iter().find(|lock| lock.kind == kind).or(wanted.first()) else {
        return vec![Toward::unknown(format!(
            "waits for a lock on {path} that /proc/locks does not list"
        ))];
    };
    let resource = Resource::File(FileLock { kind: lock.kind.to_owned(), path: path.clone() });
    let holder = u32::try_from(lock.holder)
        .ok()
        .filter(|&pid| pid > 0 && std::path::Path::new(&format!("/proc/{pid}")).exists());
    let mut pids: Vec<u32> = holder.into_iter().collect();
    if pids.is_empty() {
        // The lock of an open file, which others have inherited.
        let all = builder.holders().of(&path);
        let file = format!(" {} ", lock.file);
        let holds =
            |it: &holders::Holder| it.info("lock:").is_some_and(|line| line.contains(&file));
        pids = all.into_iter().filter(holds).map(|it| it.pid).collect();
        pids.sort_unstable();
        pids.dedup();
    }
    if pids.is_empty() {
        return vec![Toward::unknown(format!(
            "waits for a lock on {path} whose holder cannot be found"
        ))];
    }
    pids.into_iter().map(|pid| Toward::AnyThread(pid, resource.clone(), Source::Kernel)).collect()
}

/// An open that waits: of a named pipe, for its other end.
fn open(builder: &mut Builder, process: &Process, name: u64) -> Vec<Toward> {
    let mut bytes = [0; PATH];
    let read = super::task::read_memory(process.pid, name, &mut bytes).unwrap_or(0);
    let path = bytes[..read].split(|&byte| byte == 0).next().unwrap_or_default();
    let path = String::from_utf8_lossy(path).into_owned();
    descriptors::opening(builder, process, &path)
}

fn poll(
    builder: &mut Builder,
    process: &Process,
    arguments: [u64; 6],
    is_timed: bool,
) -> Vec<Toward> {
    const IN: u16 = 1;
    let [fds, count, ..] = arguments;
    let mut wanted = Vec::new();
    for at in 0..count.min(descriptors::AWAITED) {
        let Some(entry) = fds.checked_add(8 * at).and_then(|at| process.long(at)) else { break };
        let (fd, events) = (entry as u32, (entry >> 32) as u16);
        if fd.cast_signed() >= 0 {
            let wants = if events == 0 || events & IN != 0 { For::Reading } else { For::Writing };
            wanted.push((u64::from(fd), wants));
        }
    }
    several(builder, process, &wanted, is_timed, count > descriptors::AWAITED)
}

fn select(builder: &mut Builder, process: &Process, arguments: [u64; 6]) -> Vec<Toward> {
    let [count, reading, writing, _, timeout, _] = arguments;
    let mut wanted = Vec::new();
    for (set, wants) in [(reading, For::Reading), (writing, For::Writing)] {
        for at in 0..count.min(1024).div_ceil(64) {
            let word = if set == 0 { None } else { process.long(set.saturating_add(8 * at)) };
            let word = word.unwrap_or(0);
            let fds = (0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| 64 * at + bit);
            wanted.extend(fds.filter(|&fd| fd < count).map(|fd| (fd, wants)));
        }
    }
    if wanted.is_empty() && timeout != 0 {
        return vec![sleep(process, timeout)];
    }
    let is_more = wanted.len() as u64 > descriptors::AWAITED;
    wanted.truncate(descriptors::AWAITED as usize);
    several(builder, process, &wanted, timeout != 0, is_more)
}

fn epoll(
    builder: &mut Builder,
    process: &Process,
    arguments: [u64; 6],
    call: Sysno,
) -> Vec<Toward> {
    const IN: u64 = 1;
    let [fd, _, _, timeout, ..] = arguments;
    let is_timed = if call == Sysno::epoll_pwait2 {
        timeout != 0
    } else {
        (timeout as u32).cast_signed() >= 0
    };
    let path = format!("/proc/{}/fdinfo/{fd}", process.pid);
    let text = proc_file::text(path).unwrap_or_default();
    let mut wanted = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("tfd:")) {
        let mut words = line.split_whitespace();
        let (Some(fd), Some(events)) = (words.next(), words.nth(1)) else { continue };
        let (Ok(fd), Ok(events)) = (fd.parse(), u64::from_str_radix(events, 16)) else { continue };
        let wants = if events & IN != 0 { For::Reading } else { For::Writing };
        wanted.push((fd, wants));
    }
    let is_more = wanted.len() as u64 > descriptors::AWAITED;
    wanted.truncate(descriptors::AWAITED as usize);
    several(builder, process, &wanted, is_timed, is_more)
}

/// A wait for any of several descriptors.
fn several(
    builder: &mut Builder,
    process: &Process,
    wanted: &[(u64, For)],
    is_timed: bool,
    is_more: bool,
) -> Vec<Toward> {
    let mut ways = Vec::new();
    for &(fd, wants) in wanted {
        ways.extend(descriptors::ways(builder, process, fd, wants));
    }
    // Both ends in one process: by that, a thread wakes another that waits for events.
    for way in &mut ways {
        if let Toward::AnyThread(pid, resource, source) = way
            && *pid == process.pid
        {
            (*resource, *source) = (Resource::WakeUp, Source::Inferred);
        }
    }
    if is_timed {
        ways.push(timer());
    }
    if is_more {
        ways.push(Toward::unknown("waits for more descriptors than are looked at"));
    }
    if ways.is_empty() { waiting("a signal") } else { ways }
}
