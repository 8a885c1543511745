//! The fixed part of a header: written once, guarded by a checksum, checked by every opener.

use crate::wire::hash::fnv1a_turned;
use crate::wire::layout::{Geometry, GeometryError, LAYOUT_VERSION, MAGIC, limit};
use crate::wire::time::Nanos;

/// The words of the fixed part.
pub const FIXED_WORDS: usize = 16;
pub(super) const CHECKSUM: usize = 15;

/// A compatible feature: the segment is its maker's alone, and may be removed when that is dead and
/// nobody uses it.
pub const DIES_WITH_MAKER: u64 = 1;

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
    /// The max interval: every tick comes no later than this, ns.
    pub max_interval_ns: u64,
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
    /// The longest time between two ticks is out of bounds.
    #[error("its header is damaged: {ns} ns between two ticks, but 1 ms to 1 minute are possible")]
    MaxInterval {
        /// What it says, ns.
        ns: u64,
    },
    /// It says that it was made at a time that is yet to come.
    #[error("its header is damaged: it says that it was made in the future")]
    Future,
    /// Words that no version of this layout writes are not zero.
    #[error("its header is damaged: word {word} is not zero")]
    Reserved {
        /// The first of them.
        word: usize,
    },
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
    pub(super) fn words(&self) -> [u64; FIXED_WORDS] {
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
            self.max_interval_ns,
            self.created_at.0,
            0,
            0,
            0,
        ];
        words[CHECKSUM] = checksum(&words[..CHECKSUM]);
        words
    }

    /// The fixed part in these words, the first of a segment.
    ///
    /// # Errors
    /// [`FormatError`] says what is wrong with them.
    pub fn from_words(words: [u64; FIXED_WORDS]) -> Result<Fixed, FormatError> {
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
        // Whoever may write the segment can make a checksum hold: every value is a claim.
        if !limit::MAX_INTERVAL_NS.contains(&words[11]) {
            return Err(FormatError::MaxInterval { ns: words[11] });
        }
        let reserved = [(6, words[6] >> 32), (13, words[13]), (14, words[14])];
        if let Some((word, _)) = reserved.into_iter().find(|(_, bits)| *bits != 0) {
            return Err(FormatError::Reserved { word });
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
            max_interval_ns: words[11],
            created_at: Nanos(words[12]),
        })
    }
}

/// Over whole words: it guards against accidents, not against malice.
pub(super) fn checksum(words: &[u64]) -> u64 {
    fnv1a_turned(words)
}
