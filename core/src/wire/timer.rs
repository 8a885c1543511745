//! The timer word: state, deadline and generation of one timer in a single 64-bit atomic.
//!
//! ```text
//!  63    61 60                                        11 10          0
//! +--------+--------------------------------------------+-------------+
//! | state  | deadline, units of 1,024 ns since boot     | generation  |
//! +--------+--------------------------------------------+-------------+
//! ```
//!
//! One word, so that no death can tear it. `Armed` is 1 and `Idle` is 0, so that a zeroed lane is
//! idle and a sweep finds what is due with one subtraction and one comparison a word
//! ([`TimerWord::is_due`]).
//!
//! Who may change what ([`Timer`] has no other transitions):
//!
//! ```text
//!   Idle ----arm (owning thread)----> Armed <---rearm, resume (any thread of the process)---+
//!    ^  ^                              | | |                                                |
//!    |  +---release (any thread)-------+ | +---pause---> Paused ----------------------------+
//!    |                                   |                 |release
//!    |                     watchdog only |                 v
//!    |                                   +--report--> Reported ---rearm---> Armed
//!    |                                   |                 +---release---> Idle
//!    |                                   +--spare---> Limited, as Reported, but:
//!    |                                   |              | condemn (the kill limiter was released)
//!    +--clear (process dead)------ Condemned <----------+
//!                                      +---give_up (process alive)---> Reported
//! ```
//!
//! An idle timer has no live handle: a handle ends by its release, or with its process. So the
//! watchdog clears a condemned timer only when the process is dead; where a reap fails, the timer
//! becomes `Reported` and its handle's late release ends it.
//!
//! The generation counts the armings of a timer, modulo 2^11: a word that changed and changed back
//! between two looks is told apart.

use crate::atomic::{AtomicU64, Ordering};
use crate::wire::time::{DEADLINE_BITS, Nanos, Units};

const GENERATION_BITS: u32 = 11;
const GENERATION_MASK: u64 = (1 << GENERATION_BITS) - 1;
const STATE_SHIFT: u32 = GENERATION_BITS + DEADLINE_BITS;
const ARMED: u64 = (TimerState::Armed as u64) << STATE_SHIFT;

/// The state of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TimerState {
    /// Free to be armed by the thread that owns its lane.
    Idle = 0,
    /// Armed: its deadline is enforced.
    Armed = 1,
    /// Its deadline passed and was reported; nobody is signalled. May be armed again.
    Reported = 2,
    /// A heartbeat that rests: the deadline field holds the time it had left.
    Paused = 3,
    /// Claimed by the watchdog: no change by the worker succeeds, only the watchdog leaves it.
    Condemned = 4,
    /// Its deadline passed while the kill limiter held: reported, and judged again when the kill limiter is
    /// released. May be armed again.
    Limited = 5,
}

impl TimerState {
    /// Its name in what people and programs read: `armed`.
    pub fn name(self) -> &'static str {
        match self {
            TimerState::Idle => "idle",
            TimerState::Armed => "armed",
            TimerState::Reported => "reported",
            TimerState::Paused => "paused",
            TimerState::Condemned => "condemned",
            TimerState::Limited => "braked",
        }
    }
}

/// A timer word's value. Any 64 bits are a value; [`TimerWord::state`] tells the invalid ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerWord(u64);

impl TimerWord {
    /// An idle timer that was never armed: what a fresh segment holds.
    pub const FRESH: TimerWord = TimerWord(0);

    /// Takes 64 bits as they come from shared memory.
    #[inline]
    pub const fn from_bits(bits: u64) -> TimerWord {
        TimerWord(bits)
    }

    /// The 64 bits for shared memory.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Packs a word. The generation is taken modulo 2^11.
    #[inline]
    pub fn new(state: TimerState, deadline: Units, generation: u64) -> TimerWord {
        TimerWord(
            ((state as u64) << STATE_SHIFT)
                | (deadline.bits() << GENERATION_BITS)
                | (generation & GENERATION_MASK),
        )
    }

