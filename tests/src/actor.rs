//! A worker process of a test: it does as it is told, line by line, and answers each line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::until;
use crate::watchdog::program;

/// A running worker. What it understands stands in `src/bin/worker.rs`.
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts one with this environment; it attaches when it is told to.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn start(segment: &str, environment: &[(&str, &str)]) -> Actor {
        let mut command = Command::new(program("stage-worker"));
        command.envs(environment.iter().copied());
        Actor::spawn(segment, command)
    }

    /// Starts what `command` says: a `stage-worker` in circumstances of its own.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn spawn(segment: &str, mut command: Command) -> Actor {
        let mut child = command
            .env("HANGWATCH_SEGMENT", segment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Actor { child, stdin, stdout }
    }

    /// Tells it something and waits for its answer.
    ///
    /// # Panics
    /// Where it is dead, or answers that it could not.
    pub fn tell(&mut self, order: &str) -> String {
        self.try_tell(order).unwrap_or_else(|why| panic!("{order:?}: {why}"))
    }

    /// As [`Actor::tell`], of what it may refuse.
    ///
    /// # Errors
    /// Its answer, where it could not.
    ///
    /// # Panics
    /// Where it is dead.
    pub fn try_tell(&mut self, order: &str) -> Result<String, String> {
        self.order(order);
        let answer = self.answer().unwrap_or_else(|| panic!("dead before it answered {order:?}"));
        match answer.strip_prefix("ok") {
            Some(answer) => Ok(answer.trim_start().to_owned()),
            None => Err(answer),
        }
    }

    /// Tells it something and does not wait.
    ///
    /// # Panics
    /// Never: a worker that is dead hears nothing.
    pub fn order(&mut self, order: &str) {
        // A worker that is dead or dies of it hears nothing.
        let _ = writeln!(self.stdin.as_mut().expect("not closed yet"), "{order}");
    }

    /// Its next answer; `None` where it died.
    pub fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it is alive.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn wait(&mut self) -> ExitStatus {
        until("the worker ends", || self.has_ended())
    }

    /// Kills it if it lives, and waits for its end.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn wait_or_kill(&mut self) -> ExitStatus {
        // It may have ended long ago.
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }

    /// Closes its input, at which it ends in order, and waits for that.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn end(&mut self) -> ExitStatus {
        self.stdin = None;
        self.child.wait().unwrap()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
