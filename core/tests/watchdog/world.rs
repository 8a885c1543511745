//! A world without processes: a segment in a vector, workers that write into it, and a kernel that
//! keeps the time, knows who lives and takes note of every signal.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hangwatch_core::atomic::{AtomicU64, Ordering};
use hangwatch_core::watchdog::expiry::{Admission, ExpiredTimer, Expiry, Request};
use hangwatch_core::watchdog::policy::{Policy, SIGKILL};
use hangwatch_core::watchdog::reap::{
    Course, Event, Evidence, Hold, Outcome, ProcessControl, Reaping, Sent, Verdict,
};
use hangwatch_core::watchdog::tick::{Clock, Watchdog};
use hangwatch_core::watchdog::updates::{Rings, Sleep};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::{
    AllowedBy, Identity, LaneNames, OwnerWord, TimerDetail, TimerKind, TimerSignal,
};
use hangwatch_core::wire::layout::Geometry;
use hangwatch_core::wire::record::{Operation, Place, Record};
use hangwatch_core::wire::ring::RingWriter;
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::segment::{Counter, Fixed, Segment};
use hangwatch_core::wire::stats::ScopeStats;
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::{Released, Timer, TimerState, TimerWord};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;
/// The max interval: no tick comes later than this.
pub(crate) const MAX_INTERVAL: u64 = 100 * MS;
/// When every world begins: 1,000 s after boot, whole units.
pub(crate) const START: Nanos = Nanos(1_000_000_000_000 / 1024 * 1024);
/// The scope of every timer here.
pub(crate) const SCOPE: ScopeId = ScopeId(1);

const TICKS_AT_MOST: u32 = 20_000;

pub(crate) fn fixed() -> Fixed {
    Fixed {
        geometry: Geometry { lanes: 8, timers: 8, records: 16, scopes: 8, lane_scopes: 4 },
        compatible_features: 0,
        incompatible_features: 0,
        boot_id: [1, 2],
        time_namespace: 3,
        incarnation: 4,
        max_interval_ns: MAX_INTERVAL,
        created_at: START,
    }
}

/// The words of a fresh segment.
pub(crate) fn words() -> Vec<AtomicU64> {
    let size = fixed().geometry.check().unwrap().words();
    let words: Vec<AtomicU64> = (0..size).map(|_| AtomicU64::new(0)).collect();
    Segment::format(&words, fixed()).unwrap();
    words
}

/// What the reaper told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Expiry { worker: u64, lane: u32, timer: u16, signal: u8, outcome: Outcome },
    Held { worker: u64, hold: Hold },
    Limited,
    Failed { worker: u64 },
    Cascade { worker: u64, suspect: Option<u64>, course: Course },
    Suspect { worker: u64, signal: u8, outcome: Outcome },
}

/// A signal as the kernel delivered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) worker: u64,
    pub(crate) number: u8,
    pub(crate) at: Nanos,
}

/// What the kernel knows of a process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) alive: bool,
    pub(crate) survives: BTreeSet<u8>,
    pub(crate) cannot_be_signalled: bool,
    /// Whether it is the watchdog's own process, which is never signalled.
    pub(crate) is_excluded: bool,
    pub(crate) verdict: Verdict,
    /// When its evidence is in.
    pub(crate) evidence_by: Nanos,
    pub(crate) admission: Admission,
}

type Hook<'a> = Box<dyn FnOnce() + 'a>;

/// The kernel, and the time.
#[derive(Default)]
pub(crate) struct Kernel<'a> {
    pub(crate) now: Nanos,
    pub(crate) processes: BTreeMap<u64, Process>,
    /// Which process holds the lock of which lane, whatever the lane says.
    pub(crate) locks: BTreeMap<u32, u64>,
    pub(crate) signals: Vec<Signal>,
    pub(crate) told: Vec<Told>,
    pub(crate) told_late: Vec<u64>,
    pub(crate) requests: Vec<Request>,
    /// Whether the watchdog hears of deaths by itself.
    pub(crate) tells_of_deaths: bool,
    /// The next sleep takes this much longer than asked.
    pub(crate) oversleeps: u64,
    /// Done once, in the middle of the next sleep.
    pub(crate) during_sleep: Option<Hook<'a>>,
    /// Done once, when the next event is told.
    pub(crate) on_told: Option<Hook<'a>>,
    admitted: BTreeSet<u64>,
    dead: Vec<u64>,
    sleeps: u64,
}

