//! A helper at work on a case, and how long it may.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hangwatch_core::wire::time::Nanos;

use super::now;
use crate::case::Case;
use crate::turns::turn_ends;
use hangwatch_evidence::capture::Capture;
use hangwatch_evidence::helper::memory;

/// Helpers at work at once at most, whatever the processors: each takes memory.
const HELPERS: usize = 8;
/// How much sooner than the tick the witness calls the budget over, so that the tick has what came.
const MARGIN: Duration = Duration::from_millis(20);

/// A helper at work.
pub(super) struct Helper {
    pub(super) case: Arc<Case>,
    pub(super) capture: Capture,
    pub(super) since: Nanos,
}

impl Helper {
    /// Why it is to be ended, if it is.
    pub(super) fn too_slow(&self, waiting: usize) -> Option<&'static str> {
        if time_left(&self.case).is_zero() {
            Some("too slow: the budget is over")
        } else if self.time_left(waiting).is_zero() {
            Some("too slow: others waited for their stacks")
        } else {
            None
        }
    }

    /// How long it has from now on, while so many cases wait for a helper.
    pub(super) fn time_left(&self, waiting: usize) -> Duration {
        let left = time_left(&self.case);
        if waiting == 0 || !self.capture.has_stacks() {
            return left;
        }
        let turn_ends = turn_ends(self.since, self.case.until, waiting, places());
        left.min(Duration::from_nanos(turn_ends.since(now())))
    }
}

/// How many helpers may be at work at once: as many as the processors and the memory serve, as they were
/// when this was first asked.
pub(super) fn places() -> usize {
    static PLACES: OnceLock<usize> = OnceLock::new();
    *PLACES.get_or_init(|| {
        let most = std::thread::available_parallelism().map_or(2, |count| count.get() * 2);
        memory::at_once(most.clamp(2, HELPERS))
    })
}

/// How long the helper of a case has from now on.
pub(super) fn time_left(case: &Case) -> Duration {
    let budget_ns = case.until.since(case.at);
    let margin_ns = (MARGIN.as_nanos() as u64).min(budget_ns / 10);
    let left_ns = case.until.since(now());
    Duration::from_nanos(left_ns.saturating_sub(margin_ns))
}
