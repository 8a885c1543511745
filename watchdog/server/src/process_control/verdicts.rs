//! Verdicts: whether a worker may be signalled, by its lane's lock and its status.

use std::sync::atomic::Ordering;

use hangwatch::lane_lock_byte;
use hangwatch::sys::lock::{Holder, holder};
use hangwatch_core::watchdog::reap::Verdict;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::time::Nanos;

use super::super::event_log::Note;
use super::super::messages::Question;
use super::tracked::{Asked, Awaited, FRESH_NS, Unlocked, fresh_ns};
use super::{AGAIN_NS, PidfdControl};

/// Time until a worker that could not be verified is asked about again, ns.
const UNVERIFIED_AGAIN_NS: u64 = 200_000_000;
/// How long an overdue worker may wait for a verdict before this is logged, ns.
const SAID_AFTER_NS: u64 = 10_000_000_000;

impl PidfdControl {
    /// Whether the attestor must be asked before a worker is signalled. The watchdog's own process has not run
    /// exec, so its lane needs no check.
    fn must_ask(&self, worker: WorkerId) -> bool {
        let is_self = self.known.get(&worker).is_some_and(|known| known.worker.is_self());
        self.holds_matter || !is_self
    }

    /// Asks for a worker's status, because one of its deadlines is near.
    pub(crate) fn prepare(&mut self, now: Nanos, worker: WorkerId) {
        if !self.must_ask(worker) {
            return;
        }
        let Some(known) = self.known.get_mut(&worker) else { return };
        let fresh = known.status.is_some_and(|(at, _)| now.since(at) < FRESH_NS / 2);
        if !fresh && known.asked.is_due(now, AGAIN_NS) {
            // If the queue is full, the verdict asks again.
            self.attestor_handle.ask(Question::Status { worker });
        }
    }

    /// Records a verdict. One that stays open for long is logged once.
    pub(super) fn note_verdict(&mut self, now: Nanos, worker: WorkerId, verdict: Verdict) {
        let Some(known) = self.known.get_mut(&worker) else { return };
        let awaited = &mut known.awaited;
        let Verdict::Wait(_) = verdict else {
            *awaited = Awaited::default();
            return;
        };
        let since = *awaited.since.get_or_insert(now);
        let is_late = now.since(since) > SAID_AFTER_NS;
        if !awaited.is_said && (is_late || awaited.why.is_some()) {
            awaited.is_said = true;
            let why = awaited.why.as_deref().unwrap_or("the kernel has not answered yet");
            let pid = known.worker.pid();
            let text = format!(
                "process {pid} is overdue and not signalled: it cannot be verified ({why}); it will be \
                 checked again"
            );
            self.event_log.note(Note::Admission(text));
        }
    }

    /// Checks that the worker holds the lane's lock, or still runs the admitted program without it.
    pub(super) fn lock_verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict {
        let Some(known) = self.known.get(&worker) else {
            return Verdict::Wait(now.plus(AGAIN_NS));
        };
        // F_GETLK does not report a process's own locks, and this process has not run exec.
        if known.worker.is_self() {
            return Verdict::Go;
        }
        // Relaxed below: an independent flag. While queries are slow, the program check must do.
        let is_held_by = |pid| {
            let held = holder(self.segment.file(), lane_lock_byte(lane));
            matches!(held, Ok(Holder::Process(holder)) if holder == pid)
        };
        let are_slow = self.control.locks_are_slow.load(Ordering::Relaxed);
        if !are_slow && is_held_by(known.worker.process.pid) {
            return Verdict::Go;
        }
        let owner = self.segment.words().lane(lane).owner();
        let unlocked = self.unlocked.entry(lane).or_insert(Unlocked {
            owner,
            same_program_at: None,
            answers: 0,
            asked: Asked::default(),
        });
        if unlocked.owner != owner {
            *unlocked =
                Unlocked { owner, same_program_at: None, answers: 0, asked: Asked::default() };
        }
        let fresh_ns = fresh_ns(unlocked.answers);
        if unlocked.same_program_at.is_some_and(|at| now.since(at) < fresh_ns) {
            unlocked.answers = 0;
            return Verdict::Go;
        }
        if unlocked.asked.is_due(now, AGAIN_NS) {
            self.attestor_handle.ask(Question::Unlocked { lane, owner, worker });
        }
        Verdict::Wait(unlocked.asked.next_check(now))
    }

    /// Checks that the worker is as admitted and able to run. Without an answer it is not signalled.
    pub(super) fn hold_verdict(&mut self, now: Nanos, worker: WorkerId) -> Verdict {
        if !self.must_ask(worker) {
            return Verdict::Go;
        }
        let Some(known) = self.known.get_mut(&worker) else {
            return Verdict::Wait(now.plus(AGAIN_NS));
        };
        let fresh_ns = fresh_ns(known.awaited.answers);
        match known.status {
            Some((at, hold)) if now.since(at) < fresh_ns => hold.map_or(Verdict::Go, Verdict::Held),
            _ => {
                let is_unverified = known.awaited.why.is_some();
                let apart_ns = if is_unverified { UNVERIFIED_AGAIN_NS } else { AGAIN_NS };
                if known.asked.is_due(now, apart_ns) {
                    self.attestor_handle.ask(Question::Status { worker });
                }
                Verdict::Wait(known.asked.next_check(now))
            }
        }
    }
}