pub(crate) type Shared<'a> = Rc<RefCell<Kernel<'a>>>;

impl Kernel<'_> {
    pub(crate) fn kill(&mut self, pid: u64) {
        let process = self.processes.get_mut(&pid).expect("a process");
        if std::mem::replace(&mut process.alive, false) {
            self.dead.push(pid);
        }
    }
}

pub(crate) struct FakeClock<'a>(Shared<'a>);

impl Clock for FakeClock<'_> {
    fn now(&mut self) -> Nanos {
        self.0.borrow().now
    }
}

pub(crate) struct FakeSleep<'a>(Shared<'a>);

impl Sleep for FakeSleep<'_> {
    fn prepare(&mut self) {}

    fn sleep(&mut self, until: Nanos) {
        let hook = self.0.borrow_mut().during_sleep.take();
        if let Some(hook) = hook {
            hook();
        }
        let mut kernel = self.0.borrow_mut();
        let late = std::mem::take(&mut kernel.oversleeps);
        kernel.now = kernel.now.max(until).plus(late);
        kernel.sleeps += 1;
    }
}

pub(crate) struct FakeHands<'a>(Shared<'a>);

impl ProcessControl for FakeHands<'_> {
    type Error = &'static str;

    fn verdict(&mut self, _now: Nanos, worker: WorkerId, _lane: u32) -> Verdict {
        self.0.borrow().processes[&worker.0].verdict
    }

    fn is_excluded(&self, worker: WorkerId) -> bool {
        self.0.borrow().processes[&worker.0].is_excluded
    }

    fn evidence(&mut self, now: Nanos, worker: WorkerId, _timers: &[ExpiredTimer]) -> Evidence {
        let by = self.0.borrow().processes[&worker.0].evidence_by;
        if now < by { Evidence::Pending(by) } else { Evidence::Ready }
    }

    fn signal(&mut self, worker: WorkerId, signal: u8) -> Result<Sent, Self::Error> {
        let mut kernel = self.0.borrow_mut();
        assert!(kernel.admitted.contains(&worker.0), "{worker:?} was never admitted");
        let at = kernel.now;
        let process = &kernel.processes[&worker.0];
        if process.cannot_be_signalled {
            return Err("operation not permitted");
        }
        if !process.alive {
            return Ok(Sent::Gone);
        }
        let survives = process.survives.contains(&signal);
        kernel.signals.push(Signal { worker: worker.0, number: signal, at });
        if !survives {
            kernel.kill(worker.0);
        }
        Ok(Sent::At(at))
    }

    fn is_dead(&mut self, worker: WorkerId) -> bool {
        !self.0.borrow().processes[&worker.0].alive
    }

    fn note(&mut self, event: Event<'_, Self::Error>) {
        let mut kernel = self.0.borrow_mut();
        match event {
            Event::Expiry { worker, timer, signal, late_ns, outcome } => {
                let (lane, timer) = (timer.lane, timer.timer);
                kernel.told.push(Told::Expiry { worker: worker.0, lane, timer, signal, outcome });
                kernel.told_late.push(late_ns);
            }
            Event::Held { worker, hold, .. } => {
                kernel.told.push(Told::Held { worker: worker.0, hold });
            }
            Event::Limited { .. } => kernel.told.push(Told::Limited),
            Event::Failed { worker, .. } => kernel.told.push(Told::Failed { worker: worker.0 }),
            Event::Cascade { worker, suspect, course, .. } => {
                let suspect = suspect.and_then(|suspect| suspect.worker).map(|suspect| suspect.0);
                let worker = worker.0;
                kernel.told.push(Told::Cascade { worker, suspect, course });
            }
            Event::Suspect { worker, signal, outcome, .. } => {
                kernel.told.push(Told::Suspect { worker: worker.0, signal, outcome });
            }
            Event::Signalled { .. } => return,
        }
        let hook = kernel.on_told.take();
        drop(kernel);
        if let Some(hook) = hook {
            hook();
        }
    }
}

