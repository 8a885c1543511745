//! What the contenders are timed on.
//!
//! Deadlines lie at random in the minute after now. The timer ids are random
//! too, but for the heartbeats: a drained batch knows no order of lanes.

use std::{
    array,
    hint::black_box,
    time::{Duration, Instant},
};

use super::{DeadlineIndex, IDLE, random::Random};
use crate::measure::median;

/// The works, in the order in which they are done on one index.
pub const WORKS: [&str; 8] = [
    "churn pair",
    "re-arm",
    "re-arm, in drained batches",
    "next deadline",
    "idle tick",
    "mixed, with expiry",
    "heartbeats in order",
    "expire all, sorted",
];

/// Where `mixed` stands in [`WORKS`].
pub const MIXED: usize = 5;

const MS: u64 = 1_000_000;
const MINUTE: u64 = 60_000 * MS;
/// Records drained between two ticks.
const BATCH: usize = 64;
/// After this long a slow contender has shown what there is to see.
const BUDGET_NS: u128 = 2_000_000_000;

/// What one contender needed at one size.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Nanoseconds an operation, by work. For the pair: both operations; for
    /// `expire all`: a timer.
    pub ns: [f64; WORKS.len()],
    /// The longest tick and the longest `set` of the mixed work.
    pub worst_ns: [u64; 2],
}

/// Times one contender at one size, every work once.
pub fn time_all<I: DeadlineIndex>(timers: usize, seed: u64) -> Figures {
    let mut random = Random::new(seed);
    let mut index = filled::<I>(timers, &mut random);
    let operations = timers.clamp(100_000, 1_000_000);
    let churn = churn_pair(&mut index, timers, operations, &mut random);
    let rearm = rearm(&mut index, timers, operations, &mut random);
    let batches = rearm_batches(&mut index, timers, operations, &mut random);
    let next = next_deadline(&mut index);
    let idle = idle_tick(&mut index);
    let mut now = 0;
    let (mixed, worst_ns) = mixed(&mut index, timers, &mut now, &mut random);
    let beats = heartbeats(&mut index, timers, operations, now);
    let expire = expire_all(&mut index, timers, now, &mut random);
    Figures { ns: [churn, rearm, batches, next, idle, mixed, beats, expire], worst_ns }
}

/// An index with every timer armed.
pub fn filled<I: DeadlineIndex>(timers: usize, random: &mut Random) -> I {
    let mut index = I::new(timers);
    for id in 0..timers {
        index.set(id, later(0, random));
    }
    index
}

/// A deadline in the minute after `now`, at least a second away.
#[inline]
pub fn later(now: u64, random: &mut Random) -> u64 {
    now + 1_000 * MS + random.below(MINUTE)
}

fn ns_each(start: Instant, count: usize) -> f64 {
    ns_of(start.elapsed(), count)
}

fn ns_of(spent: Duration, count: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53 nanoseconds")]
    let (ns, count) = (spent.as_nanos() as f64, count as f64);
    ns / count
}

/// A timer is released and armed again.
pub fn churn_pair<I: DeadlineIndex>(
    index: &mut I,
    timers: usize,
    operations: usize,
    random: &mut Random,
) -> f64 {
    let start = Instant::now();
    for _ in 0..operations {
        let id = random.below(timers as u64) as usize;
        index.set(id, IDLE);
        index.set(id, later(0, random));
    }
    ns_each(start, operations)
}

/// An armed timer gets another deadline, earlier or later.
pub fn rearm<I: DeadlineIndex>(
    index: &mut I,
    timers: usize,
    operations: usize,
    random: &mut Random,
) -> f64 {
    let start = Instant::now();
    for _ in 0..operations {
        index.set(random.below(timers as u64) as usize, later(0, random));
    }
    ns_each(start, operations)
}

/// The same, a batch at a time, as records come out of the rings.
fn rearm_batches<I: DeadlineIndex>(
    index: &mut I,
    timers: usize,
    operations: usize,
    random: &mut Random,
) -> f64 {
    let batches = operations / BATCH;
    let start = Instant::now();
    for _ in 0..batches {
        let changes: [_; BATCH] =
            array::from_fn(|_| (random.below(timers as u64) as usize, later(0, random)));
        index.set_batch(&changes);
    }
    ns_each(start, batches * BATCH)
}

