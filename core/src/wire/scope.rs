//! Scope names: interned once, without a lock, and proof against a death half-way.
//!
//! A name slot is 16 words: the hash of the name (0: free), its length and readiness, then up to 112
//! bytes of UTF-8. A thread takes a free slot by swapping the hash in, then writes the name. If it
//! dies between, the next thread with the same name finds the same hash in an unready slot and writes
//! the very same bytes: no slot is lost and nobody waits.
//!
//! A name that finds the table full is *spilled*: its scope is a number made of its hash, which no table
//! has, and the name itself stands in a slot beside the timer that carries it. So it has no statistics
//! of its own, and is never lost to whoever tells of that timer.

use crate::atomic::{AtomicU64, Ordering};
use crate::wire::hash::fnv1a;
use crate::wire::layout::SCOPE_NAME_WORDS;

/// The scope of names beyond the table: index 0.
pub const OTHER: ScopeId = ScopeId(0);
/// What `OTHER` is called.
pub const OTHER_NAME: &str = "(other)";
/// The longest name, in bytes. A longer one is shortened from the left, where the end tells more.
pub const NAME_BYTES: usize = (SCOPE_NAME_WORDS - 2) * 8;

/// Marks the scope of a spilled name: an index beyond every table.
const SPILLED: u16 = 1 << 15;

const SHORTENED: &str = "\u{2026}";
const READY: u64 = 1 << 32;

/// A scope of one segment: an index into its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeId(pub u16);

impl ScopeId {
    /// The scope of a name for which the table has no room. Two names may share it, so it says nothing
    /// of whether two timers are in one scope.
    pub fn spilled(name: &ScopeName) -> ScopeId {
        // Mixed: the last byte of a name hardly reaches the upper bits of FNV-1a.
        ScopeId(SPILLED | (name.hash().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16)
    }

    /// Whether its name stands beside its timer, and not in the table.
    #[inline]
    pub fn is_spilled(self) -> bool {
        self.0 & SPILLED != 0
    }

    /// Whether it is one name's alone: neither `(other)` nor spilled.
    #[inline]
    pub fn is_own(self) -> bool {
        self != OTHER && !self.is_spilled()
    }
}

/// The slot beside a timer for a name that the table has no room for.
#[derive(Clone, Copy)]
pub struct SpilledName<'a>(pub &'a [AtomicU64; SCOPE_NAME_WORDS]);

impl SpilledName<'_> {
    /// Writes the name. The timer's owner's alone, before it arms the timer.
    pub fn write(self, name: &ScopeName) {
        write(self.0, name);
    }

    /// The name, if it is that of `scope`: not where it was overwritten, or half written, or is made up.
    pub fn read(self, scope: ScopeId) -> Option<ScopeName> {
        read(self.0).filter(|name| ScopeId::spilled(name) == scope)
    }
}

/// The name slots of a segment.
#[derive(Clone, Copy)]
pub struct ScopeNames<'a>(pub &'a [[AtomicU64; SCOPE_NAME_WORDS]]);

/// A name as the table holds it: at most [`NAME_BYTES`] of UTF-8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ScopeName {
    bytes: [u8; NAME_BYTES],
    length: usize,
}

impl ScopeName {
    /// Takes `name`, shortened from the left where it is too long.
    pub fn new(name: &str) -> ScopeName {
        let mut bytes = [0; NAME_BYTES];
        if name.len() <= NAME_BYTES {
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            return ScopeName { bytes, length: name.len() };
        }
        let mut from = name.len() - (NAME_BYTES - SHORTENED.len());
        while !name.is_char_boundary(from) {
            from += 1;
        }
        let tail = &name.as_bytes()[from..];
        bytes[..SHORTENED.len()].copy_from_slice(SHORTENED.as_bytes());
        bytes[SHORTENED.len()..SHORTENED.len() + tail.len()].copy_from_slice(tail);
        ScopeName { bytes, length: SHORTENED.len() + tail.len() }
    }

    /// The name; bytes from an inconsistent segment that are no UTF-8 read as `(unreadable)`.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("(unreadable)")
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.bytes.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk))
    }

    /// FNV-1a, 64 bits, never 0.
    pub(crate) fn hash(&self) -> u64 {
        fnv1a(self.bytes[..self.length].iter().copied()).max(1)
    }
}

impl core::fmt::Debug for ScopeName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an interning went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interned {
    /// The scope; [`OTHER`] where the table is full.
    pub scope: ScopeId,
    /// Whether there was no room for the name.
    pub overflowed: bool,
}

