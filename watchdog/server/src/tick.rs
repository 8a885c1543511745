//! The tick: runs the core's [`Watchdog`] over the real clock, the rings, the deadline table and the pidfds.
//!
//! It waits for the doorbell only. Slow questions go to the [`attestor`](super::attestor), whose answers it takes
//! between two ticks; what is to be reported goes to the [`event log`](super::event_log).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use hangwatch::Segment;
use hangwatch::sys::{clock, crash};
use hangwatch_core::atomic::add_single_writer;
use hangwatch_core::watchdog::expiry::{Admission, Expiry, Request};
use hangwatch_core::watchdog::reap::Reaping;
use hangwatch_core::watchdog::tick::{Clock, Table, Watchdog};
use hangwatch_core::watchdog::updates::Rings;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::Nanos;

use super::calibrate::{Calibrator, Trust};
use super::control::{Control, Ended, PendingConfig, ReleaseLimiter};
use super::descendant_killer::KillerWatch;
use super::doorbell::{Doorbell, LEAD_NS, TickWaker};
use super::event_log::{EventLog, Note};
use super::events::Leaving;
use super::messages::{Answer, Question};
use super::process_control::PidfdControl;
use super::resume::Resumer;
use hangwatch_process::sigbus;

/// How long a server that is stopped waits for workers it has just killed, ns.
const LAST_REAPS_NS: u64 = 250_000_000;
/// How long the lanes of a dead worker are kept for the snapshot, ns.
const KEPT_NS: u64 = 1_000_000_000;
/// Pause between two checks for them.
const LAST_REAPS_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct SystemClock;

impl Clock for SystemClock {
    fn now(&mut self) -> Nanos {
        Nanos(clock::monotonic_ns())
    }
}

type Dog = Watchdog<
    SystemClock,
    Rings<'static, Doorbell>,
    Expiry<'static>,
    Reaping<'static, PidfdControl>,
>;

/// The state of the tick's thread.
pub(super) struct Tick {
    pub(super) segment: Segment,
    pub(super) control: Arc<Control>,
    pub(super) event_log: EventLog,
    pub(super) waker: TickWaker,
    pub(super) answers: Receiver<Answer>,
    pub(super) dog: Dog,
    pub(super) calibrator: Calibrator,
    pub(super) guard: Option<sigbus::Guard>,
    pub(super) resumer: Resumer,
    /// Dead workers whose snapshot is not taken yet, and since when they are dead.
    pub(super) departed: Vec<(WorkerId, Nanos)>,
    /// When the last tick ended.
    pub(super) signed_at: Nanos,
    /// Whether it was reported that the segment has no room for more scope names.
    pub(super) said_scopes_full: bool,
}

impl Tick {
    /// Ticks until the server is stopped or cannot continue.
    pub(super) fn run(mut self) -> Ended {
        loop {
            if self.waker.take() {
                if let Some(ended) = self.told_to_end() {
                    self.control.is_ending.store(true, Ordering::Release);
                    if ended == Ended::Stopped {
                        self.hurry_reaps();
                        self.finish_reaps();
                    }
                    return ended;
                }
                self.take_answers();
                self.take_pending_config();
            }
            self.release_departed();
            self.resumer.try_again();
            if self.dog.reaper.is_release_asked() {
                self.release_limiter();
            }
            self.prepare();
            let ticked = self.dog.tick();
            crash::point("ticked");
            if let Some(stall) = ticked.stall {
                self.event_log.note(Note::Stalled { length_ns: stall.length_ns() });
            }
            self.pass_on_requests();
            self.say_once_that_scopes_are_full();
            self.sign();
            if self.guard.as_ref().is_some_and(sigbus::Guard::was_hit) {
                self.event_log.note(Note::File(super::segment_file_check::Finding::Truncated));
                return Ended::Truncated;
            }
        }
    }

    fn say_once_that_scopes_are_full(&mut self) {
        let words = self.segment.words();
        if !self.said_scopes_full && words.scopes_overflowed().load(Ordering::Relaxed) > 0 {
            self.said_scopes_full = true;
            self.event_log.note(Note::ScopesFull { scopes: words.geometry().scopes });
        }
    }

    fn told_to_end(&self) -> Option<Ended> {
        let told = |flag: &std::sync::atomic::AtomicBool| flag.load(Ordering::Acquire);
        if told(&self.control.panicked) {
            Some(Ended::Panicked)
        } else if told(&self.control.truncated) {
            Some(Ended::Truncated)
        } else {
            told(&self.control.stop).then_some(Ended::Stopped)
        }
    }

