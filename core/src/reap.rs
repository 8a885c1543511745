//! The reap: signalling the process behind condemned timers until it is gone, as a state machine.
//!
//! ```text
//! condemned -> evidence -> signalled -> (grace) -> killed -> dead
//!                             |                       +----> unkillable -> dead
//!                             +-> dead
//! ```
//!
//! [`Reaping`] decides first whether a worker may be signalled at all ([`Verdict`], brake, notify
//! only), condemns its timers (a release that comes first wins), then drives one machine a worker.
//! Nothing here waits: a step that must is asked again on a later tick.
//!
//! Where one worker holds up the others of its job, it may be reaped before them, and they are held
//! back meanwhile: see `suspects`, and [`cascade`](crate::cascade) for the rule.

mod hands;
mod suspects;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::atomic::{Ordering, add_single_writer};
use crate::crash;
use crate::expiry::{ExpiredTimer, Expiry, WorkerId};
use crate::lane::{NotedHold, TimerSignal};
use crate::policy::{Brake, Policy, SIGKILL};
use crate::segment::{BRAKE_RELEASE_ASKED, BRAKED, Counter, Segment};
use crate::tick::{Expired, Reap, Reaper};
use crate::time::Nanos;
use crate::timer::{Timer, TimerState};

pub use hands::{Course, Event, Evidence, Hands, Hold, Outcome, Sent, Spared, Usual, Verdict};
use suspects::{Suspects, Suspicion};

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
struct Machine {
    state: State,
    signal: u8,
    signalled_at: Option<Nanos>,
    /// The expired ones.
    timers: Vec<ExpiredTimer>,
    /// Why it is reaped before any timer of its expired.
    suspicion: Option<Suspicion>,
    /// When it is to be looked at again.
    again_at: Nanos,
}

impl Machine {
    fn new(signal: u8, timers: Vec<ExpiredTimer>, suspicion: Option<Suspicion>) -> Machine {
        let (state, signalled_at) = (State::Condemned, None);
        Machine { state, signal, signalled_at, timers, suspicion, again_at: Nanos(0) }
    }

    /// The timers that were condemned.
    fn condemned(&self) -> &[ExpiredTimer] {
        match &self.suspicion {
            Some(suspicion) if self.timers.is_empty() => suspicion.timer.as_slice(),
            _ => &self.timers,
        }
    }

    /// Whether no timer brings it back to the reaper.
    fn has_no_timer(&self) -> bool {
        self.condemned().is_empty()
    }
}

/// A worker that was overdue and could not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// It is held.
    For(Hold),
    /// It was found let go at this time: timers older than that have their allowance from then.
    Until(Nanos),
}

/// The reaper over a real segment.
pub struct Reaping<'a, H> {
    segment: Segment<'a>,
    policy: Policy,
    brake: Brake,
    machines: BTreeMap<WorkerId, Machine>,
    held: BTreeMap<WorkerId, Held>,
    suspects: Suspects,
    hands: H,
}

impl<'a, H: Hands> Reaping<'a, H> {
    /// A reaper with nothing under way.
    pub fn new(segment: Segment<'a>, policy: Policy, hands: H) -> Self {
        let (machines, held) = (BTreeMap::new(), BTreeMap::new());
        let mut brake = Brake::default();
        if segment.watchdog().braked().load(Ordering::Relaxed) == BRAKED {
            brake.engage(); // a predecessor's, until an operator releases it
        }
        let suspects = Suspects::default();
        Reaping { segment, policy, brake, machines, held, suspects, hands }
    }

    /// The hands.
    pub fn hands_mut(&mut self) -> &mut H {
        &mut self.hands
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
        let hands = &mut self.hands;
        let (mut dead, mut is_any_left) = (Vec::new(), false);
        for (worker, machine) in &self.machines {
            if hands.is_dead(*worker) {
                dead.push(*worker);
            } else if let State::Killed { .. } = machine.state {
                is_any_left = true;
            }
        }
        (dead, is_any_left)
    }

