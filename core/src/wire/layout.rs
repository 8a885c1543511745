//! Where everything lies in a segment: the geometry, and every offset derived from it.
//!
//! ```text
//! header (one page) | scope names | scope totals | timeouts | groups | all lanes' fronts | all lanes' backs
//! ```
//!
//! Offsets count 64-bit words. A lane has two parts. Its front is what every tick reads, and the fronts
//! of all lanes stand side by side, so that a sweep runs through memory from end to end:
//!
//! ```text
//! front: owner, ring head, high water | timer words
//! back:  identity and labels | timer details (2 words each) | meetings (1 word a timer)
//!        | meetings attended | entries before the attach | spilled names (16 words a timer)
//!        | ring (4 words a record) | statistics
//! ```
//!
//! (With the lanes whole and on pages of their own, a sweep of many lanes was one miss of the cache
//! and the address translation after the other; `bench/NOTES.md` has the figures.)
//!
//! An opener copies the fixed part of the header once, checks every bound ([`Geometry::check`]) and
//! never reads it again.

use crate::wire::stats::STATS_WORDS;

/// The layout's version. Another version is refused: there is no migration of a live segment.
pub const LAYOUT_VERSION: u64 = 5;

/// `"HANGWTCH"`, little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"HANGWTCH");

/// The bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// The words of a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Words of the largest page that a kernel maps files by: 64 KiB, on some of aarch64 and ppc64.
const LARGEST_PAGE_WORDS: usize = 64 * 1024 / 8;

/// The words before the timer words in a lane's front: one cache line.
pub const FRONT_WORDS: usize = 8;
/// The words of identity and labels in a lane's back.
pub const LABEL_WORDS: usize = 56;
/// What fronts and backs begin at a multiple of: two cache lines, which processors fetch together.
const ALIGNED_WORDS: usize = 16;
/// The words of a record in the ring.
pub const RECORD_WORDS: usize = 4;
/// The words of a timer's details.
pub const DETAIL_WORDS: usize = 2;
/// The words of a scope's name slot: hash, length and state, then the name.
pub const SCOPE_NAME_WORDS: usize = 16;
/// The words of a scope's timeout: the timeout, what ran beyond it, the clocks in use.
pub const TIMEOUT_WORDS: usize = 8;
/// How many suspects the header remembers: the newest overwrites the oldest.
pub const SUSPECTS_KEPT: usize = 8;
/// The words of a remembered suspect.
pub(crate) const SUSPECT_WORDS: usize = 4;
/// The words of the suspect log: a count, then the entries.
pub(crate) const CASCADE_WORDS: usize = 1 + SUSPECTS_KEPT * SUSPECT_WORDS;

/// The words of a group's slot: its name, then its members.
pub const GROUP_WORDS: usize = 32;
/// The groups of a segment: as many as scopes, at most so many.
const MOST_GROUPS: u32 = 256;
/// The groups of a lane of which it says which meeting it has entered last.
pub const LANE_GROUPS: usize = 32;

/// The limits of a geometry, also what a hostile header is held to.
pub mod limit {
    /// Lanes of a segment.
    pub const LANES: u64 = 65_536;
    /// Timers of a lane.
    pub const TIMERS: u64 = 1_024;
    /// Records of a ring.
    pub const RECORDS: u64 = 65_536;
    /// Scopes of a segment.
    pub const SCOPES: u64 = 32_768;
    /// Scopes of a lane that have statistics of their own.
    pub const LANE_SCOPES: u64 = 256;
    /// Bytes of a segment: 16 GiB.
    pub const BYTES: u64 = 16 << 30;
    /// The longest time between two ticks, ns: 1 ms to a minute.
    pub const MAX_INTERVAL_NS: core::ops::RangeInclusive<u64> = 1_000_000..=60_000_000_000;
}

