//! The scope of a name: interned in the segment's table, remembered by each thread.

use hangwatch_core::atomic::Ordering;
use hangwatch_core::wire::scope::{OTHER, OTHER_NAME, ScopeId, ScopeName};

use crate::error::AcquireError;
use crate::lane::LanePool;
use crate::mapped::lock;
use crate::thread;

/// The scope of `name`, for a handle on it: where the table has no room, one that this process keeps.
pub(crate) fn scope(pool: &'static LanePool, name: &str) -> Result<ScopeId, AcquireError> {
    let id = intern(pool, name)?;
    if !is_without_room(id, name) {
        return Ok(id);
    }
    let here = pool.here().map_err(|error| Box::new(error.into()))?;
    Ok(lock(&here.spilled).keep(&ScopeName::new(name)))
}

/// The scope of `name`; `(other)` where the table has no room for it.
pub(crate) fn intern(pool: &'static LanePool, name: &str) -> Result<ScopeId, AcquireError> {
    if name.is_empty() {
        return Err(AcquireError::EmptyScope);
    }
    let here = &pool.here().map_err(|error| Box::new(error.into()))?.mapped;
    let id = thread::known_scope(here.key(), name).unwrap_or_else(|| {
        let interned = here.words.names().intern(name);
        if interned.overflowed {
            here.words.scopes_overflowed().fetch_add(1, Ordering::Relaxed);
        }
        thread::know_scope(here.key(), name, interned.scope);
        interned.scope
    });
    Ok(id)
}

/// Whether the table has no room for the name whose scope is `id`.
pub(crate) fn is_without_room(id: ScopeId, name: &str) -> bool {
    id == OTHER && name != OTHER_NAME
}
