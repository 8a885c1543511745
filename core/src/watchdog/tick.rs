//! The tick: one pass of the watchdog, with clock, queue, table and reaper as traits.
//!
//! The loop of `torch.distributed.elastic.timer`'s `TimerServer._run_watchdog` is the contract, to
//! the letter: the queue is asked for its size once; `get(max(1, size), ...)`; what it gave is
//! applied; the expired timers are taken by worker; each worker is reaped; the timers of those that
//! were reaped are cleared. A reap that reports failure keeps its timers for the next tick. A reap
//! that fails in a way it should not ends too, and does not stop the others: its worker lives, so its
//! timers are given up ([`Table::give_up`]), which upstream would clear.
//!
//! Around it, hangwatch's own: before the first is reaped, the reaper looks at all that have expired
//! and may name others to be reaped with them; what is already due is expired before anything is drained, the sleep
//! ends at the next deadline if that is earlier than the interval, lateness is credited before
//! anything is expired by it, and the timer words themselves are swept.

use alloc::vec::Vec;
use core::fmt::Debug;
use core::num::NonZeroUsize;

use crate::shared::stall::Stall;
use crate::wire::time::Nanos;

/// Where time comes from.
pub trait Clock {
    /// The time now.
    fn now(&mut self) -> Nanos;
}

/// Where updates come from.
pub trait Queue {
    /// What it holds.
    type Update;
    /// How much there is.
    fn size(&mut self) -> usize;
    /// Passes on at most `most` updates; where there is none, waits for the first of them
    /// until `until`.
    fn get(&mut self, most: NonZeroUsize, until: Nanos, update: impl FnMut(Self::Update));
}

/// The expired timers of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expired<W, T> {
    /// Whose they are.
    pub worker: W,
    /// Which, in the order of their deadlines.
    pub timers: Vec<T>,
}

/// What knows every timer.
pub trait Table {
    /// What it is told.
    type Update;
    /// Who owns timers.
    type Worker: Copy + Ord + Debug;
    /// A timer.
    type Timer;
    /// Takes in one piece of updates.
    fn apply(&mut self, update: Self::Update);
    /// The earliest time it wants to be looked at.
    fn next_deadline(&self) -> Nanos;
    /// Looks at the timers themselves, in case there was no update of one.
    fn sweep(&mut self, _now: Nanos) {}
    /// Takes the timers that have expired, by worker, in the order of their first deadlines.
    fn expired(&mut self, now: Nanos) -> Vec<Expired<Self::Worker, Self::Timer>>;
    /// Keeps timers whose worker was not reaped, to be expired again at `again_at`.
    fn keep(&mut self, expired: Expired<Self::Worker, Self::Timer>, again_at: Nanos);
    /// Forgets the expired timers of workers that are dead. `workers` is sorted and has no duplicates.
    fn clear(&mut self, workers: &[Self::Worker]);
    /// Leaves the expired timers of workers that could not be reaped to those workers, as reported.
    /// `workers` is sorted and has no duplicates.
    fn give_up(&mut self, workers: &[Self::Worker]);
    /// Gives the timers that were armed a stall back.
    fn credit(&mut self, _stall: Stall) {}
}

/// How a reap went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reap {
    /// The worker is gone: its timers are cleared.
    Reaped,
    /// Not yet: its timers are kept, and expired again at this time.
    Kept {
        /// When to try again.
        again_at: Nanos,
    },
}

/// Workers whose reap ended, by how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended<W> {
    /// These are dead.
    pub reaped: Vec<W>,
    /// These could not be reaped and live.
    pub failed: Vec<W>,
}

impl<W> Default for Ended<W> {
    fn default() -> Self {
        Ended { reaped: Vec::new(), failed: Vec::new() }
    }
}

