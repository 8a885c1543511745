//! One run of the hook: writes the incident to it, reads its standard error, and kills it after its time.

use std::fmt::Display;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hangwatch_process::pidfd::Pidfd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use super::HookOptions;
use hangwatch_incident::schema::Incident;
use hangwatch_process::children;
use hangwatch_process::descendants::{Descendants, Excluded, Reach, Rights, Step};
use hangwatch_process::inherit::Inheritance;
use hangwatch_process::lineage;

/// How much of its standard error is kept, bytes: the first lines. The rest is read and dropped.
const STDERR_BYTES: usize = 2048;
/// How long killed processes may take to die.
const DEATHS: Duration = Duration::from_secs(2);
/// How often this is checked.
const LOOK: Duration = Duration::from_millis(2);

/// A run of the hook for one incident.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) segment: &'static str,
    /// The worker's pid in the watchdog's PID namespace.
    pub(super) pid: Option<u32>,
    pub(super) scope: String,
    pub(super) rank: Option<u64>,
    pub(super) outcome: String,
    /// The incident's directory, if it is on disk.
    pub(super) dir: Option<PathBuf>,
    /// The incident.
    pub(super) incident: Arc<Incident>,
}

/// A started command. After its end was waited for, its pid may belong to another process, which must not be
/// waited for as this one.
struct Helper(u32);

impl Drop for Helper {
    fn drop(&mut self) {
        children::ended(self.0);
    }
}

/// How a command ended.
enum End {
    Exited(ExitStatus),
    TimedOut,
}

impl Call {
    /// Logs that the command is not run.
    pub(super) fn log_lost(&self, why: &dyn Display) {
        tracing::error!(
            segment = self.segment,
            event = "hook",
            pid = self.pid,
            scope = self.scope,
            outcome = "lost",
            "the hook is not run: {why}"
        );
    }

    /// Runs the command to its end and logs the result.
    pub(super) fn run(&self, options: &HookOptions, inheritance: &Inheritance) {
        let begun = Instant::now();
        let starting = children::starting();
        let mut child = match self.command(options, inheritance).spawn() {
            Ok(child) => {
                starting.has_begun(child.id());
                child
            }
            Err(error) => {
                tracing::error!(
                    segment = self.segment, event = "hook", pid = self.pid, %error,
                    "the hook could not be started"
                );
                return;
            }
        };
        let _helper = Helper(child.id());
        let ended = self.attend(&mut child, begun + options.timeout);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (end, stderr) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                remove(&mut child);
                tracing::error!(
                    segment = self.segment, event = "hook", pid = self.pid, %error,
                        "cannot read from the hook or write to it"
                );
                return;
            }
        };
        let status = match end {
            End::Exited(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exited with {code}"),
                (None, signal) => format!("died of signal {}", signal.unwrap_or_default()),
            },
            End::TimedOut => "timed out, killed".to_owned(),
        };
        let stderr = Some(stderr).filter(|stderr| !stderr.is_empty());
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    segment = self.segment,
                    event = "hook",
                    pid = self.pid,
                    scope = self.scope,
                    status,
                    took_ms,
                    stderr,
                    "the hook was run"
                )
            };
        }
        match end {
            End::Exited(status) if status.success() => line!(info),
            _ => line!(warn),
        }
    }

    fn command(&self, options: &HookOptions, inheritance: &Inheritance) -> Command {
        let mut command = Command::new("/bin/sh");
        // A process group of its own: Ctrl-C in the terminal does not reach it.
        command.arg("-c").arg(&options.command).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let set = |value: Option<String>| value.unwrap_or_default();
        command.env("HANGWATCH_SEGMENT", self.segment);
        command.env("HANGWATCH_PID", set(self.pid.map(|pid| pid.to_string())));
        command.env("HANGWATCH_SCOPE", self.scope.replace('\0', "?"));
        command.env("HANGWATCH_RANK", set(self.rank.map(|rank| rank.to_string())));
        command.env("HANGWATCH_OUTCOME", &self.outcome);
        command.env("HANGWATCH_INCIDENT", self.dir.clone().unwrap_or_default());
        inheritance.leave_to(&mut command);
        command
    }

    /// Writes to the command and reads from it until it ends or its time is up, after which it is dead.
    fn attend(&self, child: &mut Child, until: Instant) -> std::io::Result<(End, String)> {
        let pid = Pid::from_child(child);
        // It was not waited for yet, so the pid is still its own.
        let pidfd = Pidfd::open(pid).map_err(std::io::Error::other)?;
        // The same JSON as `incident.json`. Plain data can always be serialised.
        let json = serde_json::to_vec(&*self.incident).unwrap_or_default();
        let mut feed = Input { stdin: child.stdin.take(), rest: &json };
        let mut ear = Stderr { stderr: child.stderr.take(), kept: Vec::new() };
        let ends = [feed.stdin.as_ref().map(AsFd::as_fd), ear.stderr.as_ref().map(AsFd::as_fd)];
        for end in ends.into_iter().flatten() {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        loop {
            if let Some(status) = child.try_wait()? {
                ear.listen();
                return Ok((End::Exited(status), ear.text()));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                remove(child);
                ear.listen();
                return Ok((End::TimedOut, ear.text()));
            }
            wait(&pidfd, &feed, &ear, left)?;
            feed.feed();
            ear.listen();
        }
    }
}