impl ScopeNames<'_> {
    /// Finds `name`, or takes a slot for it.
    pub fn intern(self, name: &str) -> Interned {
        let name = ScopeName::new(name);
        let hash = name.hash();
        for (index, slot) in self.0.iter().enumerate().skip(1) {
            // AcqRel/Acquire: a slot's hash is followed by its name; `ready` below pairs with the
            // Release in `write`.
            let mut held = slot[0].load(Ordering::Acquire);
            if held == 0 {
                let taken = slot[0].compare_exchange(0, hash, Ordering::AcqRel, Ordering::Acquire);
                held = taken.map_or_else(|held| held, |_| hash);
            }
            if held != hash {
                continue;
            }
            match read(slot) {
                Some(found) if found != name => continue, // another name of the same hash
                Some(_) => {}
                None => write(slot, &name),
            }
            return Interned { scope: ScopeId(index as u16), overflowed: false };
        }
        Interned { scope: OTHER, overflowed: name.as_str() != OTHER_NAME }
    }

    /// The name of `scope`; `None` where there is none (yet).
    pub fn name(self, scope: ScopeId) -> Option<ScopeName> {
        if scope == OTHER {
            return Some(ScopeName::new(OTHER_NAME));
        }
        read(self.0.get(usize::from(scope.0))?)
    }

    /// How many names are taken, `(other)` included.
    pub fn taken(self) -> usize {
        1 + self.0.iter().skip(1).take_while(|slot| slot[0].load(Ordering::Relaxed) != 0).count()
    }
}

pub(crate) fn write(slot: &[AtomicU64; SCOPE_NAME_WORDS], name: &ScopeName) {
    // Relaxed: whoever else writes this slot writes the same bytes.
    for (word, bits) in slot[2..].iter().zip(name.words()) {
        word.store(bits, Ordering::Relaxed);
    }
    // Release: pairs with the Acquire in `read`: the name is whole.
    slot[1].store(READY | name.length as u64, Ordering::Release);
}

pub(crate) fn read(slot: &[AtomicU64; SCOPE_NAME_WORDS]) -> Option<ScopeName> {
    let ready = slot[1].load(Ordering::Acquire);
    if ready & READY == 0 {
        return None;
    }
    let mut bytes = [0; NAME_BYTES];
    for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&slot[2..]) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
    Some(ScopeName { bytes, length: ((ready & !READY) as usize).min(NAME_BYTES) })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn slots(count: usize) -> Vec<[AtomicU64; SCOPE_NAME_WORDS]> {
        (0..count).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect()
    }

    fn intern(slots: &[[AtomicU64; SCOPE_NAME_WORDS]], name: &str) -> u16 {
        ScopeNames(slots).intern(name).scope.0
    }

    #[test]
    fn a_name_is_interned_once() {
        let slots = slots(4);
        assert_eq!(intern(&slots, "forward"), 1);
        assert_eq!(intern(&slots, "backward"), 2);
        assert_eq!(intern(&slots, "forward"), 1);
        assert_eq!(ScopeNames(&slots).name(ScopeId(2)).unwrap().as_str(), "backward");
        assert_eq!(ScopeNames(&slots).taken(), 3);
    }

    #[test]
    fn names_beyond_the_table_become_other_and_say_so() {
        let slots = slots(2);
        intern(&slots, "one");
        let interned = ScopeNames(&slots).intern("two");
        assert_eq!(interned, Interned { scope: OTHER, overflowed: true });
        assert_eq!(ScopeNames(&slots).name(OTHER).unwrap().as_str(), OTHER_NAME);
        assert!(!ScopeNames(&slots).intern(OTHER_NAME).overflowed);
    }

    #[test]
    fn a_slot_whose_writer_died_is_completed_by_the_next() {
        let slots = slots(4);
        slots[1][0].store(ScopeName::new("forward").hash(), Ordering::Relaxed);
        assert_eq!(ScopeNames(&slots).name(ScopeId(1)), None);
        assert_eq!(intern(&slots, "forward"), 1);
        assert_eq!(ScopeNames(&slots).name(ScopeId(1)).unwrap().as_str(), "forward");
    }

    #[test]
    fn long_names_are_shortened_from_the_left_on_a_character() {
        let name = "\u{e4}".repeat(100) + "/train.py#41";
        let short = ScopeName::new(&name);
        assert!(short.as_str().len() <= NAME_BYTES);
        assert!(short.as_str().starts_with('\u{2026}') && short.as_str().ends_with("train.py#41"));
    }

    #[test]
    fn a_spilled_name_is_read_by_its_own_scope_alone() {
        let slots = slots(1);
        let slot = SpilledName(&slots[0]);
        let (name, other) = (ScopeName::new("GET /a/b"), ScopeName::new("GET /a/c"));
        let scope = ScopeId::spilled(&name);
        assert!(scope.is_spilled() && !scope.is_own() && ScopeId(1).is_own() && !OTHER.is_own());
        assert_eq!(slot.read(scope), None, "nothing is written");
        slot.write(&name);
        assert_eq!(slot.read(scope).unwrap().as_str(), "GET /a/b");
        slot.0[2].fetch_xor(1, Ordering::Relaxed);
        assert_eq!(slot.read(scope), None, "a torn or made-up name");
        slot.write(&other);
        assert_eq!(slot.read(scope), None, "a later acquire's");
    }

    #[test]
    fn garbage_names_read_as_unreadable() {
        let slots = slots(2);
        slots[1].iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        assert_eq!(ScopeNames(&slots).name(ScopeId(1)).unwrap().as_str(), "(unreadable)");
    }
}
