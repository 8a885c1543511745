//! Bounds the log lines about what cannot be verified: each topic once a minute, and few topics.

use std::collections::HashMap;

use hangwatch_core::wire::time::Nanos;

/// Time until a topic may be logged again, ns.
const WINDOW_NS: u64 = 60_000_000_000;
/// Topics in that time. The limit is needed because workers choose how many topics there are.
const MOST: usize = 16;

#[derive(Debug, Default)]
pub(super) struct LogLimit {
    at: HashMap<String, Nanos>,
}

impl LogLimit {
    /// Whether `what` may be logged now. If so, it counts as logged.
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
    fn each_topic_is_logged_once_a_minute() {
        let mut limit = LogLimit::default();
        assert!(limit.is_due(Nanos(1), "a") && !limit.is_due(Nanos(2), "a"));
        let others = (0..100).filter(|n| limit.is_due(Nanos(3), &n.to_string())).count();
        assert_eq!(others, MOST - 1);
        assert!(limit.is_due(Nanos(WINDOW_NS + 3), "a"));
    }
}
