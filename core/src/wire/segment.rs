//! The segment as a whole: its header, and the way to its scopes, totals and lanes.
//!
//! The header's first 16 words never change after the segment is made and are guarded by a checksum;
//! an opener checks them once ([`Segment::open`]) and keeps a private copy ([`Fixed`]). The rest of
//! the page changes: who may write which word stands at each accessor.

mod fixed;
mod watchdog;

use crate::atomic::{AtomicU64, Ordering};
use crate::wire::lane::{Lane, LaneHeader};
use crate::wire::layout::{
    CASCADE_WORDS, FRONT_WORDS, Geometry, Layout, PAGE_WORDS, TIMEOUT_WORDS,
};
use crate::wire::meeting::Groups;
use crate::wire::scope::{OTHER, ScopeId, ScopeName, ScopeNames};
use crate::wire::stats::{STATS_WORDS, StatsWords};
use crate::wire::timeout::{ScopeTimeout, checked_ns};

pub use fixed::{DIES_WITH_MAKER, FIXED_WORDS, Fixed, FormatError};
pub use watchdog::{Counter, LIMITED, LIMITER_RELEASE_ASKED, WatchdogWords};

const NEXT_WAKE: usize = 16;
const LANES_USED: usize = 17;
const SCOPES_OVERFLOWED: usize = 18;
const OTHERS_TIMEOUT: usize = 19;
/// The word that holds the doorbell: 32 bits for the kernel's futex, never read as a word.
pub const DOORBELL_AT_WORD: usize = 24;
pub(crate) const CALIBRATION: usize = 32;
const WATCHDOG: usize = 40;
pub(crate) const STALLS: usize = 48;
const COUNTERS: usize = 112;
pub(crate) const FOLD_STATE: usize = 144;
pub(crate) const FOLD_LOG: usize = 145;
pub(crate) const CASCADES: usize = 448;
const _: () = assert!(FOLD_LOG + STATS_WORDS <= CASCADES && CASCADES + CASCADE_WORDS <= PAGE_WORDS);

/// A segment: checked words. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    words: &'a [AtomicU64],
    layout: Layout,
    fixed: Fixed,
}

impl<'a> Segment<'a> {
    /// Writes the header of a new segment into zeroed `words`.
    ///
    /// # Errors
    /// Where the geometry is out of bounds or does not fit `words`.
    pub fn format(words: &'a [AtomicU64], fixed: Fixed) -> Result<Segment<'a>, FormatError> {
        let layout = fixed.geometry.check()?;
        check_size(words, &layout)?;
        for (word, bits) in words.iter().zip(fixed.words()) {
            word.store(bits, Ordering::Relaxed);
        }
        Ok(Segment { words, layout, fixed })
    }

    /// Checks `words` that someone else wrote.
    ///
    /// # Errors
    /// [`FormatError`] says what is wrong with them.
    pub fn open(words: &'a [AtomicU64]) -> Result<Segment<'a>, FormatError> {
        let Some(header) = words.first_chunk::<FIXED_WORDS>() else {
            return Err(FormatError::NotASegment);
        };
        // Relaxed: the name was linked after the header was written; the open orders the two.
        let copy = core::array::from_fn(|index| header[index].load(Ordering::Relaxed));
        let fixed = Fixed::from_words(copy)?;
        let layout = fixed.geometry.check()?;
        check_size(words, &layout)?;
        Ok(Segment { words, layout, fixed })
    }

    /// The fixed part, as it was when the segment was opened.
    #[inline]
    pub fn fixed(&self) -> &Fixed {
        &self.fixed
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The sizes.
    #[inline]
    pub fn geometry(&self) -> Geometry {
        self.fixed.geometry
    }

    /// Where the words lie in this process's memory: to know a fault in them by.
    pub fn address(&self) -> usize {
        self.words.as_ptr().addr()
    }

    /// All its words.
    pub fn all(&self) -> &'a [AtomicU64] {
        self.words
    }

    pub(crate) fn word(&self, index: usize) -> &'a AtomicU64 {
        &self.words[index]
    }

    #[inline]
    pub(crate) fn block<const N: usize>(&self, at: usize) -> &'a [AtomicU64; N] {
        self.words[at..].first_chunk().expect("the layout was checked against the words")
    }

