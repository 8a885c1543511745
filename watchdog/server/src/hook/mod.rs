//! `--on-expire`: a command of the user's that hears of each expiry, with the incident as JSON on its
//! standard input.
//!
//! [`Hooks::on_event`] is told every event and never waits; a thread puts incidents together (`assembler`, of
//! which each is a `draft`) and has a command run for each (`running`), so many at once, each with a
//! limit of time. Nothing that a command does or does not do can stop or delay a reap: reaps know nothing
//! of it.

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

/// Commands that run at once at most; the others wait for their turn.
pub const AT_ONCE: usize = 8;
/// Incidents that wait for their turn at most; more are not told of, and the log says so.
pub const WAITING: usize = 256;
/// Events that wait to be heard at most.
const EVENTS: usize = 4096;
/// How much longer than its commands the thread may take to end: they are killed, too.
const LEEWAY: Duration = Duration::from_secs(10);
/// How often it is looked whether a command has ended and a story is complete.
const LOOK: Duration = Duration::from_millis(10);

/// What is run.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// The command, for `sh -c`.
    pub command: OsString,
    /// How long one may take; then it is killed with all that descends from it.
    pub timeout: Duration,
    /// How long its run waits at most for the incident: for what is captured, and for its place.
    pub patience: Duration,
}

/// Has a command run for each expiry.
pub struct Hooks {
    /// `None` once it is to end.
    events: Option<SyncSender<ServerEvent>>,
    thread: Option<JoinHandle<()>>,
    timeout: Duration,
    /// Whether the last event was lost.
    is_losing: AtomicBool,
}

impl Hooks {
    /// Starts its thread.
    ///
    /// # Errors
    /// Where no thread is to be had.
    pub fn start(options: HookOptions, inheritance: Inheritance) -> io::Result<Hooks> {
        let (sender, events) = sync_channel(EVENTS);
        let timeout = options.timeout;
        let room = HookThread { options: Arc::new(options), inheritance, running: Arc::default() };
        let run = move || {
            if let Err(message) = caught("hangwatch-hook", || room.run(&events)) {
                let text = "no hook is run any more";
                tracing::error!(event = "panicked", message_text = message, "{text}");
            }
        };
        let thread = thread::Builder::new().name("hangwatch-hook".to_owned()).spawn(run)?;
        let is_losing = AtomicBool::new(false);
        Ok(Hooks { events: Some(sender), thread: Some(thread), timeout, is_losing })
    }

    /// Takes note of an event, or loses it where thousands wait, and says so once until there is room.
    pub fn on_event(&self, event: &ServerEvent) {
        let Some(events) = self.events.as_ref().filter(|_| assembler::is_of_use(&event.what))
        else {
            return;
        };
        let is_lost = events.try_send(event.clone()).is_err();
        // Relaxed: one thread hears.
        if is_lost && !self.is_losing.swap(is_lost, Ordering::Relaxed) {
            tracing::error!(
                segment = event.segment,
                event = "hook",
                outcome = "lost",
                "{EVENTS} events wait for the hook: it is not run for some expiries"
            );
        } else if !is_lost {
            self.is_losing.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Hooks {
    /// Waits until every command has run, which each may for its time and no longer: those that run, and
    /// once more those that have their turn then. Beyond that, something else holds its thread, such as a
    /// log that nobody reads.
    fn drop(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take()
            && ends_within(&thread, self.timeout.saturating_mul(2).saturating_add(LEEWAY))
        {
            let _ = thread.join();
        }
    }
}

/// The thread's own things.
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
                    // Whoever has not had its turn when one could have run to its end has none.
                    let until = *give_up_at.get_or_insert(Instant::now() + self.options.timeout);
                    if Instant::now() > until {
                        let why = "the watchdog ends, and its turn has not come";
                        waiting.drain(..).for_each(|call: Call| call.is_lost(&why));
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
                    call.is_lost(&format_args!("{WAITING} incidents wait for it already"));
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
            tracing::error!(event = "hook", %error, "no thread could be had for the hook");
        }
    }
}

/// Counts a command as ended, however its thread ends.
struct Done(Arc<AtomicUsize>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