/// The sizes a segment is made with, fixed for its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Lanes, 1 to 65,536.
    pub lanes: u32,
    /// Timers of each lane, 1 to 1,024.
    pub timers: u32,
    /// Records of each lane's ring, a power of two from 16 to 65,536.
    pub records: u32,
    /// Scope names of the segment, the first of which is `(other)`; 2 to 32,768.
    pub scopes: u32,
    /// Scopes of each lane with statistics of their own, the last of which takes the rest; 2 to 256.
    pub lane_scopes: u32,
}

impl Default for Geometry {
    /// 256 lanes of 64 timers, about 39 KiB each, and 4,096 scopes, about 1.4 KiB each: 16 MiB.
    fn default() -> Self {
        Geometry { lanes: 256, timers: 64, records: 256, scopes: 4_096, lane_scopes: 16 }
    }
}

/// A geometry that is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}, but must be {allowed}")]
pub struct GeometryError {
    /// Which size.
    pub what: &'static str,
    /// What it is.
    pub value: u64,
    /// What it may be.
    pub allowed: &'static str,
}

impl Geometry {
    /// Checks every bound and derives the offsets.
    ///
    /// # Errors
    /// [`GeometryError`] names the first size out of bounds.
    pub fn check(self) -> Result<Layout, GeometryError> {
        let within = |what, value: u32, least: u64, most: u64, allowed| {
            let value = u64::from(value);
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(GeometryError { what, value, allowed })
            }
        };
        within("the number of lanes", self.lanes, 1, limit::LANES, "1 to 65536")?;
        within("the number of timers of a lane", self.timers, 1, limit::TIMERS, "1 to 1024")?;
        within(
            "the ring capacity",
            self.records,
            16,
            limit::RECORDS,
            "a power of two from 16 to 65536",
        )?;
        within("the number of scopes", self.scopes, 2, limit::SCOPES, "2 to 32768")?;
        within(
            "the number of scopes of a lane",
            self.lane_scopes,
            2,
            limit::LANE_SCOPES,
            "2 to 256",
        )?;
        if !self.records.is_power_of_two() {
            return Err(GeometryError {
                what: "the ring capacity",
                value: u64::from(self.records),
                allowed: "a power of two from 16 to 65536",
            });
        }
        let layout = Layout::of(self);
        if layout.bytes() as u64 > limit::BYTES {
            return Err(GeometryError {
                what: "the size of the segment in bytes",
                value: layout.bytes() as u64,
                allowed: "at most 16 GiB; ask for fewer lanes or timers",
            });
        }
        Ok(layout)
    }
}

/// A checked geometry and its offsets, all in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    geometry: Geometry,
    totals_at: usize,
    timeouts_at: usize,
    groups_at: usize,
    fronts_at: usize,
    front_stride: usize,
    backs_at: usize,
    back_stride: usize,
    pub(crate) details_in_back: usize,
    pub(crate) meetings_in_back: usize,
    pub(crate) attended_in_back: usize,
    pub(crate) bases_in_back: usize,
    pub(crate) names_in_back: usize,
    pub(crate) ring_in_back: usize,
    pub(crate) stats_in_back: usize,
}

impl Layout {
    fn of(geometry: Geometry) -> Layout {
        let timers = geometry.timers as usize;
        let front_stride = (FRONT_WORDS + timers).next_multiple_of(ALIGNED_WORDS);
        let details_in_back = LABEL_WORDS;
        let meetings_in_back = details_in_back + timers * DETAIL_WORDS;
        let attended_in_back = meetings_in_back + timers;
        let bases_in_back = attended_in_back + LANE_GROUPS;
        let lane_scopes = geometry.lane_scopes as usize;
        let names_in_back = (bases_in_back + lane_scopes).next_multiple_of(8);
        let ring_in_back = names_in_back + timers * SCOPE_NAME_WORDS;
        let stats_in_back = ring_in_back + geometry.records as usize * RECORD_WORDS;
        let back_words = stats_in_back + lane_scopes * STATS_WORDS;
        let totals_at = PAGE_WORDS + geometry.scopes as usize * SCOPE_NAME_WORDS;
        let totals_words = geometry.scopes as usize * STATS_WORDS;
        let timeouts_at = (totals_at + totals_words).next_multiple_of(ALIGNED_WORDS);
        let timeouts_words = geometry.scopes as usize * TIMEOUT_WORDS;
        let groups_at = timeouts_at + timeouts_words;
        let groups_words = groups(geometry) * GROUP_WORDS;
        let fronts_at = (groups_at + groups_words).next_multiple_of(PAGE_WORDS);
        let fronts_words = geometry.lanes as usize * front_stride;
        Layout {
            geometry,
            totals_at,
            timeouts_at,
            groups_at,
            fronts_at,
            front_stride,
            backs_at: (fronts_at + fronts_words).next_multiple_of(PAGE_WORDS),
            back_stride: back_words.next_multiple_of(ALIGNED_WORDS),
            details_in_back,
            meetings_in_back,
            attended_in_back,
            bases_in_back,
            names_in_back,
            ring_in_back,
            stats_in_back,
        }
    }

