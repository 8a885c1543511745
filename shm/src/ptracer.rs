//! Who may look at a worker's stacks beside those who may by the kernel's rule.
//!
//! Where `kernel.yama.ptrace_scope` is 1, as on Ubuntu, a process may be traced by its ancestors only,
//! and the helper of a watchdog is none. A worker may allow one process more, with all below it.

use std::env;

use rustix::process::{PTracer, set_ptracer};

use crate::mapped::Mapped;
use crate::sys::lock::Holder;

/// The environment variable that says whom a worker allows to trace it, unless its program does:
/// `watchdog` or `any`.
pub const PTRACER_VARIABLE: &str = "HANGWATCH_PTRACER";

/// Whom a worker allows to trace it, where Yama (`kernel.yama.ptrace_scope=1`) forbids it to all but
/// ancestors. Each thread that takes a lane says so again: a watchdog that came later is allowed then.
/// What the process said before, to a debugger of its own for instance, it takes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ptracer {
    /// Nobody more.
    #[default]
    Nobody,
    /// The process that is the segment's watchdog at the attach, by the kernel's word, and its
    /// helpers. Not a watchdog that takes its place later.
    Watchdog,
    /// Every process of the same user: as without Yama, for this process.
    Any,
}

impl Ptracer {
    /// What [`PTRACER_VARIABLE`] says; nobody where it says nothing that is known.
    pub fn from_environment() -> Ptracer {
        let said = env::var(PTRACER_VARIABLE);
        said.ok().and_then(|said| Ptracer::named(&said)).unwrap_or_default()
    }

    /// Whom a word means: `watchdog`, `any` or `nobody`.
    pub fn named(word: &str) -> Option<Ptracer> {
        match word {
            "nobody" => Some(Ptracer::Nobody),
            "watchdog" => Some(Ptracer::Watchdog),
            "any" => Some(Ptracer::Any),
            _ => None,
        }
    }

    /// Tells the kernel.
    pub(crate) fn allow(self, segment: &Mapped) {
        let tracer = match self {
            Ptracer::Nobody => return,
            Ptracer::Any => PTracer::Any,
            Ptracer::Watchdog => match segment.watchdog() {
                Ok(Holder::Process(pid)) => PTracer::ProcessID(pid),
                // None, this process itself, or one that is out of sight.
                _ => return,
            },
        };
        // Without Yama the kernel knows no such call, and asks for none.
        let _ = set_ptracer(tracer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_who() {
        let words = ["nobody", "watchdog", "any", "Any", ""];
        let meant =
            [Some(Ptracer::Nobody), Some(Ptracer::Watchdog), Some(Ptracer::Any), None, None];
        assert_eq!(words.map(Ptracer::named), meant);
    }
}
