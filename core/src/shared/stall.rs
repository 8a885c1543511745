//! Stall credit: the time the machine stood still is given back to the timers that were armed then.
//!
//! The watchdog measures its own lateness. Late by more than [`threshold_ns`], it was suspended,
//! stopped, starved or frozen, and so were the workers: a timer acquired before the end of the stall
//! and not yet due at its beginning gets the stall's length back, once a stall. The stall counts from
//! the watchdog's last look, the last time it is known to have run. The log of stalls stands in the
//! segment, so that a successor honours it.
//!
//! Stalls too old for the log are kept as a sum, which every timer acquired before the last of them
//! gets: more than it may deserve, never less.

use crate::atomic::{AtomicU64, Ordering};
use crate::crash;
use crate::wire::segment::{STALLS, Segment};
use crate::wire::time::Nanos;

const KEPT: usize = 16;
const STALL_WORDS: usize = 2;
const LOG_WORDS: usize = 3 + KEPT * STALL_WORDS;

/// The least lateness that counts as a stall, ns.
pub fn threshold_ns(max_interval_ns: u64) -> u64 {
    max_interval_ns.max(100_000_000)
}

/// A time the machine stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// When the watchdog last looked before it.
    pub from: Nanos,
    /// When it looked again.
    pub until: Nanos,
}

impl Stall {
    /// The stall at whose end it is `now`, if a look that was `due` comes so late. Nobody knows when
    /// after `looked_at` it began, so it is counted from there: at most a max interval too long, and never
    /// too short for the timer whose deadline the watchdog slept towards.
    pub fn between(
        looked_at: Nanos,
        due: Nanos,
        now: Nanos,
        max_interval_ns: u64,
    ) -> Option<Stall> {
        (now.since(due) > threshold_ns(max_interval_ns))
            .then_some(Stall { from: looked_at, until: now })
    }

    /// How long it took, ns.
    pub fn length_ns(&self) -> u64 {
        self.until.since(self.from)
    }
}

/// The stalls of a segment, read into private memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stalls {
    forgotten_ns: u64,
    forgotten_until: Nanos,
    kept: [Option<Stall>; KEPT],
}

impl Stalls {
    /// The deadline of a timer after every credit it deserves.
    pub fn credited(&self, acquired_at: Nanos, deadline: Nanos) -> Nanos {
        let mut deadline = deadline;
        if acquired_at < self.forgotten_until {
            deadline = deadline.plus(self.forgotten_ns);
        }
        for stall in self.kept.iter().flatten() {
            if acquired_at < stall.until && deadline > stall.from {
                deadline = deadline.plus(stall.length_ns());
            }
        }
        deadline
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.forgotten_ns == 0 && self.kept.iter().all(Option::is_none)
    }
}

impl Segment<'_> {
    /// Adds a stall to the log, before anything is expired by the time after it. The watchdog's
    /// alone.
    pub fn credit_stall(&self, stall: Stall) {
        let log: &[AtomicU64; LOG_WORDS] = self.block(STALLS);
        let count = log[0].load(Ordering::Relaxed);
        let place = &log[3 + (count as usize % KEPT) * STALL_WORDS..][..STALL_WORDS];
        if count >= KEPT as u64 {
            let oldest = Nanos(place[1].load(Ordering::Relaxed))
                .since(Nanos(place[0].load(Ordering::Relaxed)));
            let forgotten = log[1].load(Ordering::Relaxed).saturating_add(oldest);
            log[1].store(forgotten, Ordering::Relaxed);
            log[2].fetch_max(place[1].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        place[0].store(stall.from.0, Ordering::Relaxed);
        place[1].store(stall.until.0, Ordering::Relaxed);
        // Release: the stall is whole before it counts. A watchdog that dies before this line has
        // expired nothing by the time after the stall; its successor was not there to be late.
        crash::point("stall-logged");
        log[0].store(count.wrapping_add(1), Ordering::Release);
        crash::point("stall-credited");
    }

    /// Reads the log. Stalls from the future or backwards are inconsistent and ignored.
    pub fn stalls(&self, now: Nanos) -> Stalls {
        let log: &[AtomicU64; LOG_WORDS] = self.block(STALLS);
        let count = log[0].load(Ordering::Acquire);
        let kept = core::array::from_fn(|index| {
            let words = &log[3 + index * STALL_WORDS..][..STALL_WORDS];
            let [from, until] = [0, 1].map(|word| Nanos(words[word].load(Ordering::Relaxed)));
            let written = (index as u64) < count;
            (written && from < until && until <= now).then_some(Stall { from, until })
        });
        let mut stalls = Stalls {
            forgotten_ns: log[1].load(Ordering::Relaxed),
            forgotten_until: Nanos(log[2].load(Ordering::Relaxed)),
            kept,
        };
        if stalls.forgotten_until > now || stalls.forgotten_ns > now.0 {
            (stalls.forgotten_ns, stalls.forgotten_until) = (0, Nanos(0));
        }
        stalls.kept.sort_by_key(|stall| stall.map_or(Nanos::NEVER, |stall| stall.from));
        stalls
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::segment::tests::tiny_segment;

    fn stall(from: u64, until: u64) -> Stall {
        Stall { from: Nanos(from), until: Nanos(until) }
    }

    #[test]
    fn only_lateness_beyond_the_threshold_is_a_stall() {
        let late = |ns: u64| Stall::between(Nanos(990), Nanos(1000), Nanos(1000 + ns), 100_000_000);
        assert_eq!(late(100_000_000), None);
        assert_eq!(late(100_000_001).unwrap().length_ns(), 100_000_011);
        assert_eq!(Stall::between(Nanos(2), Nanos(5), Nanos(3), 1), None, "early is not late");
    }

    #[test]
    fn a_timer_gets_each_stall_it_was_armed_in_once() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        assert!(segment.stalls(Nanos(0)).is_empty());
        segment.credit_stall(stall(100, 200));
        let credited = |acquired, deadline| {
            segment.stalls(Nanos(10_000)).credited(Nanos(acquired), Nanos(deadline)).0
        };
        assert_eq!(credited(50, 150), 250, "armed before, due during");
        assert_eq!(credited(50, 300), 400, "armed before, due after");
        assert_eq!(credited(50, 90), 90, "already due when it began");
        assert_eq!(credited(250, 300), 300, "armed after");
        segment.credit_stall(stall(240, 340));
        assert_eq!(credited(50, 150), 350, "the first credit carried it into the second stall");
        assert_eq!(credited(50, 140), 240, "due before the second one began");
    }

    #[test]
    fn stalls_beyond_the_log_are_never_forgotten() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        for index in 0..50u64 {
            segment.credit_stall(stall(index * 100 + 10, index * 100 + 20));
        }
        let stalls = segment.stalls(Nanos(1_000_000));
        assert_eq!(stalls.credited(Nanos(0), Nanos(900_000)), Nanos(900_500));
        assert_eq!(stalls.credited(Nanos(4_950), Nanos(900_000)), Nanos(900_000));
    }

    #[test]
    fn an_inconsistent_log_gives_nothing() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        for word in &words[STALLS..STALLS + LOG_WORDS] {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(segment.stalls(Nanos(500)).credited(Nanos(1), Nanos(2)), Nanos(2));
    }
}
