//! Verdicts: whether a worker may be signalled, by its lane's lock and by what may hold it up.

use hangwatch::lane_lock_byte;
use hangwatch::sys::lock::{Holder, holder};
use hangwatch_core::expiry::WorkerId;
use hangwatch_core::reap::Verdict;
use hangwatch_core::time::Nanos;

use super::super::messages::Question;
use super::known::{Asked, Unlocked};
use super::{AGAIN_NS, ProcessHands};

/// How old an answer about a worker may be when it is signalled, ns.
const FRESH_NS: u64 = 5_000_000;
/// How long an overdue worker is spared for want of an answer about what may hold it up, ns. (For
/// want of an answer about an exec, it is spared for ever.)
const SPARED_NS: u64 = 1_000_000_000;

impl ProcessHands {
    /// Whether the clerk is asked about a worker before it is signalled.
    fn must_ask(&self, worker: WorkerId) -> bool {
        let known = self.known.get(&worker);
        self.holds_matter
            || (self.may_signal_anybody && known.is_some_and(|known| !known.worker.is_self()))
    }

    /// A deadline of this worker is near: asks what will have to be known.
    pub(in crate::server) fn prepare(&mut self, now: Nanos, worker: WorkerId) {
        if !self.must_ask(worker) {
            return;
        }
        let Some(known) = self.known.get_mut(&worker) else { return };
        let fresh = known.standing.is_some_and(|(at, _)| now.since(at) < FRESH_NS / 2);
        if !fresh && known.asked.is_due(now) {
            self.desk.ask(Question::Standing { worker });
        }
    }

    /// Whether the lane's lock stands, or the worker is known to be the program it was all the same.
    pub(super) fn lock_verdict(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> Verdict {
        let Some(known) = self.known.get(&worker) else {
            return Verdict::Wait(now.plus(AGAIN_NS));
        };
        // The kernel keeps silent about a process's own locks, and this one has not exec'd.
        if known.worker.is_self() {
            return Verdict::Go;
        }
        let held = holder(self.segment.file(), lane_lock_byte(lane));
        if matches!(held, Ok(Holder::Process(pid)) if pid == known.worker.process.pid) {
            return Verdict::Go;
        }
        let owner = self.segment.words().lane(lane).owner();
        let unlocked = self.unlocked.entry(lane).or_insert(Unlocked {
            owner,
            same_program_at: None,
            asked: Asked::default(),
        });
        if unlocked.owner != owner {
            *unlocked = Unlocked { owner, same_program_at: None, asked: Asked::default() };
        }
        if unlocked.same_program_at.is_some_and(|at| now.since(at) < FRESH_NS) {
            return Verdict::Go;
        }
        if unlocked.asked.is_due(now) {
            self.desk.ask(Question::Unlocked { lane, owner, worker });
        }
        Verdict::Wait(unlocked.asked.look_at(now))
    }

    /// Whether something holds the worker up that is not its own doing.
    pub(super) fn hold_verdict(&mut self, now: Nanos, worker: WorkerId) -> Verdict {
        if !self.must_ask(worker) {
            return Verdict::Go;
        }
        let Some(known) = self.known.get_mut(&worker) else {
            return Verdict::Go;
        };
        match known.standing {
            // A server that ends has no time to ask anew.
            Some((at, hold)) if self.is_hurried || now.since(at) < FRESH_NS => {
                hold.map_or(Verdict::Go, Verdict::Held)
            }
            _ => {
                if known.asked.is_due(now) {
                    self.desk.ask(Question::Standing { worker });
                }
                if known.asked.since_first_ns(now) > SPARED_NS {
                    return Verdict::Go;
                }
                Verdict::Wait(known.asked.look_at(now))
            }
        }
    }
}
