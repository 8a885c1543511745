//! `/proc/PID/stat`: the one parser of it in this workspace.

use std::io;
use std::path::Path;

use rustix::process::Pid;

use super::proc_file::{self, ORDINARY_BYTES, is_gone};

/// The state of a thread, by its letter in `/proc/PID/stat`.
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

/// What `/proc/PID/stat` says of a process, or `/proc/PID/task/TID/stat` of a thread.
///
/// See [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Of its first thread, or of the thread.
    pub state: State,
    /// `None` if the parent lies outside our PID namespace, or is the kernel.
    pub parent: Option<Pid>,
    /// The process group; `None` if its leader lies outside our PID namespace, or the process has just
    /// ended.
    pub group: Option<Pid>,
    /// Threads, counting a first thread that has ended before the others.
    pub threads: u32,
    /// When it started, in clock ticks after boot. Not unique: two processes may start in one tick.
    pub start_ticks: u64,
    /// Where its program's code begins: 0 without memory, 1 where it may not be seen.
    pub code: u64,
    /// Where its stack begins; 0 where it may not be seen.
    pub stack: u64,
}

impl Stat {
    /// Of a process; `None` if it is gone.
    ///
    /// # Errors
    /// Where `/proc` refuses, or the text is not as proc(5) describes it.
    pub fn of(pid: Pid) -> io::Result<Option<Stat>> {
        Stat::in_dir(Path::new(&format!("/proc/{}", pid.as_raw_pid())))
    }

    /// As [`Stat::of`], of the process or thread that a directory of `/proc` stands for.
    ///
    /// # Errors
    /// As [`Stat::of`].
    pub fn in_dir(dir: &Path) -> io::Result<Option<Stat>> {
        let stat = dir.join("stat");
        let text = match proc_file::bytes(&stat, ORDINARY_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let parsed = Stat::parse(&String::from_utf8_lossy(&text));
        parsed.map(Some).ok_or_else(|| {
            io::Error::other(format!("{} is not as proc(5) describes it", stat.display()))
        })
    }

    /// The second field, in parentheses, is chosen by the process and may hold spaces and parentheses:
    /// the last one ends it.
    pub fn parse(text: &str) -> Option<Stat> {
        let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = State::of_letter(fields.next()?.chars().next()?); // field 3
        let mut number = |skipped| fields.nth(skipped)?.parse::<i64>().ok();
        let (parent, group) = (number(0)?, number(0)?);
        let threads = u32::try_from(number(20 - 6)?).ok()?;
        let mut unsigned = |skipped| fields.nth(skipped)?.parse::<u64>().ok();
        let start_ticks = unsigned(22 - 21)?;
        let (code, stack) = (unsigned(26 - 23)?, unsigned(28 - 27)?);
        let pid = |number: i64| Pid::from_raw(i32::try_from(number).ok().filter(|&pid| pid > 0)?);
        let (parent, group) = (pid(parent), pid(group));
        Some(Stat { state, parent, group, threads, start_ticks, code, stack })
    }

    /// Whether only its exit status is left. (A process whose first thread has ended looks like a zombie
    /// as well, but lives.)
    pub fn is_dead(&self) -> bool {
        self.state == State::Zombie && self.threads <= 1
    }
}

impl State {
    /// By its letter.
    pub fn of_letter(letter: char) -> State {
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

    /// Its letter; the commonest where the kernel has several.
    pub fn letter(self) -> char {
        match self {
            State::Running => 'R',
            State::Sleeping => 'S',
            State::Uninterruptible => 'D',
            State::Stopped => 'T',
            State::Traced => 't',
            State::Zombie => 'Z',
            State::Other(letter) => letter,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::*;

    fn stat(name: &str, head: &str, threads: u32) -> Option<Stat> {
        let rest = "1 0 -1 0 0 0 0 0 0 0 0 0 20 0";
        Stat::parse(&format!("42 ({name}) {head} {rest} {threads} 0 777 1 2 3 111 5 222 7"))
    }

    #[test]
    fn fields_are_read_behind_any_name() {
        for name in ["a", "a) R 1 (b", "x (y) z", ") S 1 1", ""] {
            let stat = stat(name, "S 41 1", 3).unwrap();
            assert_eq!((stat.state, stat.parent), (State::Sleeping, Pid::from_raw(41)), "{name:?}");
            assert_eq!((stat.threads, stat.start_ticks), (3, 777));
            assert_eq!((stat.code, stat.stack), (111, 222));
        }
        assert_eq!(Stat::parse("42 (a) S 41"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_process_that_has_just_ended_has_no_group() {
        let stat = stat("a", "X 0 -1", 0).unwrap();
        assert_eq!((stat.parent, stat.group), (None, None));
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_not_dead() {
        assert!(stat("a", "Z 41 1", 1).unwrap().is_dead());
        assert!(!stat("a", "Z 41 1", 2).unwrap().is_dead());
    }

    #[test]
    fn the_own_process_is_described() {
        let own = Stat::of(getpid()).unwrap().unwrap();
        assert_eq!(own.parent, rustix::process::getppid());
        assert!(own.start_ticks > 0 && own.threads > 0 && !own.is_dead());
    }
}