/// What removes workers.
pub trait Reaper<T: Table> {
    /// A failure it should not have.
    type Error: Debug;
    /// Looks at all that have expired before the first of them is reaped. Who is to be reaped beside
    /// them, without an expired timer, is added.
    fn weigh(&mut self, _now: Nanos, _table: &T, _expired: &mut Vec<Expired<T::Worker, T::Timer>>) {
    }
    /// Reaps `worker`, whose `timers` have expired.
    ///
    /// # Errors
    /// Where it fails in a way it should not: the reap ends, and the worker keeps its timers.
    fn reap(
        &mut self,
        now: Nanos,
        worker: T::Worker,
        timers: &[T::Timer],
    ) -> Result<Reap, Self::Error>;
    /// Takes note of such a failure.
    fn reap_failed(&mut self, worker: T::Worker, error: Self::Error);
    /// Continues reaps that are under way, whether or not the table returns their timers again.
    /// Returns the workers whose reap ended.
    fn go_on(&mut self, _now: Nanos) -> Ended<T::Worker> {
        Ended::default()
    }
    /// When it wants to go on, whatever expires.
    fn next_step(&self) -> Nanos {
        Nanos::NEVER
    }
}

/// What one tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticked {
    /// The stall it was late by.
    pub stall: Option<Stall>,
    /// Workers with expired timers.
    pub expired: usize,
    /// Workers reaped.
    pub reaped: usize,
}

/// The loop and what it needs.
pub struct Watchdog<C, Q, T, R> {
    /// The clock.
    pub clock: C,
    /// The queue.
    pub queue: Q,
    /// The table.
    pub table: T,
    /// The reaper.
    pub reaper: R,
    /// The longest time between two ticks, ns: the max interval.
    pub max_interval_ns: u64,
    /// When the watchdog meant to read the clock next; `None` before its first tick.
    pub expected: Option<Nanos>,
    /// When it last read the clock: a stall began no earlier.
    pub looked_at: Nanos,
}