    /// The state, or `None` where the bits name none: the lane is inconsistent and is quarantined.
    #[inline]
    pub fn state(self) -> Option<TimerState> {
        Some(match self.0 >> STATE_SHIFT {
            0 => TimerState::Idle,
            1 => TimerState::Armed,
            2 => TimerState::Reported,
            3 => TimerState::Paused,
            4 => TimerState::Condemned,
            5 => TimerState::Limited,
            _ => return None,
        })
    }

    /// The deadline field: when the timer is due, or what it has left where it is paused.
    #[inline]
    pub fn deadline(self) -> Units {
        Units::from_bits(self.0 >> GENERATION_BITS)
    }

    /// How often this timer was armed, modulo 2^11.
    #[inline]
    pub fn generation(self) -> u64 {
        self.0 & GENERATION_MASK
    }

    /// Whether this is `armed` as it was, or as the watchdog excluded or condemned it.
    #[inline]
    pub fn is_of_arming(self, armed: TimerWord) -> bool {
        let as_is = |state| self == armed.with_state(state);
        self == armed || as_is(TimerState::Condemned) || as_is(TimerState::Limited)
    }

    /// Whether the timer is armed and its deadline has come by the unit `now`.
    #[inline]
    pub fn is_due(self, now: Units) -> bool {
        // Idle words wrap to huge values, every other state lies above Armed.
        self.0.wrapping_sub(ARMED) <= (now.bits() << GENERATION_BITS) | GENERATION_MASK
    }

    /// When the watchdog must look at this timer: its deadline, at once for a condemned one (its
    /// reap goes on) and for one that the kill limiter excluded (if it still holds), never for the rest.
    #[inline]
    pub fn look_at(self) -> Nanos {
        match self.0 >> STATE_SHIFT {
            1 => self.deadline().begins(),
            4 | 5 => Nanos(0),
            _ => Nanos::NEVER,
        }
    }

    #[inline]
    fn with_state(self, state: TimerState) -> TimerWord {
        TimerWord::new(state, self.deadline(), self.generation())
    }

    #[inline]
    fn is_armed(self) -> bool {
        self.0 >> STATE_SHIFT == TimerState::Armed as u64
    }

    /// The word of the same timer when it is idle again.
    #[inline]
    fn idle(self) -> TimerWord {
        TimerWord::new(TimerState::Idle, Units::default(), self.generation())
    }

    #[inline]
    fn armed_next(self, deadline: Units) -> TimerWord {
        TimerWord::new(TimerState::Armed, deadline, self.generation() + 1)
    }
}

impl core::fmt::Debug for TimerWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}@{}#{}", self.state(), self.deadline().bits(), self.generation())
    }
}

/// How an acquire ended, as the release that ended it saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Released {
    /// In time: the timer was armed (or paused) and is idle now.
    InTime,
    /// After the deadline was reported; nobody was signalled and the timer is idle now.
    Reported,
    /// Too late: the watchdog had condemned the timer. The release cancels nothing.
    TooLate,
    /// There was nothing to release.
    NotArmed,
}

/// A change that found the timer condemned, or not armed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    /// What the timer was instead.
    pub word: TimerWord,
}

/// One timer in shared memory, with every transition it may take.
#[derive(Clone, Copy)]
pub struct Timer<'a>(pub &'a AtomicU64);

