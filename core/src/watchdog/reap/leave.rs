//! Leave to signal: whether a worker that is overdue could run at all, and has had its timeout since.

use alloc::vec::Vec;

use super::Reaping;
use super::process_control::{Event, Hold, ProcessControl, Verdict};
use crate::watchdog::expiry::ExpiredTimer;
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::{NotedHold, OwnerWord};
use crate::wire::time::Nanos;
use crate::wire::timer::TimerState;

/// A worker that was overdue and could not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It is held.
    For {
        /// By what.
        hold: Hold,
        /// When it was looked at last.
        looked_at: Nanos,
        /// When it is looked at again, if it is overdue still.
        again_at: Nanos,
        /// The lanes in which that is noted, and who owned them.
        lanes: Vec<(u32, OwnerWord)>,
    },
    /// It was found let go at this time: timers older than that have their timeout from then.
    Until(Nanos),
}

impl<H: ProcessControl> Reaping<'_, H> {
    /// Whether the worker may be signalled now; if not, when to ask again.
    pub(super) fn may_signal(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Result<(), Nanos> {
        let Some(first) = timers.first() else {
            // Nothing proves it overdue.
            return Err(now.plus(self.segment.fixed().max_interval_ns));
        };
        let is_condemned =
            timers.iter().any(|timer| timer.word.state() == Some(TimerState::Condemned));
        match self.control.verdict(now, worker, first.lane).of_condemned(is_condemned) {
            Verdict::Go => self.has_had_its_timeout(now, worker, timers),
            Verdict::Held(hold) => {
                let lanes = timers.iter().map(|timer| timer.lane).collect();
                let (again_at, before) = self.hold(now, worker, hold, lanes);
                if before != Some(hold) {
                    self.control.note(Event::Held { worker, timer: first, hold });
                }
                Err(again_at)
            }
            Verdict::Wait(until) => Err(until),
        }
    }

    /// Takes note that a worker is held: when to look at it again, and what held it before.
    pub(super) fn hold(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        hold: Hold,
        lanes: Vec<u32>,
    ) -> (Nanos, Option<Hold>) {
        let again_at = now.plus(self.segment.fixed().max_interval_ns);
        let noted = |lane| {
            self.segment.lane(lane).note_hold(NotedHold::Held);
            (lane, self.segment.lane(lane).owner())
        };
        let lanes = lanes.into_iter().map(noted).collect();
        let before =
            match self.held.insert(worker, Held::For { hold, looked_at: now, again_at, lanes }) {
                Some(Held::For { hold, .. }) => Some(hold),
                _ => None,
            };
        (again_at, before)
    }

    /// A worker that was held is overdue still: whether it is held is seen at `again_at`.
    pub(super) fn look_for_hold(&mut self, now: Nanos, worker: WorkerId, again_at: Nanos) {
        if let Some(Held::For { looked_at, again_at: next, .. }) = self.held.get_mut(&worker) {
            (*looked_at, *next) = (now, again_at);
        }
    }

    /// Who was held and is not overdue any more has been let go: what it acquires from here on has its
    /// own timeout and no other.
    pub(super) fn let_go_who_released(&mut self, now: Nanos) {
        if self.limiter.is_engaged() {
            return; // what it spares is overdue, and not looked at
        }
        for held in self.held.values_mut() {
            let Held::For { looked_at, again_at, lanes, .. } = held else { continue };
            if *looked_at == now || *again_at > now {
                continue;
            }
            for (lane, owner) in lanes {
                let lane = self.segment.lane(*lane);
                if lane.owner() == *owner {
                    lane.note_hold(NotedHold::LetGo(now));
                }
            }
            *held = Held::Until(now);
        }
    }

    /// A worker could not run while it was held: each timer from before it was let go gets its
    /// timeout once more. If that of none has passed, when the first does.
    fn has_had_its_timeout(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Result<(), Nanos> {
        let held = self.held.get(&worker);
        let was_let_go = matches!(held, Some(Held::Until(_)));
        let let_go_at = match held {
            Some(Held::Until(at)) => *at,
            Some(Held::For { .. }) => now,
            None => match self.inherited_hold(now, timers) {
                Some(at) => at,
                None => return Ok(()),
            },
        };
        if !was_let_go {
            self.held.insert(worker, Held::Until(let_go_at));
            self.note_hold(timers, NotedHold::LetGo(let_go_at));
        }
        let due = timers.iter().map(|timer| {
            let condemned = timer.word.state() == Some(TimerState::Condemned);
            if condemned || timer.detail.acquired_at >= let_go_at {
                return timer.deadline;
            }
            let_go_at.plus(timer.deadline.since(timer.detail.acquired_at))
        });
        due.min().filter(|due| *due > now).map_or(Ok(()), Err)
    }

    /// When a worker was let go that a watchdog before this one held to be held.
    fn inherited_hold(&self, now: Nanos, timers: &[ExpiredTimer]) -> Option<Nanos> {
        let noted = timers.iter().filter_map(|timer| self.segment.lane(timer.lane).noted_hold());
        let let_go_at = |noted| match noted {
            NotedHold::Held => now,
            NotedHold::LetGo(at) => at.min(now),
        };
        noted.map(let_go_at).max()
    }

    fn note_hold(&self, timers: &[ExpiredTimer], hold: NotedHold) {
        timers.iter().for_each(|timer| self.segment.lane(timer.lane).note_hold(hold));
    }
}
