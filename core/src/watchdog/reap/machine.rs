//! One worker's reap: from its condemned timers to its death, a step at a time.

use alloc::vec::Vec;

use super::Reaping;
use super::process_control::{Event, Evidence, Outcome, ProcessControl, Sent, Verdict};
use super::suspects::Suspicion;
use crate::watchdog::expiry::ExpiredTimer;
use crate::watchdog::policy::SIGKILL;
use crate::watchdog::tick::Reap;
use crate::watchdog::worker::WorkerId;
use crate::wire::segment::Counter;
use crate::wire::time::Nanos;

/// Where a worker's reap stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its timers are condemned.
    Condemned,
    /// Evidence is being captured.
    Evidence,
    /// A signal it can catch was sent; it has until then.
    InGrace {
        /// When SIGKILL follows.
        until: Nanos,
    },
    /// SIGKILL was sent; it counts as unkillable from then on.
    Killed {
        /// When it counts as unkillable.
        until: Nanos,
    },
    /// It survived SIGKILL; it is tried again then.
    Unkillable {
        /// When it is tried again.
        until: Nanos,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) state: State,
    signal: u8,
    pub(super) signalled_at: Option<Nanos>,
    /// The expired ones.
    pub(super) timers: Vec<ExpiredTimer>,
    /// Why it is reaped before any timer of its expired.
    suspicion: Option<Suspicion>,
    /// When it is to be looked at again.
    pub(super) again_at: Nanos,
    /// When it was last said that the worker may be signalled.
    vouched_at: Nanos,
    /// Whether a watchdog before this one has condemned the worker.
    pub(super) is_resumed: bool,
}

impl Machine {
    /// The reap of a worker that may be signalled `now`.
    pub(super) fn new(
        now: Nanos,
        signal: u8,
        timers: Vec<ExpiredTimer>,
        suspicion: Option<Suspicion>,
    ) -> Machine {
        Machine {
            state: State::Condemned,
            signal,
            signalled_at: None,
            timers,
            suspicion,
            again_at: Nanos(0),
            vouched_at: now,
            is_resumed: false,
        }
    }

    /// A lane of the worker's.
    fn lane(&self) -> Option<u32> {
        let first = self.condemned().first().map(|timer| timer.lane);
        first.or_else(|| self.suspicion.as_ref().map(|suspicion| suspicion.lane))
    }

    /// The timers that were condemned.
    fn condemned(&self) -> &[ExpiredTimer] {
        match &self.suspicion {
            Some(suspicion) if self.timers.is_empty() => suspicion.timer.as_slice(),
            _ => &self.timers,
        }
    }

    /// Whether no timer brings it back to the reaper.
    pub(super) fn has_no_timer(&self) -> bool {
        self.condemned().is_empty()
    }
}

