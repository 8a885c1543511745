//! The table of groups: interned once, without a lock, and proof against a death half-way.
//!
//! It works as the table of scope names does: a thread takes a free slot by swapping the hash in, and
//! whoever finds the same hash in a slot that is not ready writes the very same words.

use super::members::MEMBER_WORDS;
use super::{Group, GroupId, Members};
use crate::atomic::{AtomicU64, Ordering};
use crate::wire::layout::{GROUP_WORDS, SCOPE_NAME_WORDS};
use crate::wire::scope::ScopeName;

const _: () = assert!(GROUP_WORDS == SCOPE_NAME_WORDS + MEMBER_WORDS);

type Slot = [AtomicU64; GROUP_WORDS];

/// The groups of a segment.
#[derive(Clone, Copy)]
pub struct Groups<'a>(pub &'a [Slot]);

impl Groups<'_> {
    /// Finds a group of this name and these members, or takes a slot for it. `None` where the table is
    /// full.
    pub fn intern(self, name: &str, members: Members) -> Option<GroupId> {
        let group = Group { name: ScopeName::new(name), members };
        let hash = hash(&group);
        for (index, slot) in self.0.iter().enumerate() {
            // AcqRel/Acquire: as in the table of scope names.
            let mut held = slot[0].load(Ordering::Acquire);
            if held == 0 {
                let taken = slot[0].compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire);
                held = taken.map_or_else(|held| held, |_| hash);
            }
            if held != hash {
                continue;
            }
            match read(slot) {
                Some(found) if found != group => continue, // another group of the same hash
                Some(_) => {}
                None => write(slot, &group),
            }
            return Some(GroupId(index as u16));
        }
        None
    }

    /// The group; `None` where there is none (yet). A claim of the workers.
    pub fn get(self, group: GroupId) -> Option<Group> {
        read(self.0.get(usize::from(group.0))?)
    }
}

fn hash(group: &Group) -> u64 {
    let hash = group.members.words().iter().fold(group.name.hash(), |hash: u64, word| {
        (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    });
    hash.max(1)
}

fn name_words(slot: &Slot) -> &[AtomicU64; SCOPE_NAME_WORDS] {
    slot.first_chunk().expect("a slot begins with a name")
}

fn write(slot: &Slot, group: &Group) {
    // Relaxed: whoever else writes this slot writes the same words. The name's Release comes after them.
    for (word, bits) in slot[SCOPE_NAME_WORDS..].iter().zip(group.members.words()) {
        word.store(*bits, Ordering::Relaxed);
    }
    crate::wire::scope::write(name_words(slot), &group.name);
}

fn read(slot: &Slot) -> Option<Group> {
    // Acquire, in there: the members are whole.
    let name = crate::wire::scope::read(name_words(slot))?;
    let word = |index: usize| slot[SCOPE_NAME_WORDS + index].load(Ordering::Relaxed);
    let members = Members::from_words(core::array::from_fn(word));
    Some(Group { name, members })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn slots(count: usize) -> Vec<Slot> {
        (0..count).map(|_| core::array::from_fn(|_| AtomicU64::new(0))).collect()
    }

    #[test]
    fn a_group_is_interned_once_by_name_and_members() {
        let slots = slots(3);
        let groups = Groups(&slots);
        let (even, odd) = (Members::of(&[0, 2]), Members::of(&[1, 3]));
        assert_eq!(groups.intern("dp", even), Some(GroupId(0)));
        assert_eq!(groups.intern("dp", odd), Some(GroupId(1)));
        assert_eq!(groups.intern("dp", Members::of(&[2, 0])), Some(GroupId(0)));
        assert_eq!(groups.intern("tp", even), Some(GroupId(2)));
        assert_eq!(groups.intern("pp", even), None, "the table is full");
        let group = groups.get(GroupId(1)).unwrap();
        assert_eq!((group.name.as_str(), group.members), ("dp", odd));
        assert_eq!(groups.get(GroupId(3)), None);
    }

    #[test]
    fn a_slot_whose_writer_died_is_completed_by_the_next() {
        let slots = slots(2);
        let group = Group { name: ScopeName::new("dp"), members: Members::of(&[0, 1]) };
        slots[0][0].store(hash(&group), Ordering::Relaxed);
        assert_eq!(Groups(&slots).get(GroupId(0)), None);
        assert_eq!(Groups(&slots).intern("dp", group.members), Some(GroupId(0)));
        assert_eq!(Groups(&slots).get(GroupId(0)), Some(group));
    }
}
