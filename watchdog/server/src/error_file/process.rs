//! The process that writes error files, so that a disk that hangs does not hold up the watchdog.
//!
//! A process cannot exit while one of its threads hangs in a write, not even after SIGKILL. So
//! `hangwatch error-file-writer` does the writing: it reads one order per line, verifies that the pid is
//! still the worker, writes the file, and answers with one line. It ends when its input ends.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use hangwatch_process::attest::{Identity, Process};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::place;
use hangwatch_process::answering::answer_lines;
use hangwatch_process::children;

/// An order as a line of JSON.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    pid: i32,
    /// The inode of the worker's pidfd; or its start time, if pidfds have no inodes of their own.
    inode: Option<u64>,
    start_ticks: Option<u64>,
    path: Vec<u8>,
    text: String,
}

impl Order {
    fn new(worker: &Process, path: &Path, text: &str) -> Order {
        let (inode, start_ticks) = match worker.identity {
            Identity::PidfdInode(inode) => (Some(inode), None),
            Identity::StartTime { ticks, .. } => (None, Some(ticks)),
        };
        let path = path.as_os_str().as_bytes().to_vec();
        Order { pid: worker.pid.as_raw_pid(), inode, start_ticks, path, text: text.to_owned() }
    }

    /// Writes the file if the pid is still the worker's. Returns why not, otherwise.
    fn carry_out(self) -> Option<String> {
        let gone = || Some("the worker has ended".to_owned());
        let Some(pid) = Pid::from_raw(self.pid) else { return gone() };
        let worker = match Process::open(pid) {
            Ok(Some(worker)) => worker,
            Ok(None) => return gone(),
            Err(error) => return Some(error.to_string()),
        };
        let is_meant = match worker.identity {
            Identity::PidfdInode(inode) => self.inode == Some(inode),
            Identity::StartTime { ticks, .. } => self.start_ticks == Some(ticks),
        };
        if !is_meant {
            return gone();
        }
        let path = PathBuf::from(OsString::from_vec(self.path));
        place::write(&worker, &path, &self.text).err().map(|error| error.to_string())
    }
}

/// The writer process. When dropped it gets no more orders, and ends as soon as its disk lets it.
#[derive(Debug)]
pub(super) struct Helper {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts the command `error-file-writer` of `program`.
    pub(super) fn start(program: &Path) -> io::Result<Helper> {
        let mut command = Command::new(program);
        command.arg("error-file-writer");
        command.env_remove("HANGWATCH_SEGMENT").env_remove("HANGWATCH_LOG");
        // If it hangs, it must not keep a pipe open that others read to the end.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.process_group(0);
        let starting = children::starting();
        let mut child = command.spawn()?;
        starting.has_begun(child.id());
        let no_pipe = || io::Error::other("it has no pipe");
        let to = child.stdin.take().ok_or_else(no_pipe)?;
        let from = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?);
        Ok(Helper { child, to, from })
    }

    /// Writes a file and waits for the result: `None`, or why it was not written.
    ///
    /// # Errors
    /// If the process has ended. The order may be given to another one.
    pub(super) fn write(
        &mut self,
        worker: &Process,
        path: &Path,
        text: &str,
    ) -> io::Result<Option<String>> {
        let mut line = serde_json::to_vec(&Order::new(worker, path, text))?;
        line.push(b'\n');
        self.to.write_all(&line)?;
        let mut answer = String::new();
        if self.from.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // Before the watchdog's end, only a process that has ended or failed is dropped.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
        // If it is not dead yet, the thread that reaps orphans waits for it.
        children::ended(self.child.id());
    }
}

/// Answers orders until `told` ends.
///
/// # Errors
/// If `told` cannot be read or `tell` cannot be written.
pub(crate) fn run(told: impl BufRead, tell: impl Write) -> io::Result<()> {
    answer_lines(told, tell, Order::carry_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_answered_and_checks_the_worker() {
        let dir = tempfile::tempdir().unwrap();
        let own = Process::open(rustix::process::getpid()).unwrap().unwrap();
        let path = |name: &str| dir.path().join(name);
        let other = Process {
            pid: own.pid,
            pidfd: hangwatch_process::pidfd::Pidfd::open(own.pid).unwrap(),
            identity: match own.identity {
                Identity::PidfdInode(inode) => Identity::PidfdInode(inode + 1),
                Identity::StartTime { pid, ticks } => Identity::StartTime { pid, ticks: ticks + 1 },
            },
        };
        let orders = [
            Order::new(&own, &path("first"), "{}"),
            Order::new(&own, &path("first"), "{}"),
            Order::new(&other, &path("second"), "{}"),
        ];
        let told = orders.map(|order| serde_json::to_string(&order).unwrap()).join("\n");
        let mut answers = Vec::new();
        run(told.as_bytes(), &mut answers).unwrap();
        let answers = String::from_utf8(answers).unwrap();
        let lines: Vec<&str> = answers.lines().collect();
        assert_eq!(lines[0], "null");
        assert!(lines[1].contains("left as it is"), "{answers}");
        assert!(lines[2].contains("ended") && !path("second").exists(), "{answers}");
        assert_eq!(std::fs::read_to_string(path("first")).unwrap(), "{}");
    }
}
