//! The clock that a deadline of `exec` counts by: time in which this process ran.
//!
//! Time in which everything stood still (Ctrl-Z and `fg`, a frozen control group, a paused container) is
//! credited as the server credits it (`hangwatch_core::shared::stall`): this process sleeps for [`LONGEST_SLEEP`]
//! at most, and a sleep that ends later than it should by more than the threshold was a stall.

use std::time::{Duration, Instant};

use hangwatch::sys::clock;
use hangwatch_core::shared::stall::Stall;
use hangwatch_core::wire::time::{Nanos, duration_ns};

/// The longest sleep between two looks at the clock; a segment's own default.
pub const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// The monotonic clock, less the stalls since it began.
#[derive(Clone, Copy, Debug)]
pub struct RunningTime {
    stood_ns: u64,
    looked_at: Nanos,
    /// When the sleep that began at `looked_at` is to end.
    wakes_at: Nanos,
}

impl Default for RunningTime {
    fn default() -> RunningTime {
        RunningTime::new()
    }
}

impl RunningTime {
    /// From now on.
    pub fn new() -> RunningTime {
        let now = Nanos(clock::monotonic_ns());
        RunningTime { stood_ns: 0, looked_at: now, wakes_at: now }
    }

    /// When a sleep that begins now must end, for this clock to reach `due`: within [`LONGEST_SLEEP`].
    pub fn sleep_towards(&mut self, due: Nanos) -> Instant {
        self.sleep_at(Nanos(clock::monotonic_ns()), due);
        let sleep = Duration::from_nanos(self.wakes_at.since(self.looked_at));
        Instant::now() + sleep
    }

    /// What this clock says after a sleep, and the stall that the sleep turned out to be.
    pub fn wake(&mut self) -> (Nanos, Option<Stall>) {
        self.wake_at(Nanos(clock::monotonic_ns()))
    }

    /// What this clock says.
    pub fn now(&self) -> Nanos {
        self.at(Nanos(clock::monotonic_ns()))
    }

    /// What the monotonic clock says when this one reaches `due`, unless there are more stalls.
    pub fn on_monotonic(&self, due: Nanos) -> Nanos {
        due.plus(self.stood_ns)
    }

    fn sleep_at(&mut self, now: Nanos, due: Nanos) {
        self.looked_at = now;
        let longest = now.plus(duration_ns(LONGEST_SLEEP));
        self.wakes_at = self.on_monotonic(due).clamp(now, longest);
    }

    fn wake_at(&mut self, now: Nanos) -> (Nanos, Option<Stall>) {
        let stall = Stall::between(self.looked_at, self.wakes_at, now, duration_ns(LONGEST_SLEEP));
        self.stood_ns += stall.map_or(0, |stall| stall.length_ns());
        (self.looked_at, self.wakes_at) = (now, now);
        (self.at(now), stall)
    }

    fn at(&self, now: Nanos) -> Nanos {
        Nanos(now.since(Nanos(self.stood_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn clock() -> RunningTime {
        RunningTime { stood_ns: 0, looked_at: Nanos(1_000 * MS), wakes_at: Nanos(1_000 * MS) }
    }

    #[test]
    fn a_sleep_that_ends_in_time_counts() {
        let mut clock = clock();
        clock.sleep_at(Nanos(1_000 * MS), Nanos(9_000 * MS));
        assert_eq!(clock.wakes_at, Nanos(1_100 * MS), "no longer than the longest");
        let (now, stall) = clock.wake_at(Nanos(1_200 * MS));
        assert_eq!((now, stall), (Nanos(1_200 * MS), None), "late within the threshold");
    }

    #[test]
    fn a_stall_does_not_count_and_moves_the_deadline() {
        let mut clock = clock();
        clock.sleep_at(Nanos(1_000 * MS), Nanos(1_050 * MS));
        let (now, stall) = clock.wake_at(Nanos(61_000 * MS));
        assert_eq!(stall.unwrap().length_ns(), 60_000 * MS);
        assert_eq!(now, Nanos(1_000 * MS), "from the last look on");
        clock.sleep_at(Nanos(61_000 * MS), Nanos(1_050 * MS));
        assert_eq!(clock.wakes_at, Nanos(61_050 * MS), "what was left of it is left");
        assert_eq!(clock.wake_at(Nanos(61_050 * MS)).0, Nanos(1_050 * MS));
    }

    #[test]
    fn a_deadline_that_no_clock_reaches_is_slept_towards() {
        let mut clock = clock();
        clock.sleep_at(Nanos(1_000 * MS), Nanos::NEVER);
        assert_eq!(clock.wakes_at, Nanos(1_100 * MS));
    }
}
