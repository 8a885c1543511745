//! The reap: signalling the process behind condemned timers until it is gone, as a state machine.
//!
//! ```text
//! condemned -> evidence -> signalled -> (grace) -> killed -> dead
//!                             |                       +----> unkillable -> dead
//!                             +-> dead
//! ```
//!
//! [`Reaping`] decides first whether a worker may be signalled at all ([`Verdict`], kill limiter, notify
//! only), condemns its timers (a release that comes first wins), then drives one machine a worker.
//! Nothing here waits: a step that must is asked again on a later tick. The first look is here, what it
//! asks in `leave`, what is told instead of a signal in `reports`, all that follows in `machine`.
//!
//! Where one worker holds up the others of its job, it may be reaped before them, and they are held
//! back meanwhile: see `suspects`, and [`cascade`](crate::watchdog::cascade) for the rule.

mod leave;
mod machine;
mod process_control;
mod reports;
mod suspects;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::atomic::{AtomicU64, Ordering, add_single_writer};
use crate::crash;
use crate::watchdog::expiry::{ExpiredTimer, Expiry};
use crate::watchdog::policy::{KillLimiter, Policy, SIGKILL};
use crate::watchdog::tick::{Ended, Expired, Reap, Reaper};
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::TimerSignal;
use crate::wire::scope::OTHER;
use crate::wire::segment::{Counter, LIMITED, LIMITER_RELEASE_ASKED, Segment};
use crate::wire::time::Nanos;
use crate::wire::timer::TimerState;
use crate::wire::timer::TimerWord;

use leave::Held;
use machine::Machine;
pub use machine::State;
pub use process_control::{
    Course, Event, Evidence, Excluded, Hold, Outcome, ProcessControl, Sent, Usual, Verdict,
};
use suspects::{Suspects, Suspicion};

/// The reaper over a real segment.
pub struct Reaping<'a, H> {
    segment: Segment<'a>,
    policy: Policy,
    limiter: KillLimiter,
    machines: BTreeMap<WorkerId, Machine>,
    held: BTreeMap<WorkerId, Held>,
    suspects: Suspects,
    control: H,
}

impl<'a, H: ProcessControl> Reaping<'a, H> {
    /// A reaper with nothing under way.
    pub fn new(segment: Segment<'a>, policy: Policy, control: H) -> Self {
        let (machines, held) = (BTreeMap::new(), BTreeMap::new());
        let mut limiter = KillLimiter::default();
        if segment.watchdog().limited().load(Ordering::Relaxed) == LIMITED {
            limiter.engage(); // a predecessor's, until an operator releases it
        }
        let suspects = Suspects::default();
        Reaping { segment, policy, limiter, machines, held, suspects, control }
    }

    /// The hands.
    pub fn control_mut(&mut self) -> &mut H {
        &mut self.control
    }

    /// What a reap has waited for is there: it goes on with the next tick, however long it was put off
    /// for. The table is to be told of its timers.
    pub fn look_again(&mut self, worker: WorkerId) {
        if let Some(machine) = self.machines.get_mut(&worker)
            && machine.state == State::Evidence
        {
            machine.again_at = Nanos(0);
        }
    }

    /// Goes on with the reap of a worker that a watchdog before this one has stopped, to kill it with its
    /// descendants. False where this watchdog signals nobody: then it is to run again.
    pub fn take_over_stopped(&mut self, now: Nanos, worker: WorkerId, lane: u32) -> bool {
        if self.policy.signal == TimerSignal::NotifyOnly {
            return false;
        }
        let words = self.segment.lane(lane);
        let is_condemned = |word: &AtomicU64| {
            let word = TimerWord::from_bits(word.load(Ordering::Acquire));
            word.state() == Some(TimerState::Condemned)
        };
        // A condemned timer brings it back by itself; a suspect may have none.
        if !self.machines.contains_key(&worker) && !words.timers().iter().any(is_condemned) {
            let scope = self.segment.suspects(now).scope_of(lane, words.owner()).unwrap_or(OTHER);
            let suspicion = Suspicion { lane, scope, timer: None };
            let mut machine = Machine::new(now, SIGKILL, Vec::new(), Some(suspicion));
            machine.is_resumed = true;
            self.machines.insert(worker, machine);
        }
        true
    }