    /// The geometry this layout was derived from.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Where the scope names begin.
    pub fn names_at(&self) -> usize {
        PAGE_WORDS
    }

    /// Where the scope totals begin.
    pub fn totals_at(&self) -> usize {
        self.totals_at
    }

    /// Where the scopes' timeouts begin.
    pub fn timeouts_at(&self) -> usize {
        self.timeouts_at
    }

    /// Where the groups begin.
    pub fn groups_at(&self) -> usize {
        self.groups_at
    }

    /// The words of all groups.
    pub fn groups_words(&self) -> usize {
        groups(self.geometry) * GROUP_WORDS
    }

    /// Where the front of lane `lane` begins.
    #[inline]
    pub fn front_at(&self, lane: u32) -> usize {
        self.fronts_at + lane as usize * self.front_stride
    }

    /// The words of a front.
    #[inline]
    pub fn front_stride(&self) -> usize {
        self.front_stride
    }

    /// Where the back of lane `lane` begins.
    #[inline]
    pub fn back_at(&self, lane: u32) -> usize {
        self.backs_at + lane as usize * self.back_stride
    }

    /// The words of a back.
    #[inline]
    pub fn back_stride(&self) -> usize {
        self.back_stride
    }

    /// The bytes of one lane, front and back.
    pub fn lane_bytes(&self) -> usize {
        (self.front_stride + self.back_stride) * 8
    }

    /// The words of the whole segment: whole pages, of whatever kernel.
    pub fn words(&self) -> usize {
        let lanes = self.geometry.lanes as usize;
        (self.backs_at + lanes * self.back_stride).next_multiple_of(LARGEST_PAGE_WORDS)
    }

    /// The bytes of the whole segment.
    pub fn bytes(&self) -> usize {
        self.words() * 8
    }
}

/// How many groups a segment has room for.
fn groups(geometry: Geometry) -> usize {
    geometry.scopes.min(MOST_GROUPS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_lane_takes_at_most_40_kib() {
        let layout = Geometry::default().check().unwrap();
        assert!(layout.lane_bytes() <= 40 * 1024, "{} bytes", layout.lane_bytes());
        assert!(layout.bytes() <= 17 << 20, "{} bytes", layout.bytes());
        assert_eq!(layout.words() % PAGE_WORDS, 0);
        assert_eq!(layout.bytes() % (64 << 10), 0, "whole pages also where they are large");
    }

    #[test]
    fn out_of_bounds_geometries_are_named() {
        let check = |geometry: Geometry, what: &str| {
            let error = geometry.check().unwrap_err();
            assert!(error.what.contains(what), "{error}");
        };
        let good = Geometry::default();
        check(Geometry { lanes: 0, ..good }, "lanes");
        check(Geometry { lanes: 65_537, ..good }, "lanes");
        check(Geometry { timers: 0, ..good }, "timers");
        check(Geometry { records: 100, ..good }, "ring");
        check(Geometry { scopes: 1, ..good }, "scopes");
        check(Geometry { lane_scopes: 1, ..good }, "scopes of a lane");
        check(Geometry { lanes: 65_536, timers: 1024, records: 65_536, ..good }, "bytes");
    }
}