type FakeWatchdog<'a> =
    Watchdog<FakeClock<'a>, Rings<'a, FakeSleep<'a>>, Expiry<'a>, Reaping<'a, FakeHands<'a>>>;

/// A segment, its kernel and the watchdog that serves it.
pub(crate) struct World<'a> {
    pub(crate) segment: Segment<'a>,
    pub(crate) kernel: Shared<'a>,
    pub(crate) watchdog: FakeWatchdog<'a>,
}

fn watchdog<'a>(segment: Segment<'a>, kernel: &Shared<'a>, policy: Policy) -> FakeWatchdog<'a> {
    segment.finish_fold();
    kernel.borrow_mut().admitted.clear();
    let now = kernel.borrow().now;
    Watchdog::new(
        FakeClock(kernel.clone()),
        Rings::new(segment, FakeSleep(kernel.clone())),
        Expiry::new(segment, policy, now),
        Reaping::new(segment, policy, FakeHands(kernel.clone())),
        MAX_INTERVAL,
    )
}

impl<'a> World<'a> {
    pub(crate) fn new(words: &'a [AtomicU64], policy: Policy) -> World<'a> {
        let segment = Segment::open(words).unwrap();
        let kernel = Kernel { now: START, tells_of_deaths: true, ..Kernel::default() };
        let kernel = Rc::new(RefCell::new(kernel));
        let watchdog = watchdog(segment, &kernel, policy);
        World { segment, kernel, watchdog }
    }

    /// The watchdog dies and another adopts the segment.
    pub(crate) fn succeed(&mut self, policy: Policy) {
        self.watchdog = watchdog(self.segment, &self.kernel, policy);
    }

    /// An operator releases the kill limiter.
    pub(crate) fn release_limiter(&mut self) {
        self.watchdog.reaper.release_limiter();
        self.watchdog.table.judge_again();
    }

    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.watchdog.reaper.set_policy(policy);
        self.watchdog.table.set_policy(policy);
    }

