//! A watchdog process of a test: the real binary's code, its log read as it comes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{BOUND, until};

/// A running `hangwatch run --segment NAME`.
pub struct Watchdog {
    child: Child,
    log: Receiver<Value>,
    seen: Vec<Value>,
}

impl Watchdog {
    /// Starts one and waits until it serves (or, a standby, waits).
    ///
    /// # Panics
    /// Where it does not come to that.
    pub fn start(segment: &str, options: &[&str], environment: &[(&str, &str)]) -> Watchdog {
        let mut watchdog = Watchdog::start_only(segment, options, environment);
        watchdog.event(|event| matches!(event["event"].as_str(), Some("serving" | "standby")));
        watchdog
    }

    /// Starts one.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn start_only(segment: &str, options: &[&str], environment: &[(&str, &str)]) -> Watchdog {
        let mut command = Command::new(program("stage-watchdog"));
        command.args(Watchdog::arguments(segment, options)).envs(environment.iter().copied());
        Watchdog::spawn(command)
    }

    /// What a test's watchdog is called with.
    pub fn arguments<'o>(segment: &'o str, options: &[&'o str]) -> Vec<&'o str> {
        let run = ["run", "--segment", segment, "--log", "json", "--unprotected"];
        // Each test that is about evidence says where it is kept.
        let says = options.contains(&"--evidence");
        let evidence: &[&str] = if says { &[] } else { &["--evidence", "off"] };
        [&run, options, evidence].concat()
    }

    /// Starts what `command` says: a watchdog in circumstances of its own, with its log in JSON.
    ///
    /// # Panics
    /// Where the process cannot be started.
    pub fn spawn(mut command: Command) -> Watchdog {
        let mut child = command
            .env("HANGWATCH_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Watchdog { child, log, seen: Vec::new() }
    }

    /// Its pid.
    ///
    /// # Panics
    /// Never: a process has one.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The first event that `wanted` picks and that no earlier call has returned or passed over.
    ///
    /// # Panics
    /// Where none comes within [`BOUND`].
    pub fn event(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.event_within(BOUND, wanted)
            .unwrap_or_else(|| panic!("no such event; seen: {:#?}", self.seen))
    }

    /// As [`Watchdog::event`], `None` where none comes within `bound`.
    pub fn event_within(
        &mut self,
        bound: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Option<Value> {
        let until = Instant::now() + bound;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(event) => {
                    self.seen.push(event.clone());
                    if wanted(&event) {
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// As [`Watchdog::event`], also one that an earlier call has passed over.
    ///
    /// # Panics
    /// As [`Watchdog::event`].
    pub fn event_at_any_time(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let seen = self.events().iter().find(|event| wanted(event)).cloned();
        seen.unwrap_or_else(|| self.event(wanted))
    }

    /// The end of the expiry of the process `pid`.
    pub fn expiry_of(&mut self, pid: u32) -> Value {
        self.event(|event| event["event"] == "expired" && event["pid"] == pid)
    }

    /// Waits until it has ended by itself, and takes in the rest of what it said: how it ended, and
    /// the lines that are no events.
    ///
    /// # Panics
    /// Where it does not end.
    pub fn last_words(&mut self) -> (ExitStatus, String) {
        let status = self.wait();
        // Ends when the reader has come to the end of the dead process's pipe.
        self.seen.extend(self.log.iter());
        let lines: Vec<&str> = self.seen.iter().filter_map(Value::as_str).collect();
        (status, lines.join("\n"))
    }

    /// How many descriptors it has open, and how many of those are pidfds.
    ///
    /// # Panics
    /// Where it is dead.
    pub fn descriptors(&self) -> (usize, usize) {
        let dir = format!("/proc/{}/fd", self.pid().as_raw_pid());
        let names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            // One that was closed meanwhile has no name.
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .collect();
        let is_pidfd = |name: &&std::path::PathBuf| name.to_string_lossy().contains("pidfd");
        (names.len(), names.iter().filter(is_pidfd).count())
    }

    /// All events so far, and those that have come meanwhile.
    pub fn events(&mut self) -> &[Value] {
        self.seen.extend(self.log.try_iter());
        &self.seen
    }

    /// The events that have come since the last call, forgotten with it: for runs that last.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.seen.extend(self.log.try_iter());
        std::mem::take(&mut self.seen)
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it, and reaps it.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// Tells it to end, and waits for it.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn end(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// Where it does not.
    pub fn wait(&mut self) -> ExitStatus {
        until("the watchdog ends by itself", || self.has_ended())
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program of this package: beside the tests' own.
///
/// # Panics
/// Where it is not built.
pub fn program(name: &str) -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let mut directory = own.parent().unwrap();
    if directory.ends_with("deps") {
        directory = directory.parent().unwrap();
    }
    let path = directory.join(name);
    assert!(
        Path::new(&path).exists(),
        "{} is not built: cargo build -p hangwatch-tests",
        path.display()
    );
    path
}
