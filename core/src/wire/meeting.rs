//! Meetings: scopes in which the ranks of a group wait for each other, such as a collective or a barrier.
//!
//! A meeting is a group and a sequence number. Who is behind in a group follows from these counts alone:
//! no clock is involved. Three places in the segment hold them:
//!
//! * the table of groups ([`Groups`]): the name of each group and the ranks of its members, interned once
//!   as scope names are ([`scope`](crate::wire::scope));
//! * one word beside each timer: the meeting it was armed in
//!   ([`TimerDetail::meeting`](crate::wire::lane::TimerDetail));
//! * a few words in each lane, one for each group: the last meeting its thread has entered
//!   ([`Lane::attended`](crate::wire::lane::Lane::attended)).

mod group;
mod members;

use crate::wire::scope::ScopeName;

pub use group::Groups;
pub use members::{MAX_RANK, Members};

/// The largest sequence number; a larger one counts as this one.
pub const MAX_SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;

const SEQUENCE_BITS: u32 = 48;

/// A group of one segment: an index into its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u16);

/// A group's name and its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name, as long as a scope's at most.
    pub name: ScopeName,
    /// The ranks that take part.
    pub members: Members,
}

/// One meeting of a group.
///
/// ```text
/// group + 1 (16 bits) | sequence (48)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meeting {
    /// The group; a claim, the index may lie beyond the groups.
    pub group: GroupId,
    /// Its number in the group, the same at all members; at most [`MAX_SEQUENCE`].
    pub sequence: u64,
}

impl Meeting {
    /// The 64 bits for shared memory, never 0.
    #[inline]
    pub fn bits(self) -> u64 {
        (u64::from(self.group.0) + 1) << SEQUENCE_BITS | self.sequence.min(MAX_SEQUENCE)
    }

    /// Takes 64 bits as they come from shared memory; `None` where they name no group.
    #[inline]
    pub fn from_bits(bits: u64) -> Option<Meeting> {
        let group = (bits >> SEQUENCE_BITS).checked_sub(1)? as u16;
        Some(Meeting { group: GroupId(group), sequence: bits & MAX_SEQUENCE })
    }
}

/// The last meeting of a group that somebody has entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Last {
    /// None yet.
    Never,
    /// This one.
    Entered(u64),
    /// There is no record of it.
    Unknown,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_meeting_survives_its_word() {
        for (group, sequence) in [(0, 0), (255, 7), (32_767, MAX_SEQUENCE)] {
            let meeting = Meeting { group: GroupId(group), sequence };
            assert_eq!(Meeting::from_bits(meeting.bits()), Some(meeting));
        }
        assert_eq!(Meeting::from_bits(0), None);
        assert_eq!(Meeting::from_bits(MAX_SEQUENCE), None, "no group");
        let beyond = Meeting { group: GroupId(1), sequence: u64::MAX };
        assert_eq!(Meeting::from_bits(beyond.bits()).unwrap().sequence, MAX_SEQUENCE);
    }
}