    /// A new worker process in a lane of its own, admitted as soon as the kernel is asked.
    pub(crate) fn worker(&self, pid: u64) -> Worker<'a> {
        self.worker_of_job(pid, "job")
    }

    /// As [`World::worker`], of this job.
    pub(crate) fn worker_of_job(&self, pid: u64, job: &str) -> Worker<'a> {
        let process = Process {
            alive: true,
            survives: BTreeSet::new(),
            cannot_be_signalled: false,
            is_excluded: false,
            verdict: Verdict::Go,
            evidence_by: Nanos(0),
            admission: Admission::Worker(WorkerId(pid)),
        };
        self.kernel.borrow_mut().processes.insert(pid, process);
        self.thread_of_job(pid, job)
    }

    /// Another lane of the process `pid`.
    pub(crate) fn thread(&self, pid: u64) -> Worker<'a> {
        self.thread_of_job(pid, "job")
    }

    /// Another lane of the process `pid`, which names this job.
    pub(crate) fn thread_of_job(&self, pid: u64, job: &str) -> Worker<'a> {
        let geometry = self.segment.geometry();
        for index in 0..geometry.lanes {
            self.segment.note_lane_used(index);
            let lane = self.segment.lane(index);
            let Some(claimed) = lane.claim(u32::try_from(pid).unwrap()) else { continue };
            let names = LaneNames { job, ..LaneNames::default() };
            let owner = lane.attach(claimed, Identity::default(), names);
            self.kernel.borrow_mut().locks.insert(index, pid);
            let ring = RingWriter::resume(lane.ring(), lane.head());
            let segment = self.segment;
            return Worker { segment, kernel: self.kernel.clone(), lane: index, owner, ring };
        }
        panic!("no lane is free");
    }

    pub(crate) fn process<T>(&self, pid: u64, change: impl FnOnce(&mut Process) -> T) -> T {
        change(self.kernel.borrow_mut().processes.get_mut(&pid).expect("a process"))
    }

    /// What a watchdog does between two ticks: hears of deaths, asks about lanes.
    pub(crate) fn ask(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        let dead = std::mem::take(&mut kernel.dead);
        if kernel.tells_of_deaths {
            drop(kernel);
            for pid in dead {
                self.watchdog.reaper.worker_died(WorkerId(pid));
                self.watchdog.table.worker_gone(WorkerId(pid));
            }
        } else {
            kernel.dead = dead;
            drop(kernel);
        }
        for request in self.watchdog.table.take_requests() {
            let mut kernel = self.kernel.borrow_mut();
            let Request::Admit { lane, owner } = request else {
                kernel.requests.push(request);
                continue;
            };
            let process = kernel.locks.get(&lane).and_then(|pid| kernel.processes.get(pid));
            let admission = match process {
                Some(process) if process.alive => process.admission,
                Some(_) => Admission::Gone,
                None => Admission::Unknown,
            };
            if let Admission::Worker(worker) = admission {
                kernel.admitted.insert(worker.0);
            }
            drop(kernel);
            self.watchdog.table.admit(lane, owner, admission);
        }
    }

    /// One tick, and what comes between it and the next.
    pub(crate) fn tick(&mut self) {
        self.watchdog.tick();
        self.ask();
    }

    /// Ticks until `until`; fails where the watchdog ticks without sleeping.
    pub(crate) fn serve_until(&mut self, until: Nanos) {
        let mut ticks = 0;
        while self.now() < until {
            self.tick();
            ticks += 1;
            assert!(ticks < TICKS_AT_MOST, "the watchdog spins");
        }
    }

    pub(crate) fn serve_for(&mut self, ns: u64) {
        self.serve_until(self.now().plus(ns));
    }

    pub(crate) fn now(&self) -> Nanos {
        self.kernel.borrow().now
    }

    pub(crate) fn signals(&self) -> Vec<Signal> {
        self.kernel.borrow().signals.clone()
    }

    /// Worker and signal of each signal sent so far.
    pub(crate) fn signalled(&self) -> Vec<(u64, u8)> {
        self.kernel.borrow().signals.iter().map(|sent| (sent.worker, sent.number)).collect()
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.kernel.borrow().told.clone()
    }

    /// The outcomes told so far, in order.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |told: &Told| match told {
            Told::Expiry { outcome, .. } => Some(*outcome),
            _ => None,
        };
        self.kernel.borrow().told.iter().filter_map(outcome).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.kernel.borrow().requests.clone()
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.segment.counter(counter).load(Ordering::Relaxed)
    }

    /// How often the watchdog has slept.
    pub(crate) fn sleeps(&self) -> u64 {
        self.kernel.borrow().sleeps
    }

    /// SIGKILL reached `pid` once, at its deadline and no later than a tick after it.
    pub(crate) fn check_killed(&self, pid: u64, deadline: Nanos) {
        let sent: Vec<Signal> =
            self.signals().into_iter().filter(|sent| sent.worker == pid).collect();
        let [Signal { number: SIGKILL, at, .. }] = sent[..] else {
            panic!("worker {pid} was to be killed once: {sent:?}");
        };
        let late = at.0.checked_sub(deadline.0).expect("never early");
        assert!(late <= MAX_INTERVAL + 2048, "worker {pid} was killed {late} ns late");
    }
}

/// A worker thread, writing into its lane.
pub(crate) struct Worker<'a> {
    pub(crate) segment: Segment<'a>,
    kernel: Shared<'a>,
    pub(crate) lane: u32,
    pub(crate) owner: OwnerWord,
    ring: RingWriter<'a>,
}