    /// Lane `index`.
    ///
    /// # Panics
    /// Where `index` is not below the geometry's lanes: callers check claims from shared memory.
    #[inline]
    pub fn lane(&self, index: u32) -> Lane<'a> {
        assert!(index < self.fixed.geometry.lanes, "lane {index} does not exist");
        let (front, back) = (self.layout.front_at(index), self.layout.back_at(index));
        Lane::new(
            &self.words[front..front + self.layout.front_stride()],
            &self.words[back..back + self.layout.back_stride()],
            &self.layout,
        )
    }

    /// The header of lane `index`: what a tick looks at in every lane, without the rest of it.
    ///
    /// # Panics
    /// As [`Segment::lane`].
    #[inline]
    pub fn lane_header(&self, index: u32) -> LaneHeader<'a> {
        assert!(index < self.fixed.geometry.lanes, "lane {index} does not exist");
        LaneHeader(self.block(self.layout.front_at(index)))
    }

    /// The timer words of lane `index`, without the rest of it.
    ///
    /// # Panics
    /// As [`Segment::lane`].
    #[inline]
    pub fn lane_timers(&self, index: u32) -> &'a [AtomicU64] {
        assert!(index < self.fixed.geometry.lanes, "lane {index} does not exist");
        let at = self.layout.front_at(index) + FRONT_WORDS;
        &self.words[at..at + self.fixed.geometry.timers as usize]
    }

    /// The scope names.
    pub fn names(&self) -> ScopeNames<'a> {
        ScopeNames(self.words[self.layout.names_at()..self.layout.totals_at()].as_chunks().0)
    }

    /// The groups that meet.
    pub fn groups(&self) -> Groups<'a> {
        let at = self.layout.groups_at();
        Groups(self.words[at..at + self.layout.groups_words()].as_chunks().0)
    }

    /// The name of the scope that a timer carries: the table's, or the one that stands beside the timer.
    /// `None` where there is none (yet), or the timer carries another by now.
    pub fn scope_name(&self, lane: u32, timer: u16, scope: ScopeId) -> Option<ScopeName> {
        if !scope.is_spilled() {
            return self.names().name(scope);
        }
        let in_lane = (lane < self.geometry().lanes).then(|| self.lane(lane));
        let spilled = in_lane.and_then(|lane| lane.spilled_name(timer.into()));
        spilled.and_then(|slot| slot.read(scope)).or_else(|| self.names().name(OTHER))
    }

    /// The total of `scope`; of `(other)` where there is no such scope.
    pub fn total(&self, scope: ScopeId) -> &'a StatsWords {
        let known = u32::from(scope.0) < self.fixed.geometry.scopes;
        let index = if known { usize::from(scope.0) } else { 0 };
        self.block(self.layout.totals_at() + index * STATS_WORDS)
    }

    /// The timeout of `scope`; of `(other)` where there is no such scope.
    #[inline]
    pub fn timeout(&self, scope: ScopeId) -> ScopeTimeout<'a> {
        let known = u32::from(scope.0) < self.fixed.geometry.scopes;
        let index = if known { usize::from(scope.0) } else { 0 };
        ScopeTimeout(self.block(self.layout.timeouts_at() + index * TIMEOUT_WORDS))
    }

    /// How long a scope may take, ns, that has no timeout of its own; `None` where that is not said.
    pub fn others_timeout_ns(&self) -> Option<u64> {
        checked_ns(self.words[OTHERS_TIMEOUT].load(Ordering::Relaxed))
    }

    /// Sets the timeout of scopes that have none of their own. The watchdog's alone.
    pub fn set_others_timeout_ns(&self, timeout_ns: Option<u64>) {
        // Relaxed: the word alone says it all.
        self.words[OTHERS_TIMEOUT].store(timeout_ns.unwrap_or(0), Ordering::Relaxed);
    }

    /// When the watchdog will wake by itself, ns; 0 while it is awake. The watchdog's alone.
    #[inline]
    pub fn next_wake(&self) -> &'a AtomicU64 {
        &self.words[NEXT_WAKE]
    }

    /// How many of the first lanes were ever claimed: a tick looks no further.
    #[inline]
    pub fn lanes_used(&self) -> u32 {
        let used = self.words[LANES_USED].load(Ordering::Acquire);
        used.min(u64::from(self.fixed.geometry.lanes)) as u32
    }

    /// Says that `lane` is about to be claimed. Any worker's.
    pub fn note_lane_used(&self, lane: u32) {
        // Release: pairs with the Acquire in `lanes_used`; a tick that misses it looks again.
        self.words[LANES_USED].fetch_max(u64::from(lane) + 1, Ordering::AcqRel);
    }

    /// How many scope names found no room. Any worker's.
    pub fn scopes_overflowed(&self) -> &'a AtomicU64 {
        &self.words[SCOPES_OVERFLOWED]
    }

    /// The serving watchdog's own words.
    pub fn watchdog(&self) -> WatchdogWords<'a> {
        WatchdogWords(self.block(WATCHDOG))
    }

    /// The watchdog's counters, which outlive it. The watchdog's alone to write.
    pub fn counter(&self, counter: Counter) -> &'a AtomicU64 {
        &self.words[COUNTERS + counter as usize]
    }
}

