//! Every worker expires at once, and hangs on: the brake lets so many be reaped and no more, until it
//! is released; then as many again.

use hangwatch_core::atomic::Ordering;
use hangwatch_core::wire::segment::LIMITER_RELEASE_ASKED;

use super::{Part, Run};
use crate::{Actor, Stage, Watchdog, until};

/// See the module.
pub const PART: Part =
    Part { name: "storms", fault: "every worker expires at once", full: 200, inject };

const WORKERS: usize = 8;
const MAX_REAPS: usize = 3;

fn inject(run: &mut Run) {
    let stage = Stage::new(PART.name);
    let mut watchdog = stage.watchdog(&["--max-reaps", &MAX_REAPS.to_string()]);
    let mut fine = stage.actor();
    fine.tell("expires fine 3600000");
    while run.next_batch(1) == 1 {
        release_brake(&stage, &mut watchdog); // the reaps of the storm before this one are forgotten
        let mut hung: Vec<Actor> = (0..WORKERS).map(|_| stage.actor()).collect();
        for worker in &mut hung {
            worker.tell(&format!("expires storm {}", run.random.within(200..220)));
        }
        while !hung.is_empty() {
            let spared = hung.len().saturating_sub(MAX_REAPS);
            until("as many are reaped as may be", || {
                hung.retain_mut(Actor::is_alive);
                let holds = spared == 0 || stage.picture().watchdog.limited;
                (hung.len() <= spared && holds).then_some(())
            });
            if hung.len() < spared {
                run.wrongly_killed("a worker for which the brake was to hold");
            }
            if !hung.is_empty() && run.random.one_in(3) {
                // What was spared stands in the segment.
                watchdog.kill();
                watchdog = stage.watchdog(&["--max-reaps", &MAX_REAPS.to_string()]);
            }
            release_brake(&stage, &mut watchdog);
        }
        if !fine.is_alive() {
            run.wrongly_killed("a worker in time");
        }
        watchdog.take_events();
        run.survived(1);
    }
    if fine.tell("release fine") != "InTime" {
        run.lost("a guard");
    }
    assert!(fine.end().success() && watchdog.end().success(), "they end in order");
    until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
}

/// As `hangwatch release-brake`, but also where the brake does not hold: the reaps are forgotten.
fn release_brake(stage: &Stage, watchdog: &mut Watchdog) {
    let braked = stage.segment.words().watchdog().limited();
    braked.store(LIMITER_RELEASE_ASKED, Ordering::Relaxed);
    stage.segment.ring();
    watchdog.event(|event| event["event"] == "brake_released");
}