    /// Signals the condemned workers that wait for evidence. A worker that cannot be verified in time stays
    /// condemned, and a successor continues.
    fn hurry_reaps(&mut self) {
        let hurried = self.dog.reaper.control_mut().hurry();
        // A worker whose descendants are still being listed is signalled after that.
        let mut killer = self.dog.reaper.control_mut().watch_killer();
        while self.dog.reaper.control_mut().is_listing_descendants()
            && self.makes_progress(killer.as_mut())
        {
            thread::sleep(LAST_REAPS_PAUSE);
        }
        let until = Nanos(clock::monotonic_ns()).plus(LAST_REAPS_NS);
        while self.dog.reaper.control_mut().is_any_unsignalled(&hurried) {
            for worker in &hurried {
                self.dog.table.look_again(*worker);
                self.dog.reaper.look_again(*worker);
            }
            self.waker.wake(); // keeps the tick from sleeping
            self.dog.tick();
            if clock::monotonic_ns() > until.0 {
                return;
            }
            thread::sleep(LAST_REAPS_PAUSE);
            self.take_answers();
        }
    }

    /// Whether the descendant killer makes progress.
    fn makes_progress(&self, killer: Option<&mut KillerWatch>) -> bool {
        !self.control.panicked.load(Ordering::Acquire)
            && killer.is_some_and(KillerWatch::makes_progress)
    }

    /// Waits briefly for the workers that were just killed, so that a server that is stopped at the end of its
    /// job reports them.
    fn finish_reaps(&mut self) {
        let until = Nanos(clock::monotonic_ns()).plus(LAST_REAPS_NS);
        let mut killer = self.dog.reaper.control_mut().watch_killer();
        loop {
            let (dead, is_any_left) = self.dog.reaper.dying();
            for worker in dead {
                self.left(worker, Leaving::Died);
            }
            // Their descendants are stopped meanwhile, so only a stuck killer ends the wait.
            let is_removing = self.dog.reaper.control_mut().is_killing_descendants()
                && self.makes_progress(killer.as_mut());
            if !is_removing && (!is_any_left || clock::monotonic_ns() > until.0) {
                return;
            }
            thread::sleep(LAST_REAPS_PAUSE);
        }
    }

    fn take_answers(&mut self) {
        while let Ok(answer) = self.answers.try_recv() {
            let (table, reaper) = (&mut self.dog.table, &mut self.dog.reaper);
            match answer {
                Answer::Admission { lane, owner, admission, worker, facts } => {
                    reaper.control_mut().learn(lane, facts, worker);
                    table.admit(lane, owner, admission);
                    if let Admission::Worker(worker) = admission {
                        self.take_over_stopped(Nanos(clock::monotonic_ns()), lane, worker);
                    }
                }
                Answer::Status { worker, at, hold } => {
                    reaper.control_mut().record_status(worker, at, hold);
                }
                Answer::Unverified { worker, why } => reaper.control_mut().unverified(worker, why),
                Answer::SameProgram { lane, owner, at } => {
                    reaper.control_mut().ran_same_program(lane, owner, at);
                }
                Answer::SnapshotTaken { worker } => {
                    if let Some(place) = self.departed.iter().position(|(id, _)| *id == worker) {
                        self.departed.swap_remove(place);
                        self.dog.table.worker_gone(worker);
                    }
                }
                Answer::Captured { worker } => {
                    table.look_again(worker);
                    reaper.look_again(worker);
                }
                Answer::Died { worker } => self.left(worker, Leaving::Died),
                Answer::Execd { worker } => {
                    reaper.control_mut().execd(worker);
                    self.left(worker, Leaving::Execd);
                }
            }
        }
    }

    fn left(&mut self, worker: WorkerId, how: Leaving) {
        let is_awaited = self.dog.reaper.control_mut().is_awaited(worker);
        self.dog.reaper.worker_died(worker);
        if is_awaited {
            // The lanes are not recycled before the snapshot is taken.
            self.departed.push((worker, Nanos(clock::monotonic_ns())));
        } else {
            self.dog.table.worker_gone(worker);
        }
        if let Some(worker) = self.dog.reaper.control_mut().forget(worker) {
            self.event_log.note(Note::Left { worker, how });
        }
    }

