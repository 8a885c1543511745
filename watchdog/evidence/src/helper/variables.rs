//! Variables: the names of the locks that threads wait for, from the symbols of the files they lie in.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hangwatch_incident::schema::Variable;
use hangwatch_wait_graph::{Resource, WaitGraph};
use object::read::elf::ElfFile64;
use object::{Endianness, Object, ObjectSymbol, ReadCache, SymbolKind};

use super::modules::Modules;

/// Symbols of a file that are looked through, at most.
const SYMBOLS: usize = 2_000_000;
/// Locks that are named, at most.
const LOCKS: usize = 64;

/// A lock that a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    address: u64,
    /// What one takes in an array of them, bytes.
    size: u64,
}

/// The locks that threads of a process wait for.
pub(super) fn locks(graph: &WaitGraph, pid: u32) -> Vec<Lock> {
    const MUTEX: u64 = if cfg!(target_arch = "x86_64") { 40 } else { 48 };
    const READ_WRITE_LOCK: u64 = 56;
    let mut locks = Vec::new();
    for edge in &graph.edges {
        let is_its = graph.thread(edge.from).is_some_and(|thread| thread.pid == pid);
        let lock = match edge.resource {
            Resource::Mutex { address, .. } => Lock { address, size: MUTEX },
            Resource::RwLock { address, .. } => Lock { address, size: READ_WRITE_LOCK },
            _ => continue,
        };
        if is_its && !locks.contains(&lock) && locks.len() < LOCKS {
            locks.push(lock);
        }
    }
    locks
}

/// The names of those that are variables of a file.
pub(super) fn named(modules: &Modules, locks: &[Lock]) -> Vec<Variable> {
    let name = |lock: &Lock| {
        let name = catch_unwind(AssertUnwindSafe(|| name(modules, *lock))).ok()??;
        Some(Variable { address: lock.address, name })
    };
    locks.iter().filter_map(name).collect()
}

fn name(modules: &Modules, lock: Lock) -> Option<String> {
    let mapping = modules.of_data(lock.address)?;
    let cache = ReadCache::new(mapping.open()?);
    let elf = ElfFile64::<Endianness, _>::parse(&cache).ok()?;
    let at = lock.address.checked_sub(mapping.base(&elf)?)?;
    let holds = |symbol: &object::read::elf::ElfSymbol64<'_, '_, Endianness, _>| {
        let offset = at.checked_sub(symbol.address());
        symbol.kind() == SymbolKind::Data && offset.is_some_and(|offset| offset < symbol.size())
    };
    let found = elf.symbols().take(SYMBOLS).find(|symbol| holds(symbol));
    let found =
        found.or_else(|| elf.dynamic_symbols().take(SYMBOLS).find(|symbol| holds(symbol)))?;
    Some(spelt(found.name().ok()?, at - found.address(), found.size(), lock.size))
}

/// `accounts[1]` of an array of locks, `server+0x40` of one within something else.
fn spelt(name: &str, offset: u64, size: u64, one: u64) -> String {
    if size == one {
        return name.to_owned();
    }
    if size.is_multiple_of(one) && offset.is_multiple_of(one) {
        return format!("{name}[{}]", offset / one);
    }
    if offset == 0 { name.to_owned() } else { format!("{name}+{offset:#x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_named_by_its_variable_and_its_place_in_it() {
        assert_eq!(spelt("table", 0, 40, 40), "table");
        assert_eq!(spelt("accounts", 40, 80, 40), "accounts[1]");
        assert_eq!(spelt("server", 64, 200, 40), "server+0x40");
        assert_eq!(spelt("server", 0, 100, 40), "server");
    }
}