    /// Where the reap of `worker` stands.
    pub fn state(&self, worker: WorkerId) -> Option<State> {
        self.machines.get(&worker).map(|machine| machine.state)
    }

    /// A worker's process is dead: if its reap is under way, that ends now, whatever it waits for.
    pub fn worker_died(&mut self, worker: WorkerId) {
        self.held.remove(&worker);
        self.suspects.forget(worker);
        if let Some(machine) = self.machines.remove(&worker) {
            let signalled = machine.signalled_at.is_some();
            let outcome = if signalled { Outcome::Reaped } else { Outcome::Exited };
            self.ended(worker, &machine, outcome);
        }
    }

    /// The workers with a reap under way that are dead by now, and whether any was sent SIGKILL and
    /// is not dead yet.
    pub fn dying(&mut self) -> (Vec<WorkerId>, bool) {
        let control = &mut self.control;
        let (mut dead, mut is_any_left) = (Vec::new(), false);
        for (worker, machine) in &self.machines {
            if control.is_dead(*worker) {
                dead.push(*worker);
            } else if let State::Killed { .. } = machine.state {
                is_any_left = true;
            }
        }
        (dead, is_any_left)
    }

    /// Whether the kill limiter holds.
    pub fn is_limited(&self) -> bool {
        self.limiter.is_engaged()
    }

    /// Whether an operator has asked, through the segment, for the kill limiter's release.
    pub fn is_release_asked(&self) -> bool {
        self.segment.watchdog().limited().load(Ordering::Relaxed) == LIMITER_RELEASE_ASKED
    }

    /// Lets the kill limiter go: an operator said so.
    pub fn release_limiter(&mut self) {
        self.limiter.release();
        self.segment.watchdog().limited().store(0, Ordering::Relaxed);
    }

    /// Changes the policy from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    fn count(&self, counter: Counter) {
        add_single_writer(self.segment.counter(counter), 1);
    }

    /// Claims the timers; those that their worker released first are dropped.
    fn condemn(&mut self, timers: Vec<ExpiredTimer>) -> Vec<ExpiredTimer> {
        let mut condemned = timers;
        condemned.retain(|timer| {
            if timer.word.state() == Some(TimerState::Condemned) {
                return true; // by a watchdog before this one
            }
            let won = self.place(timer).is_some_and(|place| place.condemn(timer.word));
            if won {
                crash::point("condemn");
                if timer.word.state() == Some(TimerState::Armed) {
                    self.count(Counter::Expired); // else it counted when the kill limiter excluded it
                }
                self.count(Counter::Condemned);
            }
            won
        });
        condemned
    }

    /// The first look at a worker's expired timers. `None`: nothing is left to reap.
    fn begin(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Option<Result<Machine, Nanos>> {
        let mut left = self.split_off_reports(now, worker, timers);
        left.first()?;
        let excluded = |timer: &ExpiredTimer| timer.word.state() == Some(TimerState::Limited);
        if self.limiter.is_engaged() && left.iter().all(excluded) {
            return None; // told of already; judged again when the kill limiter is released
        }
        if let Some(again_at) = self.suspects.again_at(worker) {
            return Some(Err(again_at));
        }
        if let Err(again_at) = self.may_signal(now, worker, &left) {
            return Some(Err(again_at));
        }
        let resumed = left.iter().any(|timer| timer.word.state() == Some(TimerState::Condemned));
        // A condemned timer is final: the kill limiter only holds back what is not condemned yet.
        if !resumed && self.does_brake(now) {
            for timer in &left {
                self.spare(now, worker, timer);
            }
            return None;
        }
        left = self.condemn(left);
        let first = left.first()?;
        let signal = self.policy.signal_for(first.detail.signal).unwrap_or(SIGKILL);
        let suspicion = self.take_over_suspicion(now, &mut left);
        let mut machine = Machine::new(now, signal, left, suspicion);
        machine.is_resumed = resumed;
        Some(Ok(machine))
    }

    /// Whether the kill limiter forbids one more reap. The first that it does engages it.
    fn does_brake(&mut self, now: Nanos) -> bool {
        let was_braked = self.limiter.is_engaged();
        let brakes = !self.limiter.allows(now, self.policy.max_reaps);
        if brakes && !was_braked {
            self.segment.watchdog().limited().store(LIMITED, Ordering::Relaxed);
            let max_reaps = self.policy.max_reaps.unwrap_or_default();
            self.control.note(Event::Limited { max_reaps });
        }
        brakes
    }
}

