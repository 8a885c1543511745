//! The segment as a whole: its header, and the way to its scopes, totals and lanes.
//!
//! The header's first 16 words never change after the segment is made and are guarded by a checksum;
//! an opener checks them once ([`Segment::open`]) and keeps a private copy ([`Fixed`]). The rest of
//! the page changes: who may write which word stands at each accessor.

use crate::atomic::{AtomicU64, Ordering};
use crate::lane::{Lane, LaneHeader};
use crate::layout::{
    FRONT_WORDS, Geometry, GeometryError, LAYOUT_VERSION, Layout, MAGIC, PAGE_WORDS,
};
use crate::scope::{ScopeId, ScopeNames};
use crate::stats::{STATS_WORDS, StatsWords};
use crate::time::Nanos;

const FIXED_WORDS: usize = 16;
const CHECKSUM: usize = 15;

const NEXT_WAKE: usize = 16;
const LANES_USED: usize = 17;
const SCOPES_OVERFLOWED: usize = 18;
/// The word that holds the doorbell: 32 bits for the kernel's futex, never read as a word.
pub const DOORBELL_AT_WORD: usize = 24;
pub(crate) const CALIBRATION: usize = 32;
const WATCHDOG: usize = 40;
pub(crate) const STALLS: usize = 48;
const COUNTERS: usize = 112;
pub(crate) const FOLD_STATE: usize = 144;
pub(crate) const FOLD_LOG: usize = 145;
const _: () = assert!(FOLD_LOG + STATS_WORDS <= PAGE_WORDS);

/// The fixed part of a segment's header, copied to private memory and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The sizes.
    pub geometry: Geometry,
    /// Features an opener may ignore.
    pub compatible_features: u64,
    /// Features an opener must know, or refuse the segment. None exist yet.
    pub incompatible_features: u64,
    /// The boot the segment was made in; its monotonic times mean nothing in another.
    pub boot_id: [u64; 2],
    /// The inode of the time namespace it was made in: another has another monotonic clock.
    pub time_namespace: u64,
    /// A random number that tells this segment from any other of its name.
    pub incarnation: u64,
    /// The wake horizon: every tick comes no later than this, ns.
    pub horizon_ns: u64,
    /// When it was made, ns.
    pub created_at: Nanos,
}

/// Why words are not a segment this program can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The magic number is missing.
    #[error("it is not a hangwatch segment (no magic number)")]
    NotASegment,
    /// Another layout version.
    #[error(
        "its layout version is {found}, this program knows {LAYOUT_VERSION}: use the hangwatch it \
         was made with, or end its users and make it anew"
    )]
    Version {
        /// The version found.
        found: u64,
    },
    /// A feature this program does not know.
    #[error("it uses features this program does not know ({features:#x}): use a newer hangwatch")]
    Features {
        /// The unknown bits.
        features: u64,
    },
    /// The checksum over the fixed part does not hold.
    #[error("its header is damaged (wrong checksum)")]
    Checksum,
    /// A size out of bounds.
    #[error("its header is damaged: {0}")]
    Geometry(#[from] GeometryError),
    /// Fewer or more words than its geometry asks for.
    #[error("it has {found} words where its geometry asks for {expected}")]
    Size {
        /// The words there are.
        found: usize,
        /// The words its geometry asks for.
        expected: usize,
    },
}

impl Fixed {
    fn words(&self) -> [u64; FIXED_WORDS] {
        let geometry = self.geometry;
        let pair = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
        let mut words = [
            MAGIC,
            LAYOUT_VERSION,
            self.compatible_features,
            self.incompatible_features,
            pair(geometry.lanes, geometry.timers),
            pair(geometry.records, geometry.scopes),
            u64::from(geometry.lane_scopes),
            self.boot_id[0],
            self.boot_id[1],
            self.time_namespace,
            self.incarnation,
            self.horizon_ns,
            self.created_at.0,
            0,
            0,
            0,
        ];
        words[CHECKSUM] = checksum(&words[..CHECKSUM]);
        words
    }

    fn from_words(words: [u64; FIXED_WORDS]) -> Result<Fixed, FormatError> {
        if words[0] != MAGIC {
            return Err(FormatError::NotASegment);
        }
        if words[1] != LAYOUT_VERSION {
            return Err(FormatError::Version { found: words[1] });
        }
        if words[CHECKSUM] != checksum(&words[..CHECKSUM]) {
            return Err(FormatError::Checksum);
        }
        if words[3] != 0 {
            return Err(FormatError::Features { features: words[3] });
        }
        Ok(Fixed {
            geometry: Geometry {
                lanes: words[4] as u32,
                timers: (words[4] >> 32) as u32,
                records: words[5] as u32,
                scopes: (words[5] >> 32) as u32,
                lane_scopes: words[6] as u32,
            },
            compatible_features: words[2],
            incompatible_features: words[3],
            boot_id: [words[7], words[8]],
            time_namespace: words[9],
            incarnation: words[10],
            horizon_ns: words[11],
            created_at: Nanos(words[12]),
        })
    }
}