    /// Recycles the lanes whose snapshot is overdue.
    fn release_departed(&mut self) {
        if self.departed.is_empty() {
            return;
        }
        let now = Nanos(clock::monotonic_ns());
        let table = &mut self.dog.table;
        self.departed.retain(|(worker, since)| {
            let is_kept = now.since(*since) < KEPT_NS;
            if !is_kept {
                table.worker_gone(*worker);
            }
            is_kept
        });
    }

    fn take_pending_config(&mut self) {
        let PendingConfig { policy, holds, limiter } = self.control.take_pending_config();
        if let Some(policy) = policy {
            self.dog.reaper.set_policy(policy);
            self.dog.table.set_policy(policy);
        }
        if let Some(holds) = holds {
            self.control.holds.set(holds);
            self.dog.reaper.control_mut().set_holds(holds);
        }
        // Last: workers that are still overdue are judged by the new policy.
        if let Some(ReleaseLimiter) = limiter {
            self.release_limiter();
        }
    }

    fn release_limiter(&mut self) {
        self.dog.reaper.release_limiter();
        self.dog.table.judge_again();
        self.event_log.note(Note::LimiterReleased);
    }

    /// Asks for what the reap of the next deadline's worker will need, if that deadline is near.
    fn prepare(&mut self) {
        let now = Nanos(clock::monotonic_ns());
        let lead_end = now.plus(LEAD_NS * 2);
        if self.dog.table.next_deadline() <= lead_end
            && let Some((lane, _)) = self.dog.table.next_lane()
            && let Some(worker) = self.dog.table.worker_of(lane)
        {
            self.dog.reaper.control_mut().prepare(now, worker);
        }
    }

    fn pass_on_requests(&mut self) {
        let now = Nanos(clock::monotonic_ns());
        for request in self.dog.table.take_requests() {
            let process_control = self.dog.reaper.control_mut();
            match request {
                Request::Admit { lane, owner } => {
                    if !process_control.attestor_handle().ask(Question::Admit { lane }) {
                        // The queue is full: the table asks again later.
                        self.dog.table.admit(lane, owner, Admission::Unknown);
                    }
                }
                Request::Quarantined { lane } => {
                    let owner = process_control.facts_of(lane);
                    self.event_log.note(Note::Quarantined { lane, owner });
                }
                Request::Unattestable(timer) => {
                    let late_ns = now.since(timer.deadline);
                    let timer = process_control.timer_note(None, &timer);
                    self.event_log.note(Note::Unattestable { timer, late_ns });
                }
                Request::Overrun(timer) => {
                    let worker = self.dog.table.worker_of(timer.lane);
                    self.event_log.note(Note::Overrun(process_control.timer_note(worker, &timer)));
                }
                Request::EndedLate { timer, late_ns } => {
                    let worker = self.dog.table.worker_of(timer.lane);
                    let timer = process_control.timer_note(worker, &timer);
                    self.event_log.note(Note::EndedLate { timer, late_ns });
                }
                Request::Warning(timer) => {
                    let worker = self.dog.table.worker_of(timer.lane);
                    self.event_log.note(Note::Warning(process_control.timer_note(worker, &timer)));
                }
            }
        }
    }

    /// Publishes the time of the tick and the figures, and renews the calibration.
    fn sign(&mut self) {
        let now = Nanos(clock::monotonic_ns());
        let words = self.segment.words();
        let trusted = self.control.counter_is_clock.load(Ordering::Relaxed);
        let trust = if trusted { Trust::Counter } else { Trust::None };
        self.calibrator.renew(now, trust, &words);
        words.watchdog().last_tick_at().store(now.0, Ordering::Relaxed);
        add_single_writer(words.counter(Counter::Ticks), 1);
        let sleep = self.dog.queue.sleep_mut();
        sleep.wake_by = self.calibrator.due();
        let (control, late_ns) = (&self.control, sleep.late_ns);
        let (asleep_ns, overslept_ns) = sleep.take_sleep_ns();
        control.at_work.note(now.since(self.signed_at).saturating_sub(asleep_ns));
        self.signed_at = now;
        if let Some(late_ns) = overslept_ns {
            control.lateness.note(late_ns);
        }
        // Relaxed: independent figures.
        control.ticks.fetch_add(1, Ordering::Relaxed);
        control.last_tick_at.store(now.0, Ordering::Relaxed);
        control.late_ns.store(late_ns, Ordering::Relaxed);
        control.latest_ns.fetch_max(late_ns, Ordering::Relaxed);
        control.braked.store(self.dog.reaper.is_limited(), Ordering::Relaxed);
        control.reaped.store(self.dog.reaper.control_mut().reaped, Ordering::Relaxed);
    }
}
