//! Python stacks, read from the interpreter's memory whoever holds its lock.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use hangwatch_evidence::piece::Gathered;
use hangwatch_incident::schema::{Frame, Thread};
use hangwatch_tests::program;
use rustix::process::{Pid, PidfdFlags};

/// A Python program that has said that it is about to hang; gone with its test.
struct Python(Child);

impl Python {
    /// Starts it. `None`, and says why, where there is no Python.
    fn start(test: &str, code: &str) -> Option<Python> {
        let mut command = Command::new("python3");
        let started = command.args(["-c", code]).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = started else {
            println!("skipped: {test} needs python3");
            return None;
        };
        let stdout = child.stdout.take().unwrap();
        let python = Python(child);
        assert_eq!(BufReader::new(stdout).lines().next().unwrap().unwrap(), "hangs");
        Some(python)
    }

    /// What a helper finds out about it.
    fn seen(&self) -> Vec<Thread> {
        let pid = Pid::from_child(&self.0);
        let pidfd: OwnedFd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let output = Command::new(program("stage-watchdog"))
            .args(["evidence-helper", "--budget", "30s", "--pid", &self.0.id().to_string()])
            .stdin(Stdio::from(pidfd))
            .output()
            .unwrap();
        let mut gathered = Gathered::default();
        for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            gathered.take(serde_json::from_slice(line).unwrap());
        }
        assert!(gathered.is_complete() && gathered.evidence.missing.is_empty(), "{gathered:?}");
        gathered.evidence.threads
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The functions and lines of a Python stack, the innermost first.
fn stack(thread: &Thread) -> Vec<(&str, u32)> {
    let frames = thread.python.as_deref().unwrap_or_default();
    frames.iter().map(|frame| (frame.function.as_str(), frame.line.unwrap_or_default())).collect()
}

#[test]
fn a_thread_that_holds_the_interpreters_lock_in_c_is_seen_with_its_line() {
    let code = "import ctypes\n\
                def held():\n    \
                    ctypes.PyDLL(None).pause()\n\
                print('hangs', flush=True)\n\
                held()\n";
    let test = "a_thread_that_holds_the_interpreters_lock_in_c_is_seen_with_its_line";
    let Some(python) = Python::start(test, code) else { return };
    let threads = python.seen();
    let thread = hangwatch_tests::until("it is in C", || {
        let threads = python.seen();
        let held = threads.into_iter().find(|thread| thread.holds_gil == Some(true));
        held.filter(|thread| stack(thread).first() == Some(&("held", 3)))
    });
    assert_eq!(stack(&thread), [("held", 3), ("<module>", 5)]);
    let is_pause = |frame: &Frame| frame.function.contains("pause");
    assert!(thread.native.as_ref().unwrap().iter().any(is_pause), "{thread:#?}");
    assert_eq!(threads.len(), 1);
}

#[test]
fn a_queue_that_nobody_feeds_is_seen_in_the_thread_that_waits_for_it() {
    let code = "import queue, threading\n\
                q = queue.Queue()\n\
                def consume():\n    \
                    print('hangs', flush=True)\n    \
                    q.get()\n\
                t = threading.Thread(target=consume, name='consumer')\n\
                t.start()\n\
                t.join()\n";
    let test = "a_queue_that_nobody_feeds_is_seen_in_the_thread_that_waits_for_it";
    let Some(python) = Python::start(test, code) else { return };
    hangwatch_tests::until("both wait", || {
        let threads = python.seen();
        let named = |thread: &&Thread| thread.name == "consumer";
        let consumer = threads.iter().find(named)?;
        let frames = stack(consumer);
        let waits = frames.iter().any(|(function, _)| function.ends_with("get"));
        (waits && frames.contains(&("consume", 5)) && consumer.holds_gil == Some(false))
            .then_some(())
    });
}
