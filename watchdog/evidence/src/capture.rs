//! The capture: one helper, from its start to whatever end it finds.
//!
//! Nothing here waits. What the helper tells is taken in as it comes ([`Capture::pump`]); a helper that
//! hangs is killed ([`Capture::end`]); one that cannot be killed at once is left to [`Gone`].

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::piece::Gathered;
use crate::redact::Redactor;
use hangwatch_process::children;

/// What a helper may tell at most, bytes.
const MOST_BYTES: usize = 16 << 20;
/// What is read at once, bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// Whose evidence a helper captures.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// The process.
    pub pid: u32,
    /// The kernel's handle on it.
    pub pidfd: BorrowedFd<'s>,
    /// The thread to begin with, by its id in its own PID namespace.
    pub first_tid: Option<u64>,
    /// Whether it may be stopped for its stacks.
    pub may_stop: MayStop,
    /// How long it may take.
    pub budget: Duration,
    /// What is redacted.
    pub redactor: &'s Redactor,
    /// The memory it may take, bytes.
    pub memory_bytes: u64,
    /// How many may be at work at once.
    pub at_once: usize,
}

/// Whether a worker may be stopped for some milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayStop {
    /// It may: it is condemned.
    Yes,
    /// It may not: it must not notice. Its native stacks cannot be had then.
    No,
}

/// A helper at work.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    output: ChildStdout,
    /// What has come of a line that is not whole yet.
    line: Vec<u8>,
    taken_bytes: usize,
    gathered: Gathered,
}

/// Whether there is more to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// There may be.
    Open,
    /// There is not: the helper has closed its output, or told too much.
    Closed,
}

/// A helper that was killed and is not dead yet. It is dropped when it is, or left to init.
#[derive(Debug)]
pub struct Gone(Child);

impl Capture {
    /// Starts a helper.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(program: &Path, subject: Subject<'_>) -> io::Result<Capture> {
        let pidfd: OwnedFd = subject.pidfd.try_clone_to_owned()?;
        let budget = format!("{}us", subject.budget.as_micros().max(1));
        let mut command = Command::new(program);
        command.args(["evidence-helper", "--pid", &subject.pid.to_string(), "--budget", &budget]);
        command.args(["--memory", &subject.memory_bytes.to_string()]);
        command.args(["--at-once", &subject.at_once.to_string()]);
        if let Some(tid) = subject.first_tid {
            command.args(["--first-tid", &tid.to_string()]);
        }
        if subject.may_stop == MayStop::No {
            command.arg("--no-stop");
        }
        for expression in subject.redactor.expressions() {
            command.args(["--redact", expression]);
        }
        // What hangs for want of a segment, or logs, is no helper.
        command.env_remove("HANGWATCH_SEGMENT").env_remove("HANGWATCH_LOG");
        command.stdin(Stdio::from(pidfd)).stdout(Stdio::piped()).stderr(Stdio::null());
        let starting = children::starting();
        let mut child = command.spawn()?;
        starting.has_begun(child.id());
        let output = child.stdout.take().ok_or_else(|| io::Error::other("no pipe to it"))?;
        rustix::io::ioctl_fionbio(&output, true)?;
        let (line, gathered) = (Vec::new(), Gathered::default());
        Ok(Capture { child, output, line, taken_bytes: 0, gathered })
    }

    /// The helper's pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Takes in what the helper has told.
    pub fn pump(&mut self) -> Flow {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match self.output.read(&mut chunk) {
                Ok(0) => return Flow::Closed,
                Ok(count) if self.taken_bytes + count > MOST_BYTES => return Flow::Closed,
                Ok(count) => {
                    self.taken_bytes += count;
                    self.line.extend_from_slice(&chunk[..count]);
                    self.take_lines();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flow::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Flow::Closed,
            }
        }
    }

    fn take_lines(&mut self) {
        while let Some(end) = self.line.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            // A helper tells nothing else; were it to, that alone is lost.
            if let Ok(piece) = serde_json::from_slice(&line) {
                self.gathered.take(piece);
            }
        }
    }

    /// Whether it has told all there is.
    pub fn is_complete(&self) -> bool {
        self.gathered.is_complete()
    }

    /// Whether it has told every stack, if not with names.
    pub fn has_stacks(&self) -> bool {
        self.gathered.has_stacks()
    }

    /// Ends it: what it has told, what is missing because it ended and why, and the helper, which is
    /// to be waited for.
    pub fn end(mut self, too_slow: Option<&str>) -> (Gathered, Gone) {
        let is_killed = too_slow.is_none()
            && self.child.try_wait().is_ok_and(|end| end.and_then(|end| end.signal()) == Some(9));
        let _ = self.child.kill(); // dead already, it is only waited for
        if !self.is_complete() {
            let why = match too_slow {
                Some(why) => why.to_owned(),
                None if self.taken_bytes + CHUNK_BYTES > MOST_BYTES => {
                    "the helper told more than is kept".to_owned()
                }
                None if is_killed => {
                    "the helper failed: it was killed, most likely for want of memory".to_owned()
                }
                None => "the helper failed".to_owned(),
            };
            self.gathered.close(&why);
        }
        (self.gathered, Gone(self.child))
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }
}

impl Gone {
    /// Whether it is dead now, and waited for.
    pub fn is_dead(&mut self) -> bool {
        // What cannot be waited for is somebody else's.
        let is_dead = !matches!(self.0.try_wait(), Ok(None));
        if is_dead {
            children::ended(self.0.id());
        }
        is_dead
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}