impl<H: ProcessControl> Reaping<'_, H> {
    /// Moves one machine as far as it goes without waiting.
    pub(super) fn step(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        machine: &mut Machine,
    ) -> Result<Reap, H::Error> {
        loop {
            match machine.state {
                State::Condemned => machine.state = State::Evidence,
                State::Evidence => {
                    match self.control.evidence(now, worker, machine.condemned()) {
                        Evidence::Ready => {}
                        Evidence::Pending(again_at) => return Ok(Reap::Kept { again_at }),
                    }
                    if let Some(again_at) = self.must_wait(now, worker, machine) {
                        return Ok(Reap::Kept { again_at });
                    }
                    if !self.send(worker, machine, machine.signal)? {
                        return Ok(self.ended(worker, machine, Outcome::Exited));
                    }
                }
                State::InGrace { until } => {
                    if self.control.is_dead(worker) {
                        return Ok(self.ended(worker, machine, Outcome::Reaped));
                    }
                    if now < until {
                        return Ok(Reap::Kept { again_at: until });
                    }
                    if let Some(again_at) = self.must_wait(now, worker, machine) {
                        return Ok(Reap::Kept { again_at });
                    }
                    self.send(worker, machine, SIGKILL)?;
                }
                State::Killed { until } | State::Unkillable { until } => {
                    if self.control.is_dead(worker) {
                        return Ok(self.ended(worker, machine, Outcome::Reaped));
                    }
                    if now < until {
                        return Ok(Reap::Kept { again_at: until });
                    }
                    if self.control.is_kill_pending(worker) {
                        let until = now.plus(self.policy.unkillable_after_ns);
                        machine.state = State::Killed { until };
                        return Ok(Reap::Kept { again_at: until });
                    }
                    return self.survived(now, worker, machine);
                }
            }
        }
    }

    /// Until when a signal has to wait. Evidence and grace take their time, and the worker may run another
    /// program by now, or be held up: whether it may be signalled is asked anew.
    fn must_wait(&mut self, now: Nanos, worker: WorkerId, machine: &mut Machine) -> Option<Nanos> {
        // Nothing vouches for the dead any more, and no signal reaches them.
        if machine.vouched_at == now || self.control.is_dead(worker) {
            return None;
        }
        let verdict = self.control.verdict(now, worker, machine.lane()?);
        match verdict.of_condemned(machine.is_resumed) {
            Verdict::Go => {
                machine.vouched_at = now;
                None
            }
            Verdict::Held(_) => Some(now.plus(self.segment.fixed().max_interval_ns)),
            Verdict::Wait(until) => Some(until),
        }
    }

    /// Sends `signal` and moves on. False where the process was dead already.
    fn send(
        &mut self,
        worker: WorkerId,
        machine: &mut Machine,
        signal: u8,
    ) -> Result<bool, H::Error> {
        let Sent::At(at) = self.control.signal(worker, signal)? else {
            if machine.signalled_at.is_some() {
                machine.state = State::Killed { until: Nanos::NEVER }; // dead: the next step says so
            }
            return Ok(false);
        };
        machine.signal = signal;
        machine.signalled_at.get_or_insert(at);
        machine.state = if signal == SIGKILL {
            State::Killed { until: at.plus(self.policy.unkillable_after_ns) }
        } else {
            State::InGrace { until: at.plus(self.policy.grace_after_ns(signal)) }
        };
        self.control.note(Event::Signalled { worker, signal, at });
        Ok(true)
    }

    /// A worker outlived SIGKILL: said once, tried again slowly.
    fn survived(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        machine: &mut Machine,
    ) -> Result<Reap, H::Error> {
        if matches!(machine.state, State::Killed { .. }) {
            self.count(Counter::Unkillable);
            self.tell(worker, machine, Outcome::Unkillable);
        }
        self.control.signal(worker, SIGKILL)?;
        let again_at = now.plus(self.policy.unkillable_retry_ns);
        machine.state = State::Unkillable { until: again_at };
        Ok(Reap::Kept { again_at })
    }

    pub(super) fn tell(&mut self, worker: WorkerId, machine: &Machine, outcome: Outcome) {
        let signal = if machine.signalled_at.is_some() { machine.signal } else { 0 };
        if let Some(Suspicion { lane, scope, timer }) = &machine.suspicion {
            let (lane, scope, timer) = (*lane, *scope, timer.as_ref());
            self.control.note(Event::Suspect { worker, lane, scope, timer, signal, outcome });
        }
        for timer in &machine.timers {
            let late_ns = machine.signalled_at.map_or(0, |at| at.since(timer.deadline));
            self.control.note(Event::Expiry { worker, timer, signal, late_ns, outcome });
        }
    }

    pub(super) fn ended(&mut self, worker: WorkerId, machine: &Machine, outcome: Outcome) -> Reap {
        if outcome == Outcome::Reaped {
            self.count(Counter::Reaped);
        }
        self.tell(worker, machine, outcome);
        Reap::Reaped
    }
}
