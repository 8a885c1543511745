//! The ranks of a group, in a fixed number of words: runs of ranks at equal distances.
//!
//! The groups of parallel programs are such runs: all ranks, the eight of a host, every fourth.

use core::fmt;

/// The words that members take in shared memory.
pub(super) const MEMBER_WORDS: usize = 16;
/// How many runs find room.
const RUNS: usize = MEMBER_WORDS - 1;
/// The largest rank that can be a member.
pub const MAX_RANK: u32 = (1 << START_BITS) - 1;

// A run: start (24 bits) | distance (20) | count (20), count at least 1.
const START_BITS: u32 = 24;
const FIELD_BITS: u32 = 20;
const FIELD_MASK: u64 = (1 << FIELD_BITS) - 1;
// The first word.
const ALL: u64 = 1 << 62;
const PARTIAL: u64 = 1 << 61;

/// The ranks of a group. What is read from shared memory is a claim: any words are some members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Members {
    words: [u64; MEMBER_WORDS],
}

#[derive(Clone, Copy)]
struct Run {
    start: u32,
    distance: u32,
    count: u32,
}

impl Members {
    /// All ranks of the job.
    pub fn all() -> Members {
        let mut words = [0; MEMBER_WORDS];
        words[0] = ALL;
        Members { words }
    }

    /// These ranks, in any order; none means all of the job.
    ///
    /// Ranks that make more than 15 runs, or are larger than [`MAX_RANK`], are not listed: of them
    /// nobody knows whether they are members until they take part.
    pub fn of(ranks: &[u32]) -> Members {
        if ranks.is_empty() {
            return Members::all();
        }
        let mut sorted = alloc::vec::Vec::from(ranks);
        sorted.sort_unstable();
        sorted.dedup();
        let mut words = [0; MEMBER_WORDS];
        let mut used = 0;
        let known = sorted.partition_point(|rank| *rank <= MAX_RANK);
        let mut left = &sorted[..known];
        while !left.is_empty() && used < RUNS {
            let run = Run::first_of(left);
            left = &left[run.count as usize..];
            used += 1;
            words[used] = run.bits();
        }
        let partial = if left.is_empty() && known == sorted.len() { 0 } else { PARTIAL };
        words[0] = partial | used as u64;
        Members { words }
    }

    /// Whether `rank` is a member; `None` where that is not recorded.
    pub fn contains(&self, rank: u32) -> Option<bool> {
        if self.is_all() || self.runs().any(|run| run.contains(rank)) {
            return Some(true);
        }
        if self.words[0] & PARTIAL == 0 { Some(false) } else { None }
    }

    /// Whether all ranks of the job are members.
    pub fn is_all(&self) -> bool {
        self.words[0] & ALL != 0
    }

    /// The members, each run in order; empty where all ranks of the job are.
    pub fn ranks(&self) -> impl Iterator<Item = u32> + '_ {
        self.runs()
            .flat_map(|run| (0..run.count).map(move |index| run.start + index * run.distance))
    }

    fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let used = (self.words[0] as u32 as usize).min(RUNS);
        let used = if self.is_all() { 0 } else { used };
        self.words[1..=used].iter().filter_map(|bits| Run::from_bits(*bits))
    }

    pub(super) fn words(&self) -> &[u64; MEMBER_WORDS] {
        &self.words
    }

    pub(super) fn from_words(words: [u64; MEMBER_WORDS]) -> Members {
        Members { words }
    }
}

impl Run {
    /// The longest run that begins a sorted list without duplicates.
    fn first_of(ranks: &[u32]) -> Run {
        let start = ranks[0];
        let distance = ranks.get(1).map_or(0, |next| next - start);
        if u64::from(distance) > FIELD_MASK {
            return Run { start, distance: 0, count: 1 };
        }
        let in_step = |(index, rank): (u64, &u32)| {
            u64::from(*rank) == u64::from(start) + index * u64::from(distance)
        };
        let count = (0..FIELD_MASK).zip(ranks).take_while(|pair| in_step(*pair)).count();
        Run { start, distance, count: count as u32 }
    }