impl<H: ProcessControl> Reaper<Expiry<'_>> for Reaping<'_, H> {
    type Error = H::Error;

    fn weigh(
        &mut self,
        now: Nanos,
        table: &Expiry<'_>,
        expired: &mut Vec<Expired<WorkerId, ExpiredTimer>>,
    ) {
        self.look_for_suspects(now, table, expired);
    }

    fn reap(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Result<Reap, H::Error> {
        let mut machine = match self.machines.remove(&worker) {
            Some(mut machine) => {
                // Timers that expired since belong to the same reap, if they ask for a signal.
                let mut new = timers.to_vec();
                new.retain(|timer| timer.word.state() != Some(TimerState::Condemned));
                let new = self.split_off_reports(now, worker, &new);
                let mut new = self.condemn(new);
                machine.timers.append(&mut new);
                machine
            }
            None => match self.begin(now, worker, timers) {
                Some(Ok(machine)) => machine,
                Some(Err(again_at)) => {
                    self.look_for_hold(now, worker, again_at);
                    return Ok(Reap::Kept { again_at });
                }
                // Reported or released: their leaves are idle already, and nothing is condemned.
                None => return Ok(Reap::Kept { again_at: Nanos::NEVER }),
            },
        };
        match self.step(now, worker, &mut machine) {
            Ok(Reap::Reaped) => Ok(Reap::Reaped),
            Ok(Reap::Kept { again_at }) => {
                machine.again_at = again_at;
                self.machines.insert(worker, machine);
                Ok(Reap::Kept { again_at })
            }
            Err(error) => {
                self.count(Counter::Failed);
                self.tell(worker, &machine, Outcome::Failed);
                Err(error)
            }
        }
    }

    fn reap_failed(&mut self, worker: WorkerId, error: H::Error) {
        self.control.note(Event::Failed { worker, error });
    }

    /// The table tells no more of a worker whose lane is quarantined; its grace ends all the same.
    fn go_on(&mut self, now: Nanos) -> Ended<WorkerId> {
        let is_due = |machine: &Machine| match machine.state {
            State::Condemned | State::Evidence => true,
            State::InGrace { until } | State::Killed { until } | State::Unkillable { until } => {
                until <= now
            }
        };
        let due: Vec<WorkerId> =
            self.machines.iter().filter(|(_, m)| is_due(m)).map(|(worker, _)| *worker).collect();
        self.let_go_who_released(now);
        let mut ended = Ended::default();
        for worker in due {
            match self.reap(now, worker, &[]) {
                Ok(Reap::Kept { .. }) => {}
                Ok(Reap::Reaped) => ended.reaped.push(worker),
                Err(error) => {
                    self.reap_failed(worker, error);
                    ended.failed.push(worker);
                }
            }
        }
        ended
    }

    /// No timer brings those back that have none.
    fn next_step(&self) -> Nanos {
        let without_timers = self.machines.values().filter(|machine| machine.has_no_timer());
        without_timers.map(|machine| machine.again_at).min().unwrap_or(Nanos::NEVER)
    }
}
