//! What was said of what cannot be verified: each thing once a while, and not too many things.

use std::collections::HashMap;

use hangwatch_core::wire::time::Nanos;

/// How long the same thing is not said again, and how long things are counted together, ns.
const WINDOW_NS: u64 = 60_000_000_000;
/// Things said in that time at most: workers choose how many there are.
const MOST: usize = 16;

#[derive(Debug, Default)]
pub(super) struct LogLimit {
    at: HashMap<String, Nanos>,
}

impl LogLimit {
    /// Whether to say it now; if so, it counts as said.
    pub(super) fn is_due(&mut self, now: Nanos, what: &str) -> bool {
        self.at.retain(|_, at| now.since(*at) < WINDOW_NS);
        let is_due = self.at.len() < MOST && !self.at.contains_key(what);
        if is_due {
            self.at.insert(what.to_owned(), now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_not_too_much_of_anything() {
        let mut limit = LogLimit::default();
        assert!(limit.is_due(Nanos(1), "a") && !limit.is_due(Nanos(2), "a"));
        let others = (0..100).filter(|n| limit.is_due(Nanos(3), &n.to_string())).count();
        assert_eq!(others, MOST - 1);
        assert!(limit.is_due(Nanos(WINDOW_NS + 3), "a"));
    }
}
