//! Leave to signal: whether a worker that is overdue could run at all, and has had its allowance since.

use super::Reaping;
use super::hands::{Event, Hands, Hold, Verdict};
use crate::expiry::{ExpiredTimer, WorkerId};
use crate::lane::NotedHold;
use crate::time::Nanos;
use crate::timer::TimerState;

/// A worker that was overdue and could not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It is held.
    For(Hold),
    /// It was found let go at this time: timers older than that have their allowance from then.
    Until(Nanos),
}

impl<H: Hands> Reaping<'_, H> {
    /// Whether the worker may be signalled now; if not, when to ask again.
    pub(super) fn may_signal(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Result<(), Nanos> {
        let Some(first) = timers.first() else {
            return Ok(());
        };
        match self.hands.verdict(now, worker, first.lane) {
            Verdict::Go => self.has_had_its_allowance(now, worker, timers),
            Verdict::Held(hold) => {
                self.note_hold(timers, NotedHold::Held);
                if self.held.insert(worker, Held::For(hold)) != Some(Held::For(hold)) {
                    self.hands.note(Event::Held { worker, timer: first, hold });
                }
                Err(now.plus(self.segment.fixed().horizon_ns))
            }
            Verdict::Wait(until) => Err(until),
        }
    }

    /// A worker could not run while it was held: each timer from before it was let go gets its
    /// allowance once more. If that of none has passed, when the first does.
    fn has_had_its_allowance(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Result<(), Nanos> {
        let held = self.held.get(&worker).copied();
        let let_go_at = match held {
            Some(Held::Until(at)) => at,
            Some(Held::For(_)) => now,
            None => match self.inherited_hold(now, timers) {
                Some(at) => at,
                None => return Ok(()),
            },
        };
        if held != Some(Held::Until(let_go_at)) {
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
