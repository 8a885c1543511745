//! What a futex is part of, by the words around it: whose lock, which thread's end.
//!
//! glibc's structures keep their layout for binary compatibility; everything read is checked all the same,
//! for a word may be overwritten, and other languages wait on words of their own. What does not fit is
//! said to have no owner.

use hangwatch_wait_graph::{End, Resource};

use super::task::Process;

const FUTEX_WAIT: u64 = 0;
const FUTEX_LOCK_PI: u64 = 6;
const FUTEX_WAIT_BITSET: u64 = 9;
const FUTEX_LOCK_PI2: u64 = 13;
const FUTEX_PRIVATE_FLAG: u64 = 128;
const FUTEX_COMMAND_MASK: u64 = 127;
/// Of a word that holds its owner: the bits of the thread's id.
const TID_MASK: u32 = 0x3fff_ffff;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
/// The most that a thread's id can be.
const MOST_TID: u32 = 1 << 22;

/// What a thread waits on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// A thread of its process, by its id there.
    Owner(u32, Resource),
    /// A thread of another process, by its id there, of a lock that both share.
    Foreign(u32, Resource),
    /// A lock of an owner that is no thread of the process.
    Gone(End),
    /// Some thread of its process, nobody knows which.
    AnyThread(u64),
    /// Something that other processes may wake, too.
    Shared(u64),
}

/// A wait on a futex.
#[derive(Clone, Copy, Debug)]
pub(super) struct Futex {
    address: u64,
    command: u64,
    is_private: bool,
    expected: u32,
    /// Whether the wait ends by itself after a time.
    pub(super) is_timed: bool,
}

impl Futex {
    /// The wait that these arguments of `futex` ask for; `None` of a call that does not wait.
    pub(super) fn of(arguments: [u64; 6]) -> Option<Futex> {
        let [address, operation, expected, timeout, ..] = arguments;
        let command = operation & FUTEX_COMMAND_MASK;
        let waits = [FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_LOCK_PI, FUTEX_LOCK_PI2];
        waits.contains(&command).then_some(Futex {
            address,
            command,
            is_private: operation & FUTEX_PRIVATE_FLAG != 0,
            expected: expected as u32,
            is_timed: timeout != 0,
        })
    }

    /// What is waited on.
    pub(super) fn wait(self, process: &Process) -> Wait {
        let found = match self.command {
            FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => self.owner_in_word(process),
            FUTEX_WAIT | FUTEX_WAIT_BITSET => self
                .joined(process)
                .or_else(|| self.owner_in_word(process))
                .or_else(|| self.mutex(process))
                .or_else(|| self.read_write_lock(process)),
            _ => None,
        };
        // A word of private memory is the process's own, whatever the call says.
        found.unwrap_or_else(|| {
            if self.is_private || process.is_private(self.address) {
                Wait::AnyThread(self.address)
            } else {
                Wait::Shared(self.address)
            }
        })
    }

    /// `pthread_join`: the word is the id of the thread, which the kernel clears at its end.
    fn joined(self, process: &Process) -> Option<Wait> {
        let word = process.word(self.address)?;
        let is_join =
            !self.is_private && word == self.expected && word != 0 && word & !TID_MASK == 0;
        process.by_inner_id(word).filter(|_| is_join)?;
        Some(Wait::Owner(word, Resource::Join))
    }

    /// A priority-inheriting or robust mutex, and those of musl: the word is the owner's id and flags.
    fn owner_in_word(self, process: &Process) -> Option<Wait> {
        let word = process.word(self.address)?;
        let owner = word & TID_MASK;
        let is_pi = matches!(self.command, FUTEX_LOCK_PI | FUTEX_LOCK_PI2);
        if owner == 0 || word & OWNER_DIED != 0 || !(is_pi || word & WAITERS != 0) {
            return None;
        }
        match process.by_inner_id(owner) {
            Some(_) => Some(Wait::Owner(owner, self.mutex_here())),
            None if is_pi && self.is_private && process.is_whole() => {
                Some(Wait::Gone(End::OwnerGone { owner }))
            }
            None => None,
        }
    }

    /// glibc's `pthread_mutex_t`: lock, count, owner, users, kind. Its `_IO_lock_t`: lock, count, and the
    /// owner by the address of its `struct pthread`.
    fn mutex(self, process: &Process) -> Option<Wait> {
        // Others that wait for a 2 ask for it in another way.
        let is_asked = self.command == FUTEX_WAIT && self.expected == 2;
        if !is_asked || process.word(self.address)? != 2 {
            return None;
        }
        let [_, _, owner, users, kind, spins] = words(process, self.address)?;
        // A lock that is held has users, and a kind of few bits.
        let is_held = (1..=USERS).contains(&users) && kind <= KINDS;
        if is_held && process.by_inner_id(owner).is_some() {
            return Some(Wait::Owner(owner, self.mutex_here()));
        }
        if let Some(owner) = process.long(self.address + 8).and_then(|it| thread_at(process, it)) {
            return Some(Wait::Owner(owner, self.mutex_here()));
        }
        // A whole mutex that is certainly one: kinds 0 to 3, no list, no spins, and users.
        let list: [u64; 2] = longs(process, self.address + 24)?;
        let is_mutex = kind <= 3 && spins == 0 && list == [0, 0] && (1..=1024).contains(&users);
        let is_tid = (1..MOST_TID).contains(&owner);
        if !self.is_private && is_held && is_tid && !process.is_private(self.address) {
            return Some(Wait::Foreign(owner, self.mutex_here()));
        }
        let is_gone = is_tid && self.is_private && process.is_whole();
        (is_mutex && is_gone).then_some(Wait::Gone(End::OwnerGone { owner }))
    }