impl<C, Q, T, R> Watchdog<C, Q, T, R>
where
    C: Clock,
    Q: Queue,
    T: Table<Update = Q::Update>,
    R: Reaper<T>,
{
    /// A watchdog that has not ticked yet.
    pub fn new(clock: C, queue: Q, table: T, reaper: R, max_interval_ns: u64) -> Self {
        let (expected, looked_at) = (None, Nanos(0));
        Watchdog { clock, queue, table, reaper, max_interval_ns, expected, looked_at }
    }

    /// One pass. Sleeps at most `max_interval_ns`, and not at all where there are updates.
    pub fn tick(&mut self) -> Ticked {
        let mut ticked = Ticked::default();
        let now = self.look(&mut ticked);
        if self.next_deadline() <= now {
            self.expire(now, &mut ticked);
        }

        let size = self.queue.size();
        let most = NonZeroUsize::new(size).unwrap_or(NonZeroUsize::MIN);
        let until = self.next_deadline().min(now.plus(self.max_interval_ns));
        // Already due means due now, not then: a retry that waits since the year dot is no stall.
        self.expected = Some(until.max(now));
        let table = &mut self.table;
        self.queue.get(most, until, |update| table.apply(update));

        let now = self.look(&mut ticked);
        self.table.sweep(now);
        self.expire(now, &mut ticked);
        let ended = self.reaper.go_on(now);
        self.end(ended, &mut ticked);
        ticked
    }

    fn next_deadline(&self) -> Nanos {
        self.table.next_deadline().min(self.reaper.next_step())
    }

    /// Reads the clock, and credits the lateness before anyone acts on the time read.
    fn look(&mut self, ticked: &mut Ticked) -> Nanos {
        let now = self.clock.now();
        let expected = self.expected.replace(now).unwrap_or(now);
        let looked_at = core::mem::replace(&mut self.looked_at, now);
        if let Some(stall) = Stall::between(looked_at, expected, now, self.max_interval_ns) {
            self.table.credit(stall);
            ticked.stall = Some(stall);
        }
        now
    }

    fn expire(&mut self, now: Nanos, ticked: &mut Ticked) {
        let mut ended = Ended::default();
        let mut all = self.table.expired(now);
        self.reaper.weigh(now, &self.table, &mut all);
        for expired in all {
            ticked.expired += 1;
            match self.reaper.reap(now, expired.worker, &expired.timers) {
                Ok(Reap::Reaped) => ended.reaped.push(expired.worker),
                Ok(Reap::Kept { again_at }) => self.table.keep(expired, again_at),
                Err(error) => {
                    self.reaper.reap_failed(expired.worker, error);
                    ended.failed.push(expired.worker);
                }
            }
        }
        self.end(ended, ticked);
    }

    fn end(&mut self, ended: Ended<T::Worker>, ticked: &mut Ticked) {
        let Ended { mut reaped, mut failed } = ended;
        if !reaped.is_empty() {
            reaped.sort_unstable();
            ticked.reaped += reaped.len();
            self.table.clear(&reaped);
        }
        if !failed.is_empty() {
            failed.sort_unstable();
            self.table.give_up(&failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Every call made on the doubles, in order.
    type Calls = Rc<RefCell<Vec<String>>>;

    struct Doubles {
        calls: Calls,
        size: usize,
        expired: Vec<Expired<u32, &'static str>>,
        next: Nanos,
    }

    struct Times(Vec<u64>);
    impl Clock for Times {
        fn now(&mut self) -> Nanos {
            Nanos(if self.0.len() > 1 { self.0.remove(0) } else { self.0[0] })
        }
    }

    struct DoubleQueue(Calls, usize);
    impl Queue for DoubleQueue {
        type Update = u8;
        fn size(&mut self) -> usize {
            self.0.borrow_mut().push("size".into());
            self.1
        }
        fn get(&mut self, most: NonZeroUsize, until: Nanos, mut update: impl FnMut(u8)) {
            self.0.borrow_mut().push(format!("get {most} until {}", until.0));
            update(7);
        }
    }

    impl Table for Doubles {
        type Update = u8;
        type Worker = u32;
        type Timer = &'static str;
        fn apply(&mut self, update: u8) {
            self.calls.borrow_mut().push(format!("apply {update}"));
        }
        fn next_deadline(&self) -> Nanos {
            self.next
        }
        fn sweep(&mut self, _: Nanos) {
            self.calls.borrow_mut().push("sweep".into());
        }
        fn expired(&mut self, now: Nanos) -> Vec<Expired<u32, &'static str>> {
            self.calls.borrow_mut().push(format!("expired {}", now.0));
            self.next = Nanos::NEVER;
            std::mem::take(&mut self.expired)
        }
        fn keep(&mut self, expired: Expired<u32, &'static str>, again_at: Nanos) {
            self.calls.borrow_mut().push(format!("keep {} until {}", expired.worker, again_at.0));
            self.expired.push(expired);
        }
        fn clear(&mut self, workers: &[u32]) {
            self.calls.borrow_mut().push(format!("clear {workers:?}"));
        }
        fn give_up(&mut self, workers: &[u32]) {
            self.calls.borrow_mut().push(format!("give up {workers:?}"));
        }
        fn credit(&mut self, stall: Stall) {
            self.calls.borrow_mut().push(format!("credit {}", stall.length_ns()));
        }
    }

    struct DoubleReaper(Calls);
    impl Reaper<Doubles> for DoubleReaper {
        type Error = &'static str;
        fn weigh(&mut self, _: Nanos, _: &Doubles, expired: &mut Vec<Expired<u32, &'static str>>) {
            if expired.iter().any(|expired| expired.worker == 5) {
                expired.insert(0, Expired { worker: 9, timers: vec![] });
            }
        }
        fn reap(&mut self, now: Nanos, worker: u32, timers: &[&str]) -> Result<Reap, &'static str> {
            self.0.borrow_mut().push(format!("reap {worker} {timers:?}"));
            match worker {
                1 => Err("unexpected"),
                2 => Ok(Reap::Reaped),
                _ => Ok(Reap::Kept { again_at: now.plus(100) }),
            }
        }
        fn reap_failed(&mut self, worker: u32, error: &'static str) {
            self.0.borrow_mut().push(format!("failed {worker}: {error}"));
        }
    }

    fn watchdog(
        size: usize,
        next: Nanos,
        times: &[u64],
        workers: &[u32],
    ) -> (Calls, Watchdog<Times, DoubleQueue, Doubles, DoubleReaper>) {
        let calls = Calls::default();
        let expired = workers.iter().map(|&worker| Expired { worker, timers: vec!["t"] }).collect();
        let table = Doubles { calls: calls.clone(), size, expired, next };
        let queue = DoubleQueue(calls.clone(), table.size);
        let reaper = DoubleReaper(calls.clone());
        let watchdog = Watchdog::new(Times(times.to_vec()), queue, table, reaper, 100_000_000);
        (calls, watchdog)
    }

    #[test]
    fn the_upstream_loop_is_kept_to_the_letter() {
        let (calls, mut watchdog) = watchdog(0, Nanos::NEVER, &[10, 20], &[1, 2, 3]);
        let ticked = watchdog.tick();
        assert_eq!(
            *calls.borrow(),
            [
                "size",
                "get 1 until 100000010",
                "apply 7",
                "sweep",
                "expired 20",
                "reap 1 [\"t\"]",
                "failed 1: unexpected",
                "reap 2 [\"t\"]",
                "reap 3 [\"t\"]",
                "keep 3 until 120",
                "clear [2]",
                "give up [1]",
            ]
        );
        assert_eq!((ticked.expired, ticked.reaped), (3, 1));
        calls.borrow_mut().clear();
        watchdog.tick();
        assert!(calls.borrow().contains(&"reap 3 [\"t\"]".to_owned()), "tried again");
    }

    #[test]
    fn who_is_added_when_all_are_weighed_is_reaped_among_them() {
        let (calls, mut watchdog) = watchdog(0, Nanos::NEVER, &[10, 20], &[5, 2]);
        watchdog.tick();
        let mut calls = calls.borrow().clone();
        calls.retain(|call| call.starts_with("reap"));
        assert_eq!(calls, ["reap 9 []", "reap 5 [\"t\"]", "reap 2 [\"t\"]"]);
    }

    #[test]
    fn the_queue_is_drained_by_the_size_it_had() {
        let (calls, mut watchdog) = watchdog(500, Nanos::NEVER, &[0], &[]);
        watchdog.tick();
        assert_eq!(calls.borrow()[..2], ["size", "get 500 until 100000000"]);
        assert!(!calls.borrow().iter().any(|call| call.starts_with("clear")));
    }

    #[test]
    fn what_is_due_is_expired_before_anything_is_drained() {
        let (calls, mut watchdog) = watchdog(9, Nanos(5), &[10, 20], &[2]);
        watchdog.tick();
        assert_eq!(calls.borrow()[..4], ["expired 10", "reap 2 [\"t\"]", "clear [2]", "size"]);
    }

    #[test]
    fn the_sleep_ends_at_the_next_deadline() {
        let (calls, mut watchdog) = watchdog(0, Nanos(5000), &[10, 5001], &[]);
        watchdog.tick();
        assert_eq!(calls.borrow()[1], "get 1 until 5000");
    }

    #[test]
    fn lateness_is_credited_once_and_before_anything_is_expired() {
        let late = 100_000_010 + 3_000_000_000;
        let (calls, mut watchdog) = watchdog(0, Nanos::NEVER, &[10, late, late + 5], &[2]);
        let ticked = watchdog.tick();
        let stall = ticked.stall.unwrap();
        assert_eq!((stall.from, stall.until), (Nanos(10), Nanos(late)), "the whole of the sleep");
        let at = |what: &str| calls.borrow().iter().position(|call| call.starts_with(what));
        assert!(at("credit") < at("expired"));
        assert_eq!(watchdog.tick().stall, None);
    }
}
