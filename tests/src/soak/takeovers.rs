//! A watchdog killed at a random moment while a standby waits and a worker hangs: the standby takes
//! over, and reaps.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::{Part, Run};
use crate::{Actor, Stage, until};

/// See the module.
pub const PART: Part =
    Part { name: "takeovers", fault: "a standby takes over", full: 1_000, inject };

fn inject(run: &mut Run) {
    let stage = Stage::new(PART.name);
    let mut fine = stage.actor();
    fine.tell("expires fine 3600000");
    let mut first = stage.watchdog(&[]);
    let mut took = Vec::new();
    while run.next_batch(1) == 1 {
        let mut standby = stage.watchdog(&["--standby"]);
        let mut hung: Actor = stage.actor();
        hung.tell(&format!("expires hung {}", run.random.within(1..60)));
        // No synchronisation: a random moment is what is wanted.
        std::thread::sleep(Duration::from_micros(run.random.within(0..60_000)));
        let from = Instant::now();
        first.kill();
        standby.event(|event| event["event"] == "serving");
        took.push(from.elapsed());
        let ended = until("the hung worker ends", || hung.has_ended());
        if ended.signal() != Some(9) {
            run.lost(format!("a hung worker ended with {ended}"));
        }
        if !fine.is_alive() {
            run.wrongly_killed("a worker in time");
        }
        standby.take_events();
        first = standby;
        run.survived(1);
    }
    took.sort_unstable();
    if let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) {
        println!("takeovers: from kill to \"serving\": median {median:.1?}, longest {longest:.1?}");
    }
    if fine.tell("release fine") != "InTime" {
        run.lost("a guard");
    }
    assert!(fine.end().success() && first.end().success(), "they end in order");
    until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
    let counts = stage.counts();
    let hangs = took.len() as u64;
    if (counts.acquired, counts.condemned, counts.abandoned) != (hangs + 1, hangs, 0) {
        run.lost(format!("{hangs} hung, but: {counts:?}"));
    }
}
