//! Names of scopes for which the segment's table has no room.
//!
//! An acquire by name writes the name beside its timer itself. A [`Scope`](crate::Scope) is a handle
//! without the name, so the process keeps the names of those that spilled, a bounded number: handles are
//! made for names that a program has, not for those that it makes up.

use std::collections::HashMap;

use hangwatch_core::wire::scope::{OTHER, ScopeId, ScopeName};

/// Names of handles that one process keeps at most, 1 MiB; those of more are lost to `(other)`.
const HANDLES: usize = 8_192;

/// The names of a process's spilled handles, by their scopes: one name each.
#[derive(Default)]
pub(crate) struct Spilled(HashMap<ScopeId, ScopeName>);

impl Spilled {
    /// The scope for a handle on `name`: where another handle has the name's own, `(other)`.
    pub(crate) fn keep(&mut self, name: &ScopeName) -> ScopeId {
        let scope = ScopeId::spilled(name);
        let has_room = self.0.len() < HANDLES;
        match self.0.get(&scope) {
            Some(kept) if kept == name => scope,
            None if has_room => {
                self.0.insert(scope, *name);
                scope
            }
            _ => OTHER,
        }
    }

    /// The name of a handle's scope.
    pub(crate) fn name(&self, scope: ScopeId) -> Option<ScopeName> {
        self.0.get(&scope).copied()
    }
}