impl Timer<'_> {
    /// The word as it is now.
    ///
    /// Acquire: pairs with the Release of [`Timer::arm`], so that the timer's detail words, written
    /// before it, are seen.
    #[inline]
    pub fn load(self) -> TimerWord {
        TimerWord(self.0.load(Ordering::Acquire))
    }

    /// Arms an idle timer. Only the thread that owns the lane may call this, on a timer it found
    /// idle: an idle timer has no live handle and nobody else changes it, so a store is enough.
    #[inline]
    pub fn arm(self, deadline: Units) -> TimerWord {
        // Relaxed: this thread freed the timer, or saw it freed by an Acquire load.
        let word = TimerWord(self.0.load(Ordering::Relaxed)).armed_next(deadline);
        // Release: pairs with the Acquire in `load`, publishes the detail words.
        self.0.store(word.0, Ordering::Release);
        word
    }

    /// Gives an armed, reported or excluded timer a new deadline. `expected` is a guess that saves a
    /// load where it is right.
    ///
    /// # Errors
    /// [`Refused`] where the timer is condemned, idle or paused.
    #[inline]
    pub fn rearm(self, expected: TimerWord, deadline: Units) -> Result<TimerWord, Refused> {
        self.change(expected, |word| match word.state() {
            Some(TimerState::Armed | TimerState::Reported | TimerState::Limited) => {
                Some(word.armed_next(deadline))
            }
            _ => None,
        })
        .map(|(_, new)| new)
    }

    /// Moves an armed timer's deadline on by `ns`.
    ///
    /// # Errors
    /// [`Refused`] where the timer is not armed (or reported, or excluded).
    #[inline]
    pub fn extend(self, expected: TimerWord, ns: u64) -> Result<TimerWord, Refused> {
        self.change(expected, |word| match word.state() {
            Some(TimerState::Armed | TimerState::Reported | TimerState::Limited) => {
                Some(word.armed_next(Units::at_or_after(word.deadline().begins().plus(ns))))
            }
            _ => None,
        })
        .map(|(_, new)| new)
    }

    /// Gives a timer a new deadline if it is still armed exactly as it was `seen`.
    ///
    /// # Errors
    /// [`Refused`] where it is not: somebody released it or changed its deadline since.
    #[inline]
    pub fn rearm_exactly(self, seen: TimerWord, deadline: Units) -> Result<TimerWord, Refused> {
        let next = seen.armed_next(deadline);
        if seen.is_armed() && self.swap_exactly(seen, next) {
            return Ok(next);
        }
        Err(Refused { word: self.load() })
    }

    /// Stops an armed timer at `now`, keeping the time it has left.
    ///
    /// # Errors
    /// [`Refused`] where the timer is not armed.
    #[inline]
    pub fn pause(self, expected: TimerWord, now: Nanos) -> Result<TimerWord, Refused> {
        self.change(expected, |word| match word.state() {
            Some(TimerState::Armed) => {
                let left = Units::at_or_after(Nanos(word.deadline().begins().since(now)));
                Some(TimerWord::new(TimerState::Paused, left, word.generation()))
            }
            _ => None,
        })
        .map(|(_, new)| new)
    }

    /// Arms a paused timer with the time it had left, counted from `now`.
    ///
    /// # Errors
    /// [`Refused`] where the timer is not paused.
    #[inline]
    pub fn resume(self, expected: TimerWord, now: Nanos) -> Result<TimerWord, Refused> {
        self.change(expected, |word| match word.state() {
            Some(TimerState::Paused) => {
                let left_ns = word.deadline().begins().0;
                Some(word.armed_next(Units::at_or_after(now.plus(left_ns))))
            }
            _ => None,
        })
        .map(|(_, new)| new)
    }

    /// Ends an acquire: from any thread of the process, exactly once against the watchdog's
    /// [`Timer::condemn`]. `expected` is a guess, usually right: then it costs one
    /// compare-and-swap.
    #[inline]
    pub fn release(self, expected: TimerWord) -> Released {
        if expected.is_armed() && self.swap_exactly(expected, expected.idle()) {
            return Released::InTime;
        }
        self.release_what_is_there()
    }

    /// The guess was wrong: the word decides.
    #[cold]
    fn release_what_is_there(self) -> Released {
        let released = self.change(self.load(), |word| match word.state()? {
            TimerState::Idle | TimerState::Condemned => None,
            TimerState::Armed | TimerState::Paused | TimerState::Reported | TimerState::Limited => {
                Some(word.idle())
            }
        });
        match released {
            Ok((was, _)) => match was.state() {
                Some(TimerState::Reported | TimerState::Limited) => Released::Reported,
                _ => Released::InTime,
            },
            Err(Refused { word }) if word.state() == Some(TimerState::Condemned) => {
                Released::TooLate
            }
            Err(_) => Released::NotArmed,
        }
    }

    /// Claims an expired timer, or one that the kill limiter excluded, for the watchdog: from here a release
    /// can no longer win. False where the worker changed it first.
    #[inline]
    pub fn condemn(self, seen: TimerWord) -> bool {
        matches!(seen.state(), Some(TimerState::Armed | TimerState::Limited))
            && self.swap_exactly(seen, seen.with_state(TimerState::Condemned))
    }

    /// Marks an expired timer as reported, once. False where the worker changed it first.
    #[inline]
    pub fn report(self, seen: TimerWord) -> bool {
        seen.state() == Some(TimerState::Armed)
            && self.swap_exactly(seen, seen.with_state(TimerState::Reported))
    }

    /// Marks an expired timer as excluded by the kill limiter, once. False where the worker changed it first.
    #[inline]
    pub fn spare(self, seen: TimerWord) -> bool {
        seen.state() == Some(TimerState::Armed)
            && self.swap_exactly(seen, seen.with_state(TimerState::Limited))
    }

    /// Frees a condemned timer whose process is dead. Only the watchdog may call this.
    #[inline]
    pub fn clear(self, seen: TimerWord) -> bool {
        seen.state() == Some(TimerState::Condemned) && self.swap_exactly(seen, seen.idle())
    }

    /// Marks a condemned timer as reported: its process could not be signalled and lives, so its
    /// handle may still release it. Only the watchdog may call this.
    #[inline]
    pub fn give_up(self, seen: TimerWord) -> bool {
        seen.state() == Some(TimerState::Condemned)
            && self.swap_exactly(seen, seen.with_state(TimerState::Reported))
    }

    #[inline]
    fn swap_exactly(self, seen: TimerWord, new: TimerWord) -> bool {
        // AcqRel: Release pairs with the other side's Acquire, here or in `change`, and Acquire with
        // its Release: what a worker did in its scope comes before the scope's end.
        self.0.compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Replaces the word by `new` of it, returning both; refused where `new` gives nothing.
    #[inline]
    fn change(
        self,
        expected: TimerWord,
        new: impl Fn(TimerWord) -> Option<TimerWord>,
    ) -> Result<(TimerWord, TimerWord), Refused> {
        let mut seen = if new(expected).is_some() { expected } else { self.load() };
        while let Some(next) = new(seen) {
            // Release: what this thread did in the scope comes before its end; pairs with the
            // Acquire of whoever reads the word. Acquire on failure: the word decides what follows.
            match self.0.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok((seen, next)),
                Err(found) => seen = TimerWord(found),
            }
        }
        Err(Refused { word: seen })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const AT: Units = Units::MAX;

    fn at(units: u64) -> Units {
        Units::from_bits(units)
    }

    #[test]
    fn a_word_keeps_its_three_fields_apart() {
        for state in [TimerState::Idle, TimerState::Armed, TimerState::Condemned] {
            for (deadline, generation) in [(at(0), 0), (at(1), 2047), (AT, 5), (AT, 2047)] {
                let word = TimerWord::new(state, deadline, generation);
                assert_eq!(word.state(), Some(state));
                assert_eq!(word.deadline(), deadline);
                assert_eq!(word.generation(), generation);
            }
        }
        assert_eq!(TimerWord::from_bits(u64::MAX).state(), None);
        assert_eq!(TimerWord::new(TimerState::Idle, at(3), 2048).generation(), 0);
    }

    #[test]
    fn only_armed_words_whose_deadline_has_come_are_due() {
        let due = |state, deadline, now| TimerWord::new(state, at(deadline), 7).is_due(at(now));
        assert!(due(TimerState::Armed, 10, 10));
        assert!(due(TimerState::Armed, 9, 10));
        assert!(!due(TimerState::Armed, 11, 10));
        for state in
            [TimerState::Idle, TimerState::Reported, TimerState::Paused, TimerState::Limited]
        {
            assert!(!due(state, 1, 10), "{state:?}");
        }
        assert!(!due(TimerState::Condemned, 1, 10), "a condemned timer is found by its reap");
        assert!(!TimerWord::FRESH.is_due(AT), "zeroed memory is idle");
        assert!(!TimerWord::from_bits(u64::MAX).is_due(AT), "garbage is not due");
    }

    #[test]
    fn a_release_says_how_it_ended() {
        let word = AtomicU64::new(0);
        let timer = Timer(&word);
        assert_eq!(timer.release(TimerWord::FRESH), Released::NotArmed);
        let armed = timer.arm(at(5));
        assert_eq!(timer.release(armed), Released::InTime);
        assert_eq!(timer.release(armed), Released::NotArmed, "exactly once");

        let armed = timer.arm(at(5));
        assert!(timer.condemn(armed));
        assert!(!timer.report(timer.load()), "condemned is final");
        assert_eq!(timer.release(armed), Released::TooLate);
        assert_eq!(
            timer.load().state(),
            Some(TimerState::Condemned),
            "a late release cancels nothing"
        );
        assert!(timer.rearm(armed, at(9)).is_err());
        assert!(timer.clear(timer.load()));

        let armed = timer.arm(at(5));
        assert!(timer.condemn(armed) && timer.give_up(timer.load()));
        assert_eq!(timer.release(armed), Released::Reported, "a failed reap leaves a live handle");

        let armed = timer.arm(at(5));
        assert!(timer.report(armed));
        assert!(!timer.report(armed), "reported once");
        assert_eq!(timer.release(armed), Released::Reported);
    }

    #[test]
    fn a_timer_that_the_limiter_excluded_is_the_workers_until_it_is_condemned() {
        let word = AtomicU64::new(0);
        let timer = Timer(&word);
        let armed = timer.arm(at(5));
        assert!(timer.spare(armed));
        assert!(!timer.spare(armed) && !timer.report(timer.load()), "told of once");
        assert!(timer.load().is_of_arming(armed));
        assert_eq!(timer.release(armed), Released::Reported);

        let armed = timer.arm(at(5));
        assert!(timer.spare(armed));
        let again = timer.rearm(armed, at(9)).unwrap();
        assert!(timer.spare(again));
        assert!(timer.condemn(timer.load()));
        assert_eq!(timer.release(again), Released::TooLate);
    }

    #[test]
    fn a_changed_timer_is_not_condemned_for_its_old_deadline() {
        let word = AtomicU64::new(0);
        let timer = Timer(&word);
        let armed = timer.arm(at(5));
        let moved = timer.rearm(armed, at(5)).unwrap();
        assert_ne!(armed, moved, "the generation tells them apart");
        assert!(!timer.condemn(armed));
        assert_eq!(timer.release(armed), Released::InTime, "a wrong guess costs a retry, no more");
    }

    #[test]
    fn a_timer_that_was_changed_meanwhile_keeps_its_deadline() {
        let word = AtomicU64::new(0);
        let timer = Timer(&word);
        let armed = timer.arm(at(100));
        let moved = timer.rearm_exactly(armed, at(200)).unwrap();
        assert_eq!(moved.deadline(), at(200));
        let kicked = timer.rearm(moved, at(200)).unwrap();
        assert_eq!(timer.rearm_exactly(moved, at(150)), Err(Refused { word: kicked }));
        assert_eq!(timer.release(kicked), Released::InTime);
        assert!(timer.rearm_exactly(timer.load(), at(9)).is_err(), "an idle timer is not armed");
    }

    #[test]
    fn a_pause_keeps_the_time_left() {
        let word = AtomicU64::new(0);
        let timer = Timer(&word);
        let armed = timer.arm(at(100));
        let paused = timer.pause(armed, at(40).begins()).unwrap();
        assert_eq!(timer.load().look_at(), Nanos::NEVER);
        let resumed = timer.resume(paused, at(1000).begins()).unwrap();
        assert_eq!(resumed.deadline(), at(1060));
        assert!(timer.resume(resumed, Nanos(0)).is_err());
    }
}
