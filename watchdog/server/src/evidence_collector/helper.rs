//! A helper that captures the evidence of a case, and its time limits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hangwatch_core::wire::time::Nanos;

use super::now;
use crate::case::Case;
use crate::turns::turn_ends;
use hangwatch_evidence::capture::Capture;
use hangwatch_evidence::helper::memory;

/// Maximum number of helpers at once, whatever the number of processors: each needs memory.
const HELPERS: usize = 8;
/// How much sooner than the tick the collector ends a budget, so that the evidence arrives in time.
const MARGIN: Duration = Duration::from_millis(20);

/// A running helper.
pub(super) struct Helper {
    pub(super) case: Arc<Case>,
    pub(super) capture: Capture,
    pub(super) since: Nanos,
}

impl Helper {
    /// Returns why the helper must be ended, if it must.
    pub(super) fn too_slow(&self, waiting: usize) -> Option<&'static str> {
        if time_left(&self.case).is_zero() {
            Some("too slow: the budget is over")
        } else if self.time_left(waiting).is_zero() {
            Some("too slow: others waited for their stacks")
        } else {
            None
        }
    }

    /// Returns the time the helper has left while `waiting` cases wait for one.
    pub(super) fn time_left(&self, waiting: usize) -> Duration {
        let left = time_left(&self.case);
        if waiting == 0 || !self.capture.has_stacks() {
            return left;
        }
        let turn_ends = turn_ends(self.since, self.case.until, waiting, places());
        left.min(Duration::from_nanos(turn_ends.since(now())))
    }
}

/// Returns how many helpers may run at once. It depends on the processors and the free memory at the first
/// call.
pub(super) fn places() -> usize {
    static PLACES: OnceLock<usize> = OnceLock::new();
    *PLACES.get_or_init(|| {
        let most = std::thread::available_parallelism().map_or(2, |count| count.get() * 2);
        memory::at_once(most.clamp(2, HELPERS))
    })
}

/// Returns the time that the helper of a case has left.
pub(super) fn time_left(case: &Case) -> Duration {
    let budget_ns = case.until.since(case.at);
    let margin_ns = (MARGIN.as_nanos() as u64).min(budget_ns / 10);
    let left_ns = case.until.since(now());
    Duration::from_nanos(left_ns.saturating_sub(margin_ns))
}
