//! What `/proc` tells about a process: evidence and cross-checks, no proof.
//!
//! A pid is only a number here. Whoever must know that the answers are about
//! one certain process holds its [`Pidfd`](super::pidfd::Pidfd) and asks, after
//! reading, whether it is still alive. That a process is gone is a value
//! (`None`), never an error; an error is a refusal, most often `EACCES`.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::Pid;

use super::file::FileId;

/// What the process's first thread is about, by the letter in `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// `R`: on a processor, or waiting for one.
    Running,
    /// `S`, `I`: asleep, to be woken by a signal.
    Sleeping,
    /// `D`: asleep, not to be woken by a signal.
    Uninterruptible,
    /// `T`: stopped by a signal.
    Stopped,
    /// `t`: stopped by its tracer.
    Traced,
    /// `Z`, `X`: ended. Other threads of the process may live on.
    Zombie,
    /// A letter of another kernel.
    Other(char),
}

/// When the process started, in clock ticks after boot (field 22 of
/// `/proc/PID/stat`). Not unique: two processes may start in one tick.
///
/// # Errors
/// Where `/proc` refuses.
pub fn start_time(pid: Pid) -> io::Result<Option<u64>> {
    Ok(read(pid, "stat")?.as_deref().and_then(parse_start_time))
}