/// FNV-1a over whole words: it guards against accidents, not against malice.
fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| {
        (sum ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29)
    })
}

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

    /// The total of `scope`; of `(other)` where there is no such scope.
    pub fn total(&self, scope: ScopeId) -> &'a StatsWords {
        let known = u32::from(scope.0) < self.fixed.geometry.scopes;
        let index = if known { usize::from(scope.0) } else { 0 };
        self.block(self.layout.totals_at() + index * STATS_WORDS)
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

/// What the serving watchdog says about itself; observers read it. A dead watchdog's words stay.
#[derive(Clone, Copy)]
pub struct WatchdogWords<'a>(&'a [AtomicU64; 8]);

impl<'a> WatchdogWords<'a> {
    /// Its pid, in its own PID namespace.
    pub fn pid(self) -> &'a AtomicU64 {
        &self.0[0]
    }

    /// When it began to serve, ns.
    pub fn started_at(self) -> &'a AtomicU64 {
        &self.0[1]
    }

    /// When its last tick ended, ns.
    pub fn last_tick_at(self) -> &'a AtomicU64 {
        &self.0[2]
    }

    /// [`BRAKED`] while the brake holds, [`BRAKE_RELEASE_ASKED`] once an operator has asked for its
    /// release, else 0.
    pub fn braked(self) -> &'a AtomicU64 {
        &self.0[3]
    }
}

/// The brake holds.
pub const BRAKED: u64 = 1;
/// The brake holds, and an operator wants it released.
pub const BRAKE_RELEASE_ASKED: u64 = 2;

/// The watchdog's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Ticks.
    Ticks,
    /// Records drained.
    Drained,
    /// Records overwritten before they were drained.
    Lapped,
    /// Timers found expired.
    Expired,
    /// Timers reported, not condemned.
    Reported,
    /// Timers condemned.
    Condemned,
    /// Workers reaped: dead after a signal.
    Reaped,
    /// Workers that survived SIGKILL.
    Unkillable,
    /// Reaps that failed in a way they should not.
    Failed,
    /// Lanes quarantined.
    Quarantined,
    /// Lanes recycled.
    Recycled,
    /// Stalls credited.
    Stalls,
    /// Watchdogs that adopted the segment.
    Adopted,
}

impl Counter {
    /// Every counter with its name, in the order of the wire.
    pub const ALL: [(Counter, &'static str); 13] = [
        (Counter::Ticks, "ticks"),
        (Counter::Drained, "drained"),
        (Counter::Lapped, "lapped"),
        (Counter::Expired, "expired"),
        (Counter::Reported, "reported"),
        (Counter::Condemned, "condemned"),
        (Counter::Reaped, "reaped"),
        (Counter::Unkillable, "unkillable"),
        (Counter::Failed, "failed"),
        (Counter::Quarantined, "quarantined"),
        (Counter::Recycled, "recycled"),
        (Counter::Stalls, "stalls"),
        (Counter::Adopted, "adopted"),
    ];
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tiny_fixed() -> Fixed {
        Fixed {
            geometry: Geometry { lanes: 3, timers: 4, records: 16, scopes: 4, lane_scopes: 2 },
            compatible_features: 0,
            incompatible_features: 0,
            boot_id: [1, 2],
            time_namespace: 3,
            incarnation: 4,
            horizon_ns: 100_000_000,
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
        check(1, 2, |error| *error == FormatError::Version { found: 2 });
        check(4, 9, |error| *error == FormatError::Checksum);
        check(CHECKSUM, 9, |error| *error == FormatError::Checksum);
        let words = tiny_segment();
        let short = Segment::open(&words[..words.len() - 1]).err();
        assert!(matches!(short, Some(FormatError::Size { .. })), "{short:?}");
        assert_eq!(Segment::open(&words[..3]).err(), Some(FormatError::NotASegment));
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
        let huge = Geometry { lanes: u32::MAX, ..tiny_fixed().geometry };
        let huge = Fixed { geometry: huge, ..tiny_fixed() };
        assert!(matches!(open(huge), Some(FormatError::Geometry(_))));
    }
}