fn check_size(words: &[AtomicU64], layout: &Layout) -> Result<(), FormatError> {
    if words.len() == layout.words() {
        Ok(())
    } else {
        Err(FormatError::Size { found: words.len(), expected: layout.words() })
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::fixed::CHECKSUM;
    use super::*;
    use crate::wire::layout::LAYOUT_VERSION;
    use crate::wire::time::Nanos;

    pub(crate) fn tiny_fixed() -> Fixed {
        Fixed {
            geometry: Geometry { lanes: 3, timers: 4, records: 16, scopes: 4, lane_scopes: 2 },
            compatible_features: 0,
            incompatible_features: 0,
            boot_id: [1, 2],
            time_namespace: 3,
            incarnation: 4,
            max_interval_ns: 100_000_000,
            created_at: Nanos(5),
        }
    }

    pub(crate) fn zeroed(words: usize) -> Vec<AtomicU64> {
        (0..words).map(|_| AtomicU64::new(0)).collect()
    }

    /// The words of a small formatted segment.
    pub(crate) fn tiny_segment() -> Vec<AtomicU64> {
        let fixed = tiny_fixed();
        let words = zeroed(fixed.geometry.check().unwrap().words());
        Segment::format(&words, fixed).unwrap();
        words
    }

    #[test]
    fn what_was_formatted_opens_the_same() {
        let words = tiny_segment();
        assert_eq!(*Segment::open(&words).unwrap().fixed(), tiny_fixed());
    }

    #[test]
    fn damage_is_told_apart() {
        let check = |word: usize, value: u64, fits: fn(&FormatError) -> bool| {
            let words = tiny_segment();
            words[word].store(value, Ordering::Relaxed);
            let error = Segment::open(&words).err().expect("it must be refused");
            assert!(fits(&error), "{error:?}");
        };
        check(0, 7, |error| *error == FormatError::NotASegment);
        let other =
            |error: &FormatError| *error == FormatError::Version { found: LAYOUT_VERSION + 1 };
        check(1, LAYOUT_VERSION + 1, other);
        check(4, 9, |error| *error == FormatError::Checksum);
        check(CHECKSUM, 9, |error| *error == FormatError::Checksum);
        let words = tiny_segment();
        let short = Segment::open(&words[..words.len() - 1]).err();
        assert!(matches!(short, Some(FormatError::Size { .. })), "{short:?}");
        assert_eq!(Segment::open(&words[..3]).err(), Some(FormatError::NotASegment));
    }

    #[test]
    fn reserved_words_must_be_zero() {
        for (word, bits) in [(6, 1 << 32), (13, 1), (14, u64::MAX)] {
            let mut words = tiny_fixed().words();
            words[word] |= bits;
            words[CHECKSUM] = super::fixed::checksum(&words[..CHECKSUM]);
            assert_eq!(Fixed::from_words(words), Err(FormatError::Reserved { word }));
        }
    }

    #[test]
    fn unknown_features_and_absurd_sizes_are_refused_even_with_a_right_checksum() {
        let open = |fixed: Fixed| {
            let words = tiny_segment();
            for (word, bits) in words.iter().zip(fixed.words()) {
                word.store(bits, Ordering::Relaxed);
            }
            Segment::open(&words).err()
        };
        let features = Fixed { incompatible_features: 4, ..tiny_fixed() };
        assert_eq!(open(features), Some(FormatError::Features { features: 4 }));
        for max_interval_ns in [0, 999_999, 60_000_000_001, u64::MAX] {
            let spinning = Fixed { max_interval_ns, ..tiny_fixed() };
            assert_eq!(open(spinning), Some(FormatError::MaxInterval { ns: max_interval_ns }));
        }
        let huge = Geometry { lanes: u32::MAX, ..tiny_fixed().geometry };
        let huge = Fixed { geometry: huge, ..tiny_fixed() };
        assert!(matches!(open(huge), Some(FormatError::Geometry(_))));
    }
}