    fn contains(self, rank: u32) -> bool {
        let Some(offset) = rank.checked_sub(self.start) else { return false };
        let index = offset.checked_div(self.distance).unwrap_or(offset);
        index < self.count && index * self.distance == offset
    }

    fn bits(self) -> u64 {
        u64::from(self.start)
            | u64::from(self.distance) << START_BITS
            | u64::from(self.count) << (START_BITS + FIELD_BITS)
    }

    /// `None` where it has no ranks, or ranks that no writer of ours lists.
    fn from_bits(bits: u64) -> Option<Run> {
        let run = Run {
            start: (bits & u64::from(MAX_RANK)) as u32,
            distance: (bits >> START_BITS & FIELD_MASK) as u32,
            count: (bits >> (START_BITS + FIELD_BITS)) as u32,
        };
        let last = u64::from(run.start) + u64::from(run.count) * u64::from(run.distance);
        let is_repeated = run.distance == 0 && run.count > 1;
        (run.count > 0 && !is_repeated && u32::try_from(last).is_ok()).then_some(run)
    }
}

/// `all ranks`, or `ranks 0-7, 16, 24-28 by 2`.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all ranks");
        }
        f.write_str("ranks ")?;
        for (index, Run { start, distance, count }) in self.runs().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            let last = start + (count - 1) * distance;
            match (count, distance) {
                (1, _) => write!(f, "{comma}{start}")?,
                (2, _) => write!(f, "{comma}{start}, {last}")?,
                (_, 1) => write!(f, "{comma}{start}-{last}")?,
                _ => write!(f, "{comma}{start}-{last} by {distance}")?,
            }
        }
        if self.words[0] & PARTIAL == 0 { Ok(()) } else { f.write_str(" and others") }
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::format;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_read_as_people_write_them() {
        let check = |ranks: &[u32], text: &str| assert_eq!(format!("{}", Members::of(ranks)), text);
        check(&[], "all ranks");
        check(&[3], "ranks 3");
        check(&[1, 0], "ranks 0, 1");
        check(&[0, 1, 2, 3, 8, 10, 12], "ranks 0-3, 8-12 by 2");
        let scattered: Vec<u32> = (0..40).map(|rank| rank * rank).collect();
        let members = Members::of(&scattered);
        assert!(format!("{members}").ends_with("and others"), "{members}");
        assert_eq!((members.contains(4), members.contains(5)), (Some(true), None));
        assert_eq!(Members::of(&[u32::MAX]).contains(u32::MAX), None, "beyond what is kept");
    }

    #[test]
    fn words_that_nobody_wrote_are_bounded_members() {
        for bits in [u64::MAX, u64::MAX >> 1, 1 << 63 | u64::from(u32::MAX), 0] {
            let members = Members::from_words([bits; MEMBER_WORDS]);
            let _ = (members.contains(7), members.contains(u32::MAX), members.is_all());
            assert!(members.ranks().take(1 << 26).count() < 1 << 25, "{bits:#x}");
            assert!(format!("{members}").len() < 1_000);
        }
    }

    proptest! {
        #[test]
        fn exactly_the_given_ranks_are_members(
            runs in prop::collection::vec((0_u32..5_000, 1_u32..9, 1_u32..40), 1..7),
            other in 0_u32..6_000,
        ) {
            let each = |(start, distance, count)| (0..count).map(move |at| start + at * distance);
            let ranks: Vec<u32> = runs.into_iter().flat_map(each).collect();
            let members = Members::of(&ranks);
            prop_assert!(ranks.iter().all(|rank| members.contains(*rank) != Some(false)));
            if members.contains(u32::MAX - 1) == Some(false) {
                prop_assert_eq!(members.contains(other), Some(ranks.contains(&other)));
                let mut sorted = ranks;
                sorted.sort_unstable();
                sorted.dedup();
                let mut listed: Vec<u32> = members.ranks().collect();
                listed.sort_unstable();
                prop_assert_eq!(listed, sorted);
            }
            prop_assert_eq!(Members::from_words(*members.words()), members);
        }
    }
}