    /// Whether the brake holds.
    pub fn is_braked(&self) -> bool {
        self.brake.is_engaged()
    }

    /// Whether an operator has asked, through the segment, for the brake's release.
    pub fn is_release_asked(&self) -> bool {
        self.segment.watchdog().braked().load(Ordering::Relaxed) == BRAKE_RELEASE_ASKED
    }

    /// Lets the brake go: an operator said so.
    pub fn release_brake(&mut self) {
        self.brake.release();
        self.segment.watchdog().braked().store(0, Ordering::Relaxed);
    }

    /// Changes the policy from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    fn count(&self, counter: Counter) {
        add_single_writer(self.segment.counter(counter), 1);
    }

    /// Reports a timer instead of condemning it. Nothing where its worker released it first.
    fn report(&mut self, now: Nanos, worker: WorkerId, timer: &ExpiredTimer) {
        if self.place(timer).is_some_and(|place| place.report(timer.word)) {
            self.count(Counter::Expired);
            self.count(Counter::Reported);
            self.tell_reported(now, worker, timer, Outcome::Reported);
        }
    }

    /// Reports a timer because the brake holds. Nothing where its worker released it first, or it was
    /// reported so already.
    fn spare(&mut self, now: Nanos, worker: WorkerId, timer: &ExpiredTimer) {
        if self.place(timer).is_some_and(|place| place.spare(timer.word)) {
            self.count(Counter::Expired);
            self.count(Counter::Reported);
            self.tell_reported(now, worker, timer, Outcome::Braked);
        }
    }

    fn place(&self, timer: &ExpiredTimer) -> Option<Timer<'a>> {
        self.segment.lane(timer.lane).timer(usize::from(timer.timer))
    }

    fn tell_reported(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timer: &ExpiredTimer,
        outcome: Outcome,
    ) {
        let late_ns = now.since(timer.deadline);
        self.hands.note(Event::Expiry { worker, timer, signal: 0, late_ns, outcome });
    }

    /// Splits what expired: reports what is notify-only, says what else asks for a signal. A watchdog
    /// that signals nobody only tells of what one before it condemned; condemned it stays.
    fn split_off_reports(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        timers: &[ExpiredTimer],
    ) -> Vec<ExpiredTimer> {
        let mut left = Vec::with_capacity(timers.len());
        for timer in timers {
            let condemned = timer.word.state() == Some(TimerState::Condemned);
            let signals_nobody = self.policy.signal == TimerSignal::NotifyOnly;
            let wants_signal = self.policy.signal_for(timer.detail.signal).is_some();
            if wants_signal || (condemned && !signals_nobody) {
                left.push(*timer);
            } else if condemned {
                self.tell_reported(now, worker, timer, Outcome::Reported);
            } else {
                self.report(now, worker, timer);
            }
        }
        left
    }

    /// Whether the worker may be signalled now; if not, when to ask again.
    fn may_signal(
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
                    self.count(Counter::Expired); // else it counted when the brake spared it
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
        let spared = |timer: &ExpiredTimer| timer.word.state() == Some(TimerState::Braked);
        if self.brake.is_engaged() && left.iter().all(spared) {
            return None; // told of already; judged again when the brake is released
        }
        if let Some(again_at) = self.suspects.again_at(worker) {
            return Some(Err(again_at));
        }
        if let Err(again_at) = self.may_signal(now, worker, &left) {
            return Some(Err(again_at));
        }
        let resumed = left.iter().any(|timer| timer.word.state() == Some(TimerState::Condemned));
        // A condemned timer is final: the brake only holds back what is not condemned yet.
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
        Some(Ok(Machine::new(signal, left, suspicion)))
    }

    /// Whether the brake forbids one more reap. The first that it does engages it.
    fn does_brake(&mut self, now: Nanos) -> bool {
        let was_braked = self.brake.is_engaged();
        let brakes = !self.brake.allows(now, self.policy.max_reaps);
        if brakes && !was_braked {
            self.segment.watchdog().braked().store(BRAKED, Ordering::Relaxed);
            let max_reaps = self.policy.max_reaps.unwrap_or_default();
            self.hands.note(Event::Braked { max_reaps });
        }
        brakes
    }

    /// Moves one machine as far as it goes without waiting.
    fn step(
        &mut self,
        now: Nanos,
        worker: WorkerId,
        machine: &mut Machine,
    ) -> Result<Reap, H::Error> {
        loop {
            match machine.state {
                State::Condemned => machine.state = State::Evidence,
                State::Evidence => {
                    match self.hands.evidence(now, worker, machine.condemned()) {
                        Evidence::Ready => {}
                        Evidence::Pending(again_at) => return Ok(Reap::Kept { again_at }),
                    }
                    if !self.send(worker, machine, machine.signal)? {
                        return Ok(self.ended(worker, machine, Outcome::Exited));
                    }
                }
                State::InGrace { until } => {
                    if self.hands.is_dead(worker) {
                        return Ok(self.ended(worker, machine, Outcome::Reaped));
                    }
                    if now < until {
                        return Ok(Reap::Kept { again_at: until });
                    }
                    self.send(worker, machine, SIGKILL)?;
                }
                State::Killed { until } | State::Unkillable { until } => {
                    if self.hands.is_dead(worker) {
                        return Ok(self.ended(worker, machine, Outcome::Reaped));
                    }
                    if now < until {
                        return Ok(Reap::Kept { again_at: until });
                    }
                    return self.survived(now, worker, machine);
                }
            }
        }
    }

    /// Sends `signal` and moves on. False where the process was dead already.
    fn send(
        &mut self,
        worker: WorkerId,
        machine: &mut Machine,
        signal: u8,
    ) -> Result<bool, H::Error> {
        let Sent::At(at) = self.hands.signal(worker, signal)? else {
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
        self.hands.note(Event::Signalled { worker, signal });
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
        self.hands.signal(worker, SIGKILL)?;
        let again_at = now.plus(self.policy.unkillable_retry_ns);
        machine.state = State::Unkillable { until: again_at };
        Ok(Reap::Kept { again_at })
    }

    fn tell(&mut self, worker: WorkerId, machine: &Machine, outcome: Outcome) {
        let signal = if machine.signalled_at.is_some() { machine.signal } else { 0 };
        if let Some(Suspicion { lane, scope, timer }) = &machine.suspicion {
            let (lane, scope, timer) = (*lane, *scope, timer.as_ref());
            self.hands.note(Event::Suspect { worker, lane, scope, timer, signal, outcome });
        }
        for timer in &machine.timers {
            let late_ns = machine.signalled_at.map_or(0, |at| at.since(timer.deadline));
            self.hands.note(Event::Expiry { worker, timer, signal, late_ns, outcome });
        }
    }

    fn ended(&mut self, worker: WorkerId, machine: &Machine, outcome: Outcome) -> Reap {
        if outcome == Outcome::Reaped {
            self.count(Counter::Reaped);
        }
        self.tell(worker, machine, outcome);
        Reap::Reaped
    }
}

impl<H: Hands> Reaper<Expiry<'_>> for Reaping<'_, H> {
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
                Some(Err(again_at)) => return Ok(Reap::Kept { again_at }),
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
        self.hands.note(Event::Failed { worker, error });
    }

    /// The table tells no more of a worker whose lane is quarantined; its grace ends all the same.
    fn go_on(&mut self, now: Nanos) -> Vec<WorkerId> {
        let is_due = |machine: &Machine| match machine.state {
            State::Condemned | State::Evidence => true,
            State::InGrace { until } | State::Killed { until } | State::Unkillable { until } => {
                until <= now
            }
        };
        let due: Vec<WorkerId> =
            self.machines.iter().filter(|(_, m)| is_due(m)).map(|(worker, _)| *worker).collect();
        let mut ended = Vec::new();
        for worker in due {
            match self.reap(now, worker, &[]) {
                Ok(Reap::Kept { .. }) => {}
                Ok(Reap::Reaped) => ended.push(worker),
                Err(error) => {
                    self.reap_failed(worker, error);
                    ended.push(worker);
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
