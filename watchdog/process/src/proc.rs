//! What `/proc` tells about a process: evidence and cross-checks, no proof.
//!
//! A pid is only a number here. Whoever must know that the answers are about
//! one certain process holds its [`Pidfd`](crate::pidfd::Pidfd) and asks, after
//! reading, whether it is still alive. That a process is gone is a value
//! (`None`), never an error; an error is a refusal, most often `EACCES`.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;

use rustix::process::Pid;

use hangwatch::sys::maps::{task_dirs, thread_dirs};
use hangwatch::sys::proc_file::{self, ORDINARY_BYTES, is_gone};
pub use hangwatch::sys::stat::{Stat, State};

/// How many arguments of a process are kept at most.
pub const MOST_ARGUMENTS: usize = 1024;
/// How much of an environment is searched at most, bytes: more than an exec takes, which is 6 MiB.
const ENVIRONMENT_BYTES: u64 = 8 << 20;
/// When the process started, in clock ticks after boot (field 22 of
/// `/proc/PID/stat`). Not unique: two processes may start in one tick.
///
/// # Errors
/// Where `/proc` refuses.
pub fn start_time(pid: Pid) -> io::Result<Option<u64>> {
    Ok(Stat::of(pid)?.map(|stat| stat.start_ticks))
}

/// The process's state, that of its first thread.
///
/// # Errors
/// Where `/proc` refuses.
pub fn state(pid: Pid) -> io::Result<Option<State>> {
    Ok(Stat::of(pid)?.map(|stat| stat.state))
}

/// Whether something holds a process up that is not its own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The state of its first thread.
    pub state: State,
    /// The thread that traces it (a debugger's), if any does.
    pub tracer: Option<Pid>,
    /// As which users it runs.
    pub users: Users,
    /// What it may do beside that.
    pub privileges: Privileges,
}

/// The groups and capabilities of a process: what an exec can give it without another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Its real, effective and saved group.
    pub groups: [u32; 3],
    /// The capabilities that it has or may take on, a bit each.
    pub capabilities: u64,
}

impl Privileges {
    /// Whether a process with these privileges may have come to have `others` by its own doing: it may
    /// give up capabilities, and without an exec it gains none.
    pub fn cover(self, others: Privileges) -> bool {
        self.groups == others.groups && others.capabilities & !self.capabilities == 0
    }
}

/// As which users a process runs: root may take on any, and a set-user-ID program has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// Who started it.
    pub real: u32,
    /// Whose rights it has.
    pub effective: u32,
    /// Whose rights it may take on again.
    pub saved: u32,
}

impl Users {
    /// Whether a process that runs as these users might signal one that runs as `other`: the kernel's
    /// rule, see kill(2).
    pub fn may_signal(self, other: Users) -> bool {
        let is_others = |user| user == other.real || user == other.saved;
        self.effective == 0 || is_others(self.real) || is_others(self.effective)
    }
}

/// The process's state, tracer, users and privileges, of one moment.
///
/// # Errors
/// Where `/proc` refuses.
pub fn standing(pid: Pid) -> io::Result<Option<Standing>> {
    Ok(read(pid, "status")?.as_deref().and_then(|status| {
        let letter = status.lines().find_map(|line| line.strip_prefix("State:"))?;
        let state = State::of_letter(letter.trim_start().chars().next()?);
        let (users, privileges) = (parse_users(status)?, parse_privileges(status)?);
        Some(Standing { state, tracer: parse_tracer(status), users, privileges })
    }))
}

/// What tells the program a process runs from the one it ran before an exec: where
/// its code and its stack begin. Both are placed at random by default; where they
/// are not, or may not be seen (they then read 0), two programs may look alike:
/// [`Memory`] tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    code: u64,
    stack: u64,
}

impl Image {
    /// `None` where there is no memory to hold a program, or it may not be seen.
    fn of(stat: Stat) -> Option<Image> {
        (stat.code > 1).then_some(Image { code: stat.code, stack: stat.stack })
    }
}

