//! Timeouts: how long a scope may take where its acquire brings no time, and what ran beyond it.
//!
//! The watchdog publishes them from its deadlines file; an acquire without a time reads its scope's
//! with one load, so that they may change at any time. Beside it stands what the watchdog found to
//! run beyond it, counted since the timeout is what it is, and with which clocks the scope was timed.

use core::sync::atomic::Ordering::Relaxed;

use crate::atomic::{AtomicU64, add_single_writer};
use crate::wire::clock::ClockKind;
use crate::wire::layout::TIMEOUT_WORDS;
use crate::wire::time::{MAX_TIMEOUT, Nanos, duration_ns};

const TIMEOUT_NS: usize = 0;
const SET_AT: usize = 1;
const ENDED: usize = 2;
const DIED: usize = 3;
const SUM_LATE_NS: usize = 4;
const MAX_LATE_NS: usize = 5;
const CLOCKS: usize = 6;
const _: () = assert!(CLOCKS < TIMEOUT_WORDS);

/// A timeout as it stands in shared memory; `None` where there is none, or what is there is none.
#[inline]
pub fn checked_ns(bits: u64) -> Option<u64> {
    (bits != 0 && bits <= duration_ns(MAX_TIMEOUT)).then_some(bits)
}

/// One scope's timeout in shared memory.
#[derive(Clone, Copy)]
pub struct ScopeTimeout<'a>(pub(crate) &'a [AtomicU64; TIMEOUT_WORDS]);

impl ScopeTimeout<'_> {
    /// How long the scope may take, ns, where its acquire brings no time of its own.
    #[inline]
    pub fn get_ns(self) -> Option<u64> {
        // Relaxed: the word alone says it all.
        checked_ns(self.0[TIMEOUT_NS].load(Relaxed))
    }

    /// Allows the scope so much from now on; `None` takes the timeout away. What ran beyond the one
    /// before is forgotten. The watchdog's alone.
    pub fn set_ns(self, timeout_ns: Option<u64>, now: Nanos) {
        if self.get_ns() == timeout_ns {
            return;
        }
        for word in &self.0[ENDED..=MAX_LATE_NS] {
            word.store(0, Relaxed);
        }
        self.0[SET_AT].store(now.0, Relaxed);
        self.0[TIMEOUT_NS].store(timeout_ns.unwrap_or(0), Relaxed);
    }

    /// Counts an acquire that ended `late_ns` after its deadline. The watchdog's alone.
    pub fn ended_late(self, late_ns: u64) {
        add_single_writer(&self.0[ENDED], 1);
        add_single_writer(&self.0[SUM_LATE_NS], late_ns);
        if late_ns > self.0[MAX_LATE_NS].load(Relaxed) {
            self.0[MAX_LATE_NS].store(late_ns, Relaxed);
        }
    }

    /// Counts an acquire whose worker died or left beyond its deadline. The watchdog's alone.
    pub fn died_late(self) {
        add_single_writer(&self.0[DIED], 1);
    }

    /// Records that the scope is timed with this clock. Any worker's.
    pub fn note_clock(self, clock: ClockKind) {
        self.0[CLOCKS].fetch_or(1 << clock as u64, Relaxed);
    }

    /// The clocks that the scope was timed with.
    pub fn clocks(self) -> Clocks {
        Clocks(self.0[CLOCKS].load(Relaxed))
    }

    /// What ran beyond the timeout since it is what it is.
    pub fn overruns(self) -> Overruns {
        let word = |index: usize| self.0[index].load(Relaxed);
        Overruns {
            since: Nanos(word(SET_AT)),
            ended: word(ENDED),
            died: word(DIED),
            sum_late_ns: word(SUM_LATE_NS),
            max_late_ns: word(MAX_LATE_NS),
        }
    }
}

/// What the watchdog found to run beyond a scope's timeout. One that still runs is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overruns {
    /// Since when; 0 where the timeout was never set.
    pub since: Nanos,
    /// Acquires that were released late.
    pub ended: u64,
    /// Acquires whose worker died or left first.
    pub died: u64,
    /// How late the released ones were together, ns.
    pub sum_late_ns: u64,
    /// How late the latest of them was, ns.
    pub max_late_ns: u64,
}

/// A set of clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks(u64);

impl Clocks {
    /// The clocks of the set.
    pub fn iter(self) -> impl Iterator<Item = ClockKind> {
        let all = [ClockKind::System, ClockKind::Counter, ClockKind::Coarse];
        all.into_iter().filter(move |clock| self.0 & (1 << *clock as u64) != 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::scope::ScopeId;
    use crate::wire::segment::Segment;
    use crate::wire::segment::tests::tiny_segment;

    #[test]
    fn what_ran_beyond_an_timeout_counts_for_as_long_as_it_stands() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        let timeout = segment.timeout(ScopeId(1));
        assert_eq!(timeout.get_ns(), None);
        timeout.set_ns(Some(5_000), Nanos(7));
        timeout.ended_late(30);
        timeout.ended_late(10);
        timeout.died_late();
        let counted =
            Overruns { since: Nanos(7), ended: 2, died: 1, sum_late_ns: 40, max_late_ns: 30 };
        assert_eq!(timeout.overruns(), counted);
        timeout.set_ns(Some(5_000), Nanos(8));
        assert_eq!(timeout.overruns(), counted, "the same again changes nothing");
        timeout.set_ns(Some(6_000), Nanos(9));
        assert_eq!(timeout.overruns(), Overruns { since: Nanos(9), ..Overruns::default() });
        assert_eq!(segment.timeout(ScopeId(2)).get_ns(), None, "another scope's");
        timeout.set_ns(None, Nanos(10));
        assert_eq!(timeout.get_ns(), None);
    }

    #[test]
    fn an_absurd_timeout_is_none() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        let timeout = segment.timeout(ScopeId(1));
        timeout.0[TIMEOUT_NS].store(u64::MAX, Relaxed);
        assert_eq!(timeout.get_ns(), None);
        assert_eq!(checked_ns(duration_ns(MAX_TIMEOUT)), Some(duration_ns(MAX_TIMEOUT)));
    }

    #[test]
    fn clocks_add_up() {
        let words = tiny_segment();
        let timeout = Segment::open(&words).unwrap().timeout(ScopeId(3));
        assert_eq!(timeout.clocks().iter().count(), 0);
        timeout.note_clock(ClockKind::Counter);
        timeout.note_clock(ClockKind::Coarse);
        timeout.note_clock(ClockKind::Counter);
        let clocks: Vec<_> = timeout.clocks().iter().collect();
        assert_eq!(clocks, [ClockKind::Counter, ClockKind::Coarse]);
    }
}
