//! `--on-expire`: runs the user's command for each expiry, with the incident as JSON on standard input.
//!
//! [`Hooks::on_event`] gets every event and never waits. A thread assembles incidents from events
//! (`assembler`, one `draft` each) and runs a command for each (`running`), a bounded number at once, each
//! with a time limit. The reap does not depend on it: no command can stop or delay a kill.

mod assembler;
mod convert;
mod draft;
mod running;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{ServerEvent, caught};
use assembler::{Assembler, Events};
use hangwatch_process::inherit::Inheritance;
use hangwatch_process::join::ends_within;
use running::Call;

/// Maximum number of commands that run at once. The others wait.
pub const AT_ONCE: usize = 8;
/// Maximum number of incidents that wait for a command. For more, no command is run, which is logged.
pub const WAITING: usize = 256;
/// Maximum number of queued events.
const EVENTS: usize = 4096;
/// How much longer than its commands the thread may take to end, because they must be killed.
const LEEWAY: Duration = Duration::from_secs(10);
/// How often the thread checks for commands that ended and drafts that are complete.
const LOOK: Duration = Duration::from_millis(10);

/// The options of `--on-expire`.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// The command line for `sh -c`.
    pub command: OsString,
    /// Time limit of one command. After it, the command and its descendants are killed.
    pub timeout: Duration,
    /// How long a run may wait for its incident to be captured and written.
    pub patience: Duration,
}

/// Runs the user's command for each expiry.
pub struct Hooks {
    /// `None` when it ends.
    events: Option<SyncSender<ServerEvent>>,
    thread: Option<JoinHandle<()>>,
    timeout: Duration,
    /// Whether the last event was lost.
    is_losing: AtomicBool,
}

impl Hooks {
    /// Starts the hook's thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(options: HookOptions, inheritance: Inheritance) -> io::Result<Hooks> {
        let (sender, events) = sync_channel(EVENTS);
        let timeout = options.timeout;
        let room = HookThread { options: Arc::new(options), inheritance, running: Arc::default() };
        let run = move || {
            if let Err(message) = caught("hangwatch-hook", || room.run(&events)) {
                let text = "the hook is no longer run: its thread panicked";
                tracing::error!(event = "panicked", message_text = message, "{text}");
            }
        };
        let thread = thread::Builder::new().name("hangwatch-hook".to_owned()).spawn(run)?;
        let is_losing = AtomicBool::new(false);
        Ok(Hooks { events: Some(sender), thread: Some(thread), timeout, is_losing })
    }

    /// Queues an event. If the queue is full, the event is lost, which is logged once until there is room.
    pub fn on_event(&self, event: &ServerEvent) {
        let Some(events) = self.events.as_ref().filter(|_| assembler::is_of_use(&event.what))
        else {
            return;
        };
        let is_lost = events.try_send(event.clone()).is_err();
        // Relaxed: only one thread calls this.
        if is_lost && !self.is_losing.swap(is_lost, Ordering::Relaxed) {
            tracing::error!(
                segment = event.segment,
                event = "hook",
                outcome = "lost",
                "{EVENTS} events are waiting for the hook: it is not run for some expiries"
            );
        } else if !is_lost {
            self.is_losing.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Hooks {
    /// Waits until all commands have ended: those that run and those that wait, each up to its time limit. A
    /// thread that takes longer hangs in something else, such as a log that is not read, and is left behind.
    fn drop(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take()
            && ends_within(&thread, self.timeout.saturating_mul(2).saturating_add(LEEWAY))
        {
            let _ = thread.join();
        }
    }
}

/// The state of the hook's thread.
struct HookThread {
    options: Arc<HookOptions>,
    inheritance: Inheritance,
    running: Arc<AtomicUsize>,
}

impl HookThread {
    fn run(self, events: &Receiver<ServerEvent>) {
        let mut assembler = Assembler::new(self.options.patience);
        let mut waiting = VecDeque::new();
        let mut is_open = true;
        let mut give_up_at = None;
        while is_open || !assembler.are_told() || !waiting.is_empty() || self.is_any_running() {
            let is_idle = assembler.are_told() && waiting.is_empty();
            let wait = if is_open && is_idle { Duration::from_hours(1) } else { LOOK };
            match events.recv_timeout(wait) {
                Ok(event) => assembler.on_event(&event, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    is_open = false;
                    thread::sleep(LOOK);
                    // A command whose turn has not come after one full time limit is not run.
                    let until = *give_up_at.get_or_insert(Instant::now() + self.options.timeout);
                    if Instant::now() > until {
                        let why = "the watchdog ended before its turn";
                        waiting.drain(..).for_each(|call: Call| call.log_lost(&why));
                    }
                }
            }
            while let Ok(event) = events.try_recv() {
                assembler.on_event(&event, Instant::now());
            }
            let still = if is_open { Events::Open } else { Events::Over };
            for call in assembler.complete(Instant::now(), still) {
                if waiting.len() < WAITING {
                    waiting.push_back(call);
                } else {
                    call.log_lost(&format_args!("{WAITING} incidents are waiting for it"));
                }
            }
            while self.running.load(Ordering::Acquire) < AT_ONCE
                && let Some(call) = waiting.pop_front()
            {
                self.start(call);
            }
        }
    }

    fn is_any_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }

    fn start(&self, call: Call) {
        let (options, inheritance) = (Arc::clone(&self.options), self.inheritance.clone());
        let running = Arc::clone(&self.running);
        running.fetch_add(1, Ordering::AcqRel);
        let done = Done(Arc::clone(&running));
        let started = thread::Builder::new().name("hangwatch-hook".to_owned()).spawn(move || {
            let _done = done;
            call.run(&options, &inheritance);
        });
        if let Err(error) = started {
            tracing::error!(event = "hook", %error, "cannot start a thread for the hook");
        }
    }
}

/// Counts a command as ended when its thread ends, in whatever way.
struct Done(Arc<AtomicUsize>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