/// The program that the process runs now. `None` if it is gone, or has given up
/// its memory already and is about to be.
///
/// # Errors
/// Where `/proc` refuses.
///
/// `None` also where it may not be seen: of a process that is not dumpable, or has given up its user,
/// by one that may not trace it.
pub fn image(pid: Pid) -> io::Result<Option<Image>> {
    if let image @ Some(_) = Stat::of(pid)?.and_then(Image::of) {
        return Ok(image);
    }
    // A first thread that has ended has no memory; the others have.
    for task in task_dirs(pid)? {
        if let image @ Some(_) = Stat::in_dir(&task)?.and_then(Image::of) {
            return Ok(image);
        }
    }
    Ok(None)
}

/// A handle on the memory of the program that a process runs. By it a program is told from the next one,
/// also where their [`Image`]s are alike, since the kernel places nothing at random.
#[derive(Debug)]
pub struct Memory(fs::File);

impl Memory {
    /// That of the program which the process runs now. `None` if it is gone or has given up its memory, or
    /// the kernel tells nothing of it (`CONFIG_PROC_PAGE_MONITOR`).
    ///
    /// # Errors
    /// Where `/proc` refuses, to all who may not trace the process; where no descriptor is left.
    pub fn of(pid: Pid) -> io::Result<Option<Memory>> {
        // As in `any_mapping`: a first thread that is ending has none, the others have.
        let dirs = task_dirs(pid)?.into_iter().chain(thread_dirs(pid)?);
        for dir in dirs {
            match fs::File::open(dir.join("pagemap")).map(Memory) {
                Ok(memory) if memory.is_in_use() => return Ok(Some(memory)),
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Whether that program is run still. Waits for nobody.
    pub fn is_in_use(&self) -> bool {
        // Of memory that is there, a piece of an entry is refused; of memory that is gone, nothing is read.
        !matches!(rustix::io::read(&self.0, &mut [0]), Ok(0))
    }
}

/// The name of the process's first thread, as the process chose it.
///
/// # Errors
/// Where `/proc` refuses.
pub fn comm(pid: Pid) -> io::Result<Option<String>> {
    Ok(read(pid, "comm")?.map(|text| text.trim_end_matches('\n').to_owned()))
}

/// The arguments the process was started with, or what it wrote over them; the first
/// [`MOST_ARGUMENTS`] of them, and no more than 64 KiB. None of them for a process that has ended.
///
/// # Errors
/// Where `/proc` refuses.
pub fn cmdline(pid: Pid) -> io::Result<Option<Vec<String>>> {
    let Some(text) = read(pid, "cmdline")? else { return Ok(None) };
    let text = text.strip_suffix('\0').unwrap_or(&text);
    if text.is_empty() {
        return Ok(Some(Vec::new()));
    }
    Ok(Some(text.split('\0').take(MOST_ARGUMENTS).map(Into::into).collect()))
}

/// A variable of the environment that the process was executed with; what it
/// has changed since is not seen. `None` too if the process is gone, or the variable is longer than 64 KiB.
///
/// # Errors
/// Where `/proc` refuses, to all who may not trace the process.
pub fn environment_variable(pid: Pid, name: &str) -> io::Result<Option<OsString>> {
    let value = |one: &[u8]| {
        one.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")).map(Vec::from)
    };
    Ok(of_environment(pid, value)?.map(OsString::from_vec))
}

/// Whether the environment that the process was executed with has this assignment, `NAME=value` of at most
/// 64 KiB, anywhere.
///
/// # Errors
/// As [`environment_variable`].
pub fn has_in_environment(pid: Pid, assignment: &str) -> io::Result<bool> {
    let is_it = |one: &[u8]| (one == assignment.as_bytes()).then_some(());
    Ok(of_environment(pid, is_it)?.is_some())
}

fn of_environment<T>(pid: Pid, find: impl Fn(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
    let environment = match fs::File::open(format!("/proc/{}/environ", pid.as_raw_pid())) {
        Ok(environment) => BufReader::new(environment.take(ENVIRONMENT_BYTES)),
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    match find_variable(environment, find) {
        Err(error) if is_gone(&error) => Ok(None),
        found => found,
    }
}

/// What is found first among the variables in `environment`, each of which a zero byte ends.
fn find_variable<T>(
    mut environment: impl BufRead,
    find: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    loop {
        let mut variable = Vec::new();
        let mut bounded = environment.by_ref().take(ORDINARY_BYTES);
        bounded.read_until(0, &mut variable)?;
        if variable.pop() != Some(0) {
            if bounded.limit() > 0 {
                return Ok(None); // the end, or cut by the bound
            }
            environment.skip_until(0)?;
            continue;
        }
        if let Some(found) = find(&variable) {
            return Ok(Some(found));
        }
    }
}

/// The process that a thread is of; `None` where there is no such thread.
///
/// # Errors
///
/// The kernel's.
pub fn process_of(tid: Pid) -> io::Result<Option<Pid>> {
    Ok(read(tid, "status")?.as_deref().and_then(|status| parse_pid(status, "Tgid:")))
}

/// The kernel function that the process's first thread sleeps in, if it sleeps
/// and the kernel tells.
///
/// # Errors
/// Where `/proc` refuses: since Linux 4.4 to all who may not trace it.
pub fn wchan(pid: Pid) -> io::Result<Option<String>> {
    Ok(read(pid, "wchan")?.filter(|name| !name.is_empty() && name != "0"))
}

/// The first 64 KiB of a file of `/proc/PID`; what is not UTF-8 is replaced.
fn read(pid: Pid, file: impl Display) -> io::Result<Option<String>> {
    Ok(read_bytes(pid, file)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// The first 64 KiB of a file of `/proc/PID`.
pub(crate) fn read_bytes(pid: Pid, file: impl Display) -> io::Result<Option<Vec<u8>>> {
    match proc_file::bytes(format!("/proc/{}/{file}", pid.as_raw_pid()), ORDINARY_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_tracer(status: &str) -> Option<Pid> {
    parse_pid(status, "TracerPid:")
}

fn parse_pid(status: &str, field: &str) -> Option<Pid> {
    let pid = status.lines().find_map(|line| line.strip_prefix(field))?;
    pid.trim().parse().ok().filter(|&pid| pid > 0).and_then(Pid::from_raw)
}

/// The line of `status` with the real, effective, saved and file system's user.
fn parse_users(status: &str) -> Option<Users> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut users = line.split_ascii_whitespace().map(|user| user.parse().ok());
    let mut next = || users.next()?;
    Some(Users { real: next()?, effective: next()?, saved: next()? })
}

/// The groups of the line `Gid`, and the permitted capabilities.
fn parse_privileges(status: &str) -> Option<Privileges> {
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
    let mut groups = field("Gid:")?.split_ascii_whitespace().map(|group| group.parse().ok());
    let mut next = || groups.next()?;
    let groups = [next()?, next()?, next()?];
    let capabilities = u64::from_str_radix(field("CapPrm:")?.trim(), 16).ok()?;
    Some(Privileges { groups, capabilities })
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use hangwatch_test_children::{Mark, fork, fork_headless, pause_for_ever, trace};

    use super::*;

    /// Asks until the answer is as hoped: the kernel takes its time.
    fn until(mut check: impl FnMut() -> bool) {
        while !check() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_memory_of_a_program_is_in_use_until_the_next_is_executed() {
        use std::process::{Command, Stdio};
        let shell = ["-c", "read line; exec sleep 600"];
        let mut child = Command::new("sh").args(shell).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let first = Memory::of(pid).unwrap().unwrap();
        assert!(first.is_in_use());
        drop(child.stdin.take()); // the shell reads the end of its input, and goes on
        until(|| !first.is_in_use());
        let second = Memory::of(pid).unwrap().unwrap();
        assert!(second.is_in_use() && !first.is_in_use());
        child.kill().unwrap();
        until(|| !second.is_in_use());
        child.wait().unwrap();
        assert!(Memory::of(pid).unwrap().is_none());
    }

    #[test]
    fn who_may_signal_whom_is_the_kernels_rule() {
        let users = |real, effective, saved| Users { real, effective, saved };
        let user = users(7, 7, 7);
        for (target, may) in [
            (user, true),
            (users(7, 0, 0), true), // a set-user-ID program that they started
            (users(0, 0, 0), false),
            (users(8, 7, 8), false),
            (users(8, 8, 7), true),
        ] {
            assert_eq!(user.may_signal(target), may, "{target:?}");
            assert!(users(0, 0, 0).may_signal(target));
        }
        assert!(!users(7, 7, 0).may_signal(users(0, 0, 0)), "not before it takes it on");
        assert_eq!(parse_users("Uid:\t1\t2\t3\t4\n"), Some(users(1, 2, 3)));
        assert_eq!(parse_users("Gid:\t1\t2\t3\t4\n"), None);
    }

    #[test]
    fn privileges_are_given_up_and_never_gained() {
        let of = |groups, capabilities| Privileges { groups, capabilities };
        let admitted = of([7, 7, 7], 0b110);
        for (now, covered) in [
            (admitted, true),
            (of([7, 7, 7], 0b100), true),
            (of([7, 7, 7], 0b111), false), // a program with file capabilities
            (of([7, 5, 5], 0b110), false), // a set-group-ID program
        ] {
            assert_eq!(admitted.cover(now), covered, "{now:?}");
        }
        let status = "Gid:\t1\t2\t3\t4\nGroups:\t5 \nCapPrm:\t00000000a80425fb\n";
        assert_eq!(parse_privileges(status), Some(of([1, 2, 3], 0xa804_25fb)));
        assert_eq!(parse_privileges("Gid:\t1\t2\t3\t4\n"), None);
    }

    #[test]
    fn a_variable_is_found_behind_an_endless_one() {
        let mut environment = b"A=1\0LONG=".to_vec();
        environment.resize(environment.len() + 3 * ORDINARY_BYTES as usize, b'x');
        environment.extend(b"\0AB=2\0B=\xff\0CUT=3");
        let find = |name: &[u8]| {
            let value = |one: &[u8]| one.strip_prefix(name)?.strip_prefix(b"=").map(Vec::from);
            find_variable(&environment[..], value).unwrap()
        };
        assert_eq!(find(b"A").as_deref(), Some(&b"1"[..]));
        assert_eq!(find(b"B").as_deref(), Some(&b"\xff"[..]));
        assert_eq!(find(b"LONG"), None, "too long to be kept");
        assert_eq!(find(b"CUT"), None, "cut by the bound");
    }

    /// As a worker that writes zeros over its arguments: each zero byte ends one.
    #[test]
    fn a_command_line_of_any_length_is_read_within_bounds() {
        let many: Vec<String> = (0..200_000).map(|_| String::new()).collect();
        let mut child = std::process::Command::new("sleep").arg("600").args(&many).spawn().unwrap();
        let pid = Pid::from_child(&child);
        // During the exec there are none for a moment.
        let read = || cmdline(pid).unwrap().unwrap();
        until(|| read().first().is_some_and(|program| program == "sleep"));
        let args = read();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((args[0].as_str(), args[1].as_str()), ("sleep", "600"));
        assert_eq!(args.len(), MOST_ARGUMENTS);
    }

    #[test]
    fn a_process_is_described() {
        let pid = getpid();
        assert!(start_time(pid).unwrap().unwrap() > 0);
        assert_eq!(start_time(pid).unwrap(), start_time(pid).unwrap());
        assert!(matches!(state(pid).unwrap(), Some(State::Running | State::Sleeping)));
        assert!(!comm(pid).unwrap().unwrap().ends_with('\n'));
        let args: Vec<String> = std::env::args().collect();
        assert_eq!(cmdline(pid).unwrap().unwrap(), args);
        assert_eq!(environment_variable(pid, "PATH").unwrap(), std::env::var_os("PATH"));
        assert_eq!(environment_variable(pid, "PAT").unwrap(), None);
    }

    #[test]
    fn a_process_that_is_gone_is_none_everywhere() {
        let child = fork(|| pause_for_ever());
        let pid = child.pid();
        child.kill();
        assert_eq!(start_time(pid).unwrap(), None);
        assert_eq!(state(pid).unwrap(), None);
        assert_eq!(comm(pid).unwrap(), None);
        assert_eq!(cmdline(pid).unwrap(), None);
        assert_eq!(environment_variable(pid, "PATH").unwrap(), None);
        assert_eq!(wchan(pid).unwrap(), None);
    }

    #[test]
    fn the_states_of_a_child_are_seen() {
        let child = fork(|| pause_for_ever());
        let pid = child.pid();
        until(|| state(pid).unwrap() == Some(State::Sleeping));
        kill_process(pid, Signal::STOP).unwrap();
        until(|| state(pid).unwrap() == Some(State::Stopped));
        let seen = standing(pid).unwrap().unwrap();
        assert_eq!((seen.state, seen.tracer), (State::Stopped, None));
        let own = rustix::process::getuid().as_raw();
        assert_eq!(seen.users, Users { real: own, effective: own, saved: own });
        kill_process(pid, Signal::CONT).unwrap();
        until(|| state(pid).unwrap() == Some(State::Sleeping));
        kill_process(pid, Signal::KILL).unwrap();
        until(|| state(pid).unwrap() == Some(State::Zombie));
        assert_eq!(cmdline(pid).unwrap(), Some(vec![]));
    }

    #[test]
    fn a_program_is_told_from_the_one_before_it() {
        let child = fork(|| pause_for_ever());
        let pid = child.pid();
        let first = image(pid).unwrap().unwrap();
        assert_eq!(image(pid).unwrap(), Some(first));
        let stat = |code, stack| {
            let fields: Vec<String> = (4..=25).map(|n| n.to_string()).collect();
            let text = format!("7 (x y) S {} {code} 27 {stack} 29", fields.join(" "));
            Stat::parse(&text).and_then(Image::of)
        };
        assert_eq!(stat(111, 222), Some(Image { code: 111, stack: 222 }));
        assert_ne!(stat(111, 222), stat(111, 223));
        assert_eq!(stat(0, 0), None, "no memory is no program");
        assert_eq!(stat(1, 0), None, "what may not be seen is no other program");
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_runs_the_same_program() {
        let child = fork_headless(|| ());
        assert_eq!(image(child.pid()).unwrap(), image(getpid()).unwrap());
        assert!(image(child.pid()).unwrap().is_some());
    }

    #[test]
    fn a_tracer_is_named() {
        let child = fork(|| pause_for_ever());
        let tracer_of = |pid| standing(pid).unwrap().and_then(|seen| seen.tracer);
        assert_eq!(tracer_of(child.pid()), None);
        // Tracing is by thread, and the tracer is told by its process or
        // thread: a child of one thread leaves no doubt.
        let ready = Mark::new();
        let target = child.pid();
        let tracer = fork(|| {
            let traced = trace(target);
            ready.send(i32::from(traced.is_ok()));
            pause_for_ever()
        });
        if ready.wait() == 0 {
            println!("skipped: may not trace here");
            return;
        }
        assert_eq!(tracer_of(child.pid()), Some(tracer.pid()));
    }

    #[test]
    fn a_thread_is_found_to_be_of_its_process() {
        let own = std::thread::spawn(|| process_of(rustix::thread::gettid())).join().unwrap();
        assert_eq!(own.unwrap(), Some(getpid()));
    }

    /// The fault: a program's mark behind 64 KiB of other variables was not seen.
    #[test]
    fn an_assignment_is_found_wherever_it_stands_in_a_large_environment() {
        let mut command = std::process::Command::new("sleep");
        command.arg("600").env_clear().env("ZZ", "mark");
        for number in 0..12 {
            command.env(format!("FILLER_{number}"), "x".repeat(100_000));
        }
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_child(&child);
        let has = |assignment: &str| has_in_environment(pid, assignment).unwrap();
        until(|| has("ZZ=mark")); // during the exec there is no environment for a moment
        let found = (has("ZZ=mark"), has("ZZ=mar"), has("Z=mark"));
        let value = environment_variable(pid, "ZZ").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, (true, false, false));
        assert_eq!(value, Some("mark".into()));
    }
}