fn next_deadline<I: DeadlineIndex>(index: &mut I) -> f64 {
    repeat(|| {
        black_box(black_box(&mut *index).next_deadline());
    })
}

/// A pass with nothing due.
pub fn idle_tick<I: DeadlineIndex>(index: &mut I) -> f64 {
    repeat(|| black_box(&mut *index).pop_due(black_box(0), |id, _| unreachable!("{id} is not due")))
}

/// The median of windows of at most a million calls each, as many as fit into a tenth of a second: one
/// window of half a millisecond is what else the core did at that moment.
fn repeat(mut f: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut windows = Vec::new();
    while windows.is_empty() || start.elapsed().as_millis() < 100 {
        windows.push(window(&mut f));
    }
    median(&windows)
}

/// Calls `f` a million times, or until a tenth of a second is over.
fn window(f: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0;
    while calls < 1_000_000 && start.elapsed().as_millis() < 100 {
        for _ in 0..if calls == 0 { 1 } else { calls } {
            f();
        }
        calls += calls.max(1);
    }
    ns_each(start, calls)
}

/// Timers are re-armed, a tick comes after every batch, and what expired is
/// armed again. In a second of virtual time, a sixteenth of the timers is
/// re-armed. Returns the cost an operation (a re-arm with its share of ticks)
/// and the longest tick and `set`.
fn mixed<I: DeadlineIndex>(
    index: &mut I,
    timers: usize,
    now: &mut u64,
    random: &mut Random,
) -> (f64, [u64; 2]) {
    let ns_a_batch = 16_000 * MS * BATCH as u64 / timers as u64;
    let batches = timers.max(200_000) / BATCH;
    let mut expired = Vec::with_capacity(timers);
    let mut worst = [0, 0];
    let start = Instant::now();
    for batch in 0..batches {
        if start.elapsed().as_nanos() > BUDGET_NS {
            return (ns_each(start, batch * BATCH), worst);
        }
        *now += ns_a_batch;
        let set_start = Instant::now();
        index.set(random.below(timers as u64) as usize, later(*now, random));
        let set_ns = set_start.elapsed().as_nanos() as u64;
        for _ in 1..BATCH {
            index.set(random.below(timers as u64) as usize, later(*now, random));
        }
        let tick_start = Instant::now();
        index.pop_due(*now, |id, _| expired.push(id));
        let tick_ns = tick_start.elapsed().as_nanos() as u64;
        for id in expired.drain(..) {
            index.set(id, later(*now, random));
        }
        worst = [worst[0].max(tick_ns), worst[1].max(set_ns)];
    }
    (ns_each(start, batches * BATCH), worst)
}

/// Every timer is re-armed in the order of their deadlines, so that each raise
/// hits the least of all.
pub fn heartbeats<I: DeadlineIndex>(
    index: &mut I,
    timers: usize,
    operations: usize,
    now: u64,
) -> f64 {
    let apart = MINUTE / timers as u64;
    let deadline = |beat: usize| now + 1_000 * MS + beat as u64 * apart;
    for id in 0..timers {
        index.set(id, deadline(id));
    }
    let start = Instant::now();
    let mut id = 0;
    for beat in 0..operations {
        index.set(id, deadline(timers + beat));
        id = if id + 1 == timers { 0 } else { id + 1 };
    }
    ns_each(start, operations)
}

/// Everything expires in one pass, in order; a few times over if it is little.
/// Arming it all again is not counted.
pub fn expire_all<I: DeadlineIndex>(
    index: &mut I,
    timers: usize,
    mut now: u64,
    random: &mut Random,
) -> f64 {
    let rounds = (20_000 / timers).max(1);
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        for id in 0..timers {
            index.set(id, later(now, random));
        }
        now += 2 * MINUTE;
        let start = Instant::now();
        let mut sum = 0;
        index.pop_due(now, |id, deadline| sum ^= deadline ^ id as u64);
        black_box(sum);
        spent += start.elapsed();
    }
    ns_of(spent, rounds * timers)
}