/// The process's state, that of its first thread.
///
/// # Errors
/// Where `/proc` refuses.
pub fn state(pid: Pid) -> io::Result<Option<State>> {
    Ok(read(pid, "stat")?.as_deref().and_then(parse_state))
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

/// The process's state, tracer and users, of one moment.
///
/// # Errors
/// Where `/proc` refuses.
pub fn standing(pid: Pid) -> io::Result<Option<Standing>> {
    Ok(read(pid, "status")?.as_deref().and_then(|status| {
        let letter = status.lines().find_map(|line| line.strip_prefix("State:"))?;
        let state = parse_letter(letter.trim_start().chars().next()?);
        Some(Standing { state, tracer: parse_tracer(status), users: parse_users(status)? })
    }))
}

/// What tells the program a process runs from the one it ran before an exec: where
/// its code and its stack begin. Both are placed at random by default; where they
/// are not, or may not be seen (they then read 0), two programs may look alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    code: u64,
    stack: u64,
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
    if let image @ Some(_) = read(pid, "stat")?.as_deref().and_then(parse_image) {
        return Ok(image);
    }
    // A first thread that has ended has no memory; the others have.
    for task in task_dirs(pid)? {
        match fs::read(task.join("stat")) {
            Ok(stat) => {
                if let image @ Some(_) = parse_image(&String::from_utf8_lossy(&stat)) {
                    return Ok(image);
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The name of the process's first thread, as the process chose it.
///
/// # Errors
/// Where `/proc` refuses.
pub fn comm(pid: Pid) -> io::Result<Option<String>> {
    Ok(read(pid, "comm")?.map(|text| text.trim_end_matches('\n').to_owned()))
}

/// The arguments the process was started with, or what it wrote over them.
/// None of them for a process that has ended.
///
/// # Errors
/// Where `/proc` refuses.
pub fn cmdline(pid: Pid) -> io::Result<Option<Vec<String>>> {
    let Some(text) = read(pid, "cmdline")? else { return Ok(None) };
    let text = text.strip_suffix('\0').unwrap_or(&text);
    let args =
        if text.is_empty() { Vec::new() } else { text.split('\0').map(Into::into).collect() };
    Ok(Some(args))
}

/// A variable of the environment that the process was executed with; what it
/// has changed since is not seen. `None` too if the process is gone.
///
/// # Errors
/// Where `/proc` refuses, to all who may not trace the process.
pub fn environment_variable(pid: Pid, name: &str) -> io::Result<Option<OsString>> {
    let environment = match fs::read(format!("/proc/{}/environ", pid.as_raw_pid())) {
        Ok(environment) => environment,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut variables = environment.split(|&byte| byte == 0);
    let value =
        variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    Ok(value.map(|value| OsString::from_vec(value.to_vec())))
}

/// The process that a thread is of; `None` where there is no such thread.
///
/// # Errors
///
/// The kernel's.
pub fn process_of(tid: Pid) -> io::Result<Option<Pid>> {
    Ok(read(tid, "status")?.as_deref().and_then(|status| parse_pid(status, "Tgid:")))
}

/// The thread that traces this process (a debugger's), if any does. `None` too if
/// the process is gone.
///
/// # Errors
/// Where `/proc` refuses.
pub fn tracer_pid(pid: Pid) -> io::Result<Option<Pid>> {
    Ok(read(pid, "status")?.as_deref().and_then(parse_tracer))
}

/// The kernel function that the process's first thread sleeps in, if it sleeps
/// and the kernel tells.
///
/// # Errors
/// Where `/proc` refuses: since Linux 4.4 to all who may not trace it.
pub fn wchan(pid: Pid) -> io::Result<Option<String>> {
    Ok(read(pid, "wchan")?.filter(|name| !name.is_empty() && name != "0"))
}

/// Whether the process has this file mapped. False if it is gone.
///
/// # Errors
/// Where `/proc` refuses, to all who may not trace the process.
pub fn maps_segment(pid: Pid, file: FileId) -> io::Result<bool> {
    for dir in task_dirs(pid)? {
        let maps = match fs::File::open(dir.join("maps")) {
            Ok(maps) => BufReader::new(maps),
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        for line in maps.split(b'\n') {
            match line {
                Ok(line) if parse_mapped_file(&line) == Some(file) => return Ok(true),
                Ok(_) => {}
                Err(error) if is_gone(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(false)
}

/// The directories in `/proc` that stand for the process's memory and open
/// files: its own; if its first thread has ended, those of the others, since
/// its own then shows nothing.
pub(super) fn task_dirs(pid: Pid) -> io::Result<Vec<PathBuf>> {
    let own = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
    if state(pid)? != Some(State::Zombie) {
        return Ok(vec![own]);
    }
    match fs::read_dir(own.join("task")) {
        Ok(tasks) => Ok(tasks.filter_map(|task| Some(task.ok()?.path())).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether this is how `/proc` says that a process, or a thing of it, is gone.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// A file of `/proc/PID`; what is not UTF-8 is replaced.
pub(super) fn read(pid: Pid, file: impl Display) -> io::Result<Option<String>> {
    match fs::read(format!("/proc/{}/{file}", pid.as_raw_pid())) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The fields of `stat` from the third on. The second, in parentheses, is the
/// process's own choice and may hold spaces and parentheses: the last one ends
/// it.
fn stat_fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

fn parse_start_time(stat: &str) -> Option<u64> {
    stat_fields(stat)?.nth(22 - 3)?.parse().ok()
}

fn parse_state(stat: &str) -> Option<State> {
    Some(parse_letter(stat_fields(stat)?.next()?.chars().next()?))
}

/// What `stat` says of a program; `None` where there is no memory to hold one:
/// its code then begins at 0; or where it may not be seen: at 1.
fn parse_image(stat: &str) -> Option<Image> {
    let mut fields = stat_fields(stat)?;
    let code = fields.nth(26 - 3)?.parse().ok().filter(|&code| code > 1)?;
    let stack = fields.nth(28 - 27)?.parse().ok()?;
    Some(Image { code, stack })
}

fn parse_letter(letter: char) -> State {
    match letter {
        'R' => State::Running,
        'S' | 'I' => State::Sleeping,
        'D' => State::Uninterruptible,
        'T' => State::Stopped,
        't' => State::Traced,
        'Z' | 'X' | 'x' => State::Zombie,
        other => State::Other(other),
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

/// The file of a line of `maps`: `start-end perms offset major:minor inode ...`.
fn parse_mapped_file(line: &[u8]) -> Option<FileId> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(3)?).ok()?;
    let inode = std::str::from_utf8(fields.next()?).ok()?;
    let ino = inode.parse().ok()?;
    Some(FileId { dev: parse_device(device)?, ino })
}

/// A device as `/proc` writes it, `major:minor` in hexadecimal.
pub(super) fn parse_device(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(rustix::fs::makedev(number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::super::mapping::{Mapping, Prefault};
    use super::super::testing::{
        Mark, fork, fork_headless, id_of, pause_for_ever, shm_file, trace,
    };
    use super::*;

    /// Asks until the answer is as hoped: the kernel takes its time.
    fn until(mut check: impl FnMut() -> bool) {
        while !check() {
            std::thread::yield_now();
        }
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
        assert_eq!(tracer_pid(pid).unwrap(), None);
        assert_eq!(wchan(pid).unwrap(), None);
        assert!(!maps_segment(pid, FileId { dev: 1, ino: 1 }).unwrap());
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
            parse_image(&format!("7 (x y) S {} {code} 27 {stack} 29", fields.join(" ")))
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
        assert_eq!(tracer_pid(child.pid()).unwrap(), None);
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
        assert_eq!(tracer_pid(child.pid()).unwrap(), Some(tracer.pid()));
    }

    #[test]
    fn a_thread_is_found_to_be_of_its_process() {
        let own = std::thread::spawn(|| process_of(rustix::thread::gettid())).join().unwrap();
        assert_eq!(own.unwrap(), Some(getpid()));
    }

    #[test]
    fn a_mapping_is_seen_while_it_is_there() {
        let file = shm_file(4096);
        let id = id_of(&file);
        let (mapped, unmap, unmapped) = (Mark::new(), Mark::new(), Mark::new());
        let child = fork(|| {
            let mapping = Mapping::new(&file, 4096, Prefault::OnUse).unwrap();
            mapped.send(0);
            unmap.wait();
            drop(mapping);
            unmapped.send(0);
            pause_for_ever()
        });
        mapped.wait();
        assert!(maps_segment(child.pid(), id).unwrap());
        let other = FileId { ino: id.ino + 1, ..id };
        assert!(!maps_segment(child.pid(), other).unwrap());
        unmap.send(0);
        unmapped.wait();
        assert!(!maps_segment(child.pid(), id).unwrap());
    }

    #[test]
    fn a_mapping_is_seen_after_the_first_thread_has_ended() {
        let file = shm_file(4096);
        let child = fork_headless(|| {
            Mapping::new(&file, 4096, Prefault::OnUse).unwrap().leak();
        });
        assert!(maps_segment(child.pid(), id_of(&file)).unwrap());
    }

    #[test]
    fn stat_is_read_behind_whatever_name_the_process_chose() {
        let tail = (4..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["(a)", "(a b)", "() R 1 (x) S 2)", "(Z)"] {
            let stat = format!("77 {name} D {tail} 987654 23 24\n");
            assert_eq!(parse_start_time(&stat), Some(987_654), "{stat}");
            assert_eq!(parse_state(&stat), Some(State::Uninterruptible), "{stat}");
        }
        for bad in ["", "77", "77 (a)", "77 (a) R 4 5"] {
            assert_eq!(parse_start_time(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_line_of_maps_gives_its_file() {
        let line = b"7f00-7f01 rw-s 00000000 00:1a 5678          /dev/shm/a b (deleted)";
        let dev = rustix::fs::makedev(0, 0x1a);
        assert_eq!(parse_mapped_file(line), Some(FileId { dev, ino: 5678 }));
        for bad in [&b""[..], b"7f00-7f01 rw-s 0", b"7f00-7f01 rw-s 0 xx 1", b"\xff \xff \xff \xff"]
        {
            assert_eq!(parse_mapped_file(bad), None);
        }
    }
}
