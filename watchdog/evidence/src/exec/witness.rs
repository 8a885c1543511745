//! The witness: evidence of the processes of a tree, captured from a thread of its own.
//!
//! Whoever removes the tree waits for the end of the budget and no longer, whatever becomes of that
//! thread; what has come by then is kept.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::capture::{Capture, Flow, Gone, MayStop, Subject};
use crate::helper::memory;
use crate::options::EvidenceOptions;
use crate::piece::Gathered;

/// Helpers at work at once at most.
const AT_ONCE: usize = 4;
/// How much sooner than the one who waits the thread calls the budget over.
const MARGIN: Duration = Duration::from_millis(20);
/// How long the thread waits for helpers it has killed.
const DEATHS: Duration = Duration::from_millis(200);

/// One process to be looked at.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) pid: u32,
    /// The kernel's handle on it.
    pub(crate) pidfd: OwnedFd,
    /// The thread to begin with, by its id in its own PID namespace.
    pub(crate) first_tid: Option<u64>,
}

/// Looks at each of them, the first first; what came of each, in the same order.
pub(crate) fn look(held: Vec<Held>, options: &EvidenceOptions, may_stop: MayStop) -> Vec<Gathered> {
    let count = held.len();
    let until = Instant::now() + options.budget;
    let (tell, told) = channel();
    let for_it = options.clone();
    let look = move || Thread::new(held, &for_it, may_stop, until, tell).run();
    let mut seen: Vec<Option<Gathered>> = (0..count).map(|_| None).collect();
    let why_not = match thread::Builder::new().name("hangwatch-look".to_owned()).spawn(look) {
        Ok(_) => take(&told, &mut seen, until),
        Err(error) => format!("no thread to capture it: {error}"),
    };
    seen.into_iter().map(|it| it.unwrap_or_else(|| Gathered::without(&why_not))).collect()
}

/// Takes what is told until all is, or the budget is over; says why the rest is missing.
fn take(
    told: &Receiver<(usize, Gathered)>,
    seen: &mut [Option<Gathered>],
    until: Instant,
) -> String {
    while seen.iter().any(Option::is_none) {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((place, gathered)) => seen[place] = Some(gathered),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return "hangwatch failed over it".to_owned(),
        }
    }
    "too slow: the budget is over".to_owned()
}

struct Thread<'o> {
    options: &'o EvidenceOptions,
    may_stop: MayStop,
    until: Instant,
    /// Helpers at work at once at most.
    at_once: usize,
    waiting: VecDeque<(usize, Held)>,
    running: Vec<(usize, Capture)>,
    gone: Vec<Gone>,
    tell: Sender<(usize, Gathered)>,
}

impl<'o> Thread<'o> {
    fn new(
        held: Vec<Held>,
        options: &'o EvidenceOptions,
        may_stop: MayStop,
        until: Instant,
        tell: Sender<(usize, Gathered)>,
    ) -> Thread<'o> {
        let until = until.checked_sub(MARGIN.min(options.budget / 10)).unwrap_or(until);
        let waiting = held.into_iter().enumerate().collect();
        let at_once = memory::at_once(AT_ONCE);
        Thread { options, may_stop, until, at_once, waiting, running: vec![], gone: vec![], tell }
    }

    fn run(mut self) {
        loop {
            self.start();
            if self.running.is_empty() {
                break;
            }
            self.wait();
            self.take_in();
        }
        // Not waited for, they would be taken for helpers at work.
        let end = Instant::now() + DEATHS;
        while Instant::now() < end {
            self.gone.retain_mut(|gone| !gone.is_dead());
            if self.gone.is_empty() {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    fn told(&self, place: usize, gathered: Gathered) {
        let _ = self.tell.send((place, gathered)); // nobody waits any more
    }

    fn start(&mut self) {
        while self.running.len() < self.at_once
            && let Some((place, held)) = self.waiting.pop_front()
        {
            let budget = self.left();
            let Some(program) = &self.options.program else {
                self.told(place, Gathered::without("there is no hangwatch program to capture it"));
                continue;
            };
            if budget.is_zero() {
                self.told(place, Gathered::without("too slow: other captures came first"));
                continue;
            }
            let subject = Subject {
                pid: held.pid,
                pidfd: held.pidfd.as_fd(),
                first_tid: held.first_tid,
                may_stop: self.may_stop,
                budget,
                redactor: &self.options.redactor,
                memory_bytes: self.options.memory_bytes,
                at_once: self.at_once,
            };
            match Capture::start(program, subject) {
                Ok(capture) => self.running.push((place, capture)),
                Err(error) => {
                    let why = format!("no helper: {}: {error}", program.display());
                    self.told(place, Gathered::without(&why));
                }
            }
        }
    }

    /// Waits for a helper to say something, or for the end of the budget.
    fn wait(&self) {
        let polled = self.running.iter().map(|(_, helper)| PollFd::new(helper, PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> = polled.collect();
        let timeout = Timespec::try_from(self.left()).ok();
        // Refused, it would be refused again at once.
        if rustix::event::poll(&mut polled, timeout.as_ref()).is_err() {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_in(&mut self) {
        let is_over = self.left().is_zero();
        for (place, mut capture) in std::mem::take(&mut self.running) {
            let flow = capture.pump();
            if flow == Flow::Open && !capture.is_complete() && !is_over {
                self.running.push((place, capture));
                continue;
            }
            let is_slow = is_over && flow == Flow::Open;
            let (gathered, gone) = capture.end(is_slow.then_some("too slow: the budget is over"));
            self.gone.push(gone);
            self.told(place, gathered);
        }
    }
}