impl<'a> Worker<'a> {
    pub(crate) fn timer(&self, timer: u16) -> Timer<'a> {
        self.segment.lane(self.lane).timer(usize::from(timer)).unwrap()
    }

    pub(crate) fn state(&self, timer: u16) -> Option<TimerState> {
        self.timer(timer).load().state()
    }

    fn now(&self) -> Nanos {
        self.kernel.borrow().now
    }

    /// Tells of a timer in this lane's ring.
    pub(crate) fn tell(&mut self, operation: Operation, place: Place, lane: u32, timer: u16) {
        let (at, deadline) = (self.now(), Nanos(0));
        let words = self.segment.lane(self.lane);
        let word = words.timer(timer.into()).map(Timer::load).filter(|_| lane == self.lane);
        let detail = word.and_then(|word| words.read_detail(timer.into(), word));
        let scope = detail.map_or(SCOPE.0, |detail| detail.scope.0);
        let signal = 0;
        self.ring.push(&Record { operation, place, lane, timer, scope, signal, at, deadline });
    }

    /// Arms a timer and is stopped before it tells.
    pub(crate) fn arm_silently(&mut self, timer: u16, ns: u64, signal: TimerSignal) -> TimerWord {
        self.arm_in(SCOPE, timer, ns, signal)
    }

    fn arm_in(&mut self, scope: ScopeId, timer: u16, ns: u64, signal: TimerSignal) -> TimerWord {
        let (lane, now) = (self.segment.lane(self.lane), self.now());
        let detail = TimerDetail {
            acquired_at: now,
            scope,
            signal,
            kind: TimerKind::Guard,
            allowed_by: AllowedBy::Acquire,
            meeting: None,
        };
        lane.write_detail(usize::from(timer), detail);
        lane.raise_high_water(usize::from(timer) + 1);
        self.timer(timer).arm(Units::at_or_after(now.plus(ns)))
    }

    /// Arms a timer that wants `signal`; returns its deadline.
    pub(crate) fn acquire_with(&mut self, timer: u16, ns: u64, signal: TimerSignal) -> Nanos {
        let word = self.arm_silently(timer, ns, signal);
        self.tell(Operation::Acquire, Place::Own, self.lane, timer);
        word.deadline().begins()
    }

    /// Arms a timer in a scope; returns its deadline.
    pub(crate) fn enter(&mut self, scope: ScopeId, timer: u16, ns: u64) -> Nanos {
        self.enter_with(scope, timer, ns, TimerSignal::Default)
    }

    /// As [`Worker::enter`], with a timer that wants `signal`.
    pub(crate) fn enter_with(
        &mut self,
        scope: ScopeId,
        timer: u16,
        ns: u64,
        signal: TimerSignal,
    ) -> Nanos {
        let word = self.arm_in(scope, timer, ns, signal);
        self.tell(Operation::Acquire, Place::Own, self.lane, timer);
        word.deadline().begins()
    }

    /// Arms a timer; returns its deadline.
    pub(crate) fn acquire(&mut self, timer: u16, ns: u64) -> Nanos {
        self.acquire_with(timer, ns, TimerSignal::Default)
    }

    pub(crate) fn release(&mut self, timer: u16) -> Released {
        let released = self.timer(timer).release(self.timer(timer).load());
        let operation = match released {
            Released::TooLate => Operation::TooLate,
            _ => Operation::Release,
        };
        self.tell(operation, Place::Own, self.lane, timer);
        released
    }

    /// This lane's statistics of [`SCOPE`].
    pub(crate) fn stats(&self) -> ScopeStats<'a> {
        let stats = ScopeStats(&self.segment.lane(self.lane).stats()[0]);
        if stats.scope().is_none() {
            stats.take_for(SCOPE.0);
        }
        stats
    }

    pub(crate) fn detach(&self) {
        assert!(self.segment.lane(self.lane).detach(self.owner));
    }
}

/// A request about an expired timer, without its times.
pub(crate) fn place(timer: &ExpiredTimer) -> (u32, u16) {
    (timer.lane, timer.timer)
}
