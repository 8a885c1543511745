//! Workers killed anywhere: nothing of theirs stays, nothing of anybody else's changes.

use std::os::unix::process::ExitStatusExt;

use hangwatch_tests::soak::{self, worker_kills};
use hangwatch_tests::{Actor, Stage, until};

#[test]
fn workers_killed_anywhere_leave_nothing_behind() {
    soak::check(&worker_kills::PART, 72);
}

#[test]
fn a_worker_killed_at_any_point_before_any_watchdog_ran_gives_its_lane_back() {
    for point in worker_kills::POINTS {
        let stage = Stage::new("never-admitted");
        let mut victim = Actor::start(stage.name(), &[("HANGWATCH_CRASH_AT", point)]);
        victim.order("attach");
        victim.order("churn 1");
        assert_eq!(victim.wait().signal(), Some(9), "at {point}");
        // A lock is no trace in the segment.
        assert_eq!(stage.lanes_in_use().is_empty(), point == "worker-locked", "at {point}");
        let mut watchdog = stage.watchdog(&[]);
        until(point, || stage.lanes_in_use().is_empty().then_some(()));
        assert!(watchdog.end().success());
    }
}