fn wait(pidfd: &Pidfd, feed: &Input<'_>, ear: &Stderr, left: Duration) -> std::io::Result<()> {
    let mut polled = vec![PollFd::new(pidfd, PollFlags::IN)];
    if let Some(stdin) = &feed.stdin {
        polled.push(PollFd::new(stdin, PollFlags::OUT));
    }
    if let Some(stderr) = &ear.stderr {
        polled.push(PollFd::new(stderr, PollFlags::IN));
    }
    let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Its standard input, and what is still to be written.
struct Input<'j> {
    stdin: Option<ChildStdin>,
    rest: &'j [u8],
}

impl Input<'_> {
    /// Writes as much as fits. A command that does not read its input is no error.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.rest.is_empty() {
            match stdin.write(self.rest) {
                Ok(count) => self.rest = &self.rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

/// Its standard error.
struct Stderr {
    stderr: Option<ChildStderr>,
    kept: Vec<u8>,
}

impl Stderr {
    /// Reads what is there now, up to a limit; the rest is read at the next call.
    fn listen(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut buffer = [0; 16 << 10];
        for _ in 0..64 {
            match stderr.read(&mut buffer) {
                Ok(0) => return self.stderr = None,
                Ok(count) => {
                    let room = STDERR_BYTES.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.stderr = None,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim_end().to_owned()
    }
}

/// Kills the command, its descendants and its process group, and waits for it.
fn remove(child: &mut Child) {
    let pid = Pid::from_child(child);
    let Ok(pidfd) = Pidfd::open(pid) else {
        let _ = child.kill();
        let _ = child.wait();
        return;
    };
    let mut excluded = Excluded::default();
    let removed = lineage::own_line().and_then(|line| {
        excluded.own_line.extend(line);
        remove_descendants(pid, &pidfd, &excluded)
    });
    if removed.is_err() {
        // Descendants that cannot be listed are left; the command is killed anyway.
        let _ = pidfd.signal(Signal::KILL);
    }
    let until = Instant::now() + DEATHS;
    // A process that survives SIGKILL is left to the kernel.
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
}

fn remove_descendants(pid: Pid, child: &Pidfd, excluded: &Excluded) -> std::io::Result<()> {
    let mut descendants = Descendants::new(pid, child, Rights::Own, Reach::Group)?;
    loop {
        match descendants.remove(child, excluded)? {
            Step::More => {}
            Step::Pause => std::thread::sleep(LOOK),
            Step::Done => return Ok(()),
        }
    }
}