    /// glibc's `pthread_rwlock_t` that a writer holds: readers wait on its third word, writers on its fourth.
    fn read_write_lock(self, process: &Process) -> Option<Wait> {
        const WRITE_LOCKED: u32 = 2;
        [8, 12].into_iter().find_map(|offset| {
            let base = self.address.checked_sub(offset)?;
            let [readers, _, _, _, _, _, writer, shared] = words(process, base)?;
            let rest: [u64; 2] = longs(process, base + 32)?;
            let is_one = readers & WRITE_LOCKED != 0 && shared <= 1 && rest == [0, 0];
            process.by_inner_id(writer).filter(|_| is_one)?;
            Some(Wait::Owner(writer, Resource::RwLock { address: base, name: None }))
        })
    }

    fn mutex_here(self) -> Resource {
        Resource::Mutex { address: self.address, name: None }
    }
}

/// Users of a mutex at most, as its word says.
const USERS: u32 = 1 << 20;
/// All bits that glibc's kinds of mutexes have.
const KINDS: u32 = 0x1ff;

/// The id of the thread whose `struct pthread` is at an address, where that is one of the process's.
pub(super) fn thread_at(process: &Process, pthread: u64) -> Option<u32> {
    /// Where glibc keeps the id in `struct pthread`.
    const TID: u64 = if cfg!(target_arch = "x86_64") { 0x2d0 } else { 0xd0 };
    if pthread == 0 || !pthread.is_multiple_of(16) {
        return None;
    }
    // On x86-64 the structure begins with its own address.
    if cfg!(target_arch = "x86_64") && process.long(pthread + 16)? != pthread {
        return None;
    }
    process.word(pthread.checked_add(TID)?).filter(|&tid| process.by_inner_id(tid).is_some())
}

fn words<const N: usize>(process: &Process, address: u64) -> Option<[u32; N]> {
    let mut words = [0; N];
    for (at, word) in words.iter_mut().enumerate() {
        *word = process.word(address.checked_add(4 * at as u64)?)?;
    }
    Some(words)
}

fn longs<const N: usize>(process: &Process, address: u64) -> Option<[u64; N]> {
    let mut longs = [0; N];
    for (at, long) in longs.iter_mut().enumerate() {
        *long = process.long(address.checked_add(8 * at as u64)?)?;
    }
    Some(longs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(words: &[u32], at: usize, operation: u64, expected: u64) -> Wait {
        let process = Process::look(std::process::id()).unwrap();
        let address = &raw const words[at] as u64;
        Futex::of([address, operation, expected, 0, 0, 0]).unwrap().wait(&process)
    }

    #[test]
    fn the_owner_of_a_mutex_is_found_and_a_changed_word_is_not_believed() {
        let own = std::process::id();
        let owner = |wait| matches!(wait, Wait::Owner(tid, Resource::Mutex { .. }) if tid == own);
        let mutex = |owner, users, kind| [2, 0, owner, users, kind, 0, 0, 0, 0, 0];
        assert!(owner(waits(&mutex(own, 1, 0), 0, 0x80, 2)));
        assert!(owner(waits(&[own | WAITERS, 0, 0, 0], 0, 0x86, 0)), "priority inheriting");
        assert!(owner(waits(&[own | WAITERS, 0, 0, 0], 0, 0x80, 0)), "robust");
        let unknown = |wait| matches!(wait, Wait::AnyThread(_));
        assert!(unknown(waits(&mutex(u32::MAX, 1, 0), 0, 0x80, 2)));
        assert!(unknown(waits(&mutex(0, 1, 0), 0, 0x80, 2)));
        assert!(unknown(waits(&mutex(1, 1, 0xdead), 0, 0x80, 2)));
        assert!(
            unknown(waits(&[0, 0, 0, 0], 0, 0, 0)),
            "shared by its flag, private by its memory"
        );
    }

    #[test]
    fn the_writer_of_a_read_write_lock_and_a_thread_that_is_joined_are_found() {
        let own = std::process::id();
        let lock = [2, 0, 3, 0, 0, 0, own, 0, 0, 0, 0, 0, 0, 0];
        for at in [2, 3] {
            let wait = waits(&lock, at, 0x189, 3);
            assert!(matches!(wait, Wait::Owner(tid, Resource::RwLock { .. }) if tid == own));
        }
        assert_eq!(waits(&[own], 0, 0x109, own.into()), Wait::Owner(own, Resource::Join));
        assert!(matches!(waits(&[own + 1], 0, 0x109, own.into()), Wait::AnyThread(_)));
    }
}
