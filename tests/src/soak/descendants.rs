//! Workers that hang with many children at once, beside busy loops: `--reap tree` leaves none of them.

use super::{Part, Run};
use crate::{Actor, Busy, Stage, living_of, until};
use hangwatch::CreateOptions;

/// See the module.
pub const PART: Part =
    Part { name: "descendants", fault: "workers hang with many children", full: 30, inject };

/// Workers, and the children of each.
const SHAPES: [(usize, usize); 3] = [(1, 1000), (32, 40), (256, 8)];
/// What the children do.
const LIVES: [&str; 3] = ["idle", "busy", "idle"];
const BUSY_LOOPS: usize = 4;

fn inject(run: &mut Run) {
    let _busy = Busy::start(BUSY_LOOPS);
    let mut round = 0;
    while run.next_batch(1) == 1 {
        // Each shape with each life, in turn.
        let (shape, life) = (SHAPES[round % 3], LIVES[round / 3 % 3]);
        round += 1;
        hang_all(run, shape, life);
        run.survived(1);
    }
}

fn hang_all(run: &mut Run, (workers, children): (usize, usize), life: &str) {
    let lanes = u32::try_from(workers + 8).expect("there are few");
    let options = CreateOptions { geometry: Stage::geometry(lanes), ..Default::default() };
    let stage = Stage::with(PART.name, options);
    let mut watchdog = stage.watchdog(&["--reap", "tree"]);
    let mut bystander = stage.actor();
    bystander.tell("expires fine 3600000");
    bystander.tell("children 2 idle");
    let mut hung: Vec<Actor> = (0..workers).map(|_| stage.actor()).collect();
    for worker in &mut hung {
        worker.tell(&format!("children {children} {life}"));
    }
    for worker in &mut hung {
        worker.tell("expires hung 50");
    }
    for _ in 0..workers {
        let event = watchdog.event(|event| event["event"] == "kin");
        if event["level"] != "INFO" || event["processes"] != children {
            run.lost(format!("{workers} x {children} {life}: {event}"));
        }
    }
    for worker in &mut hung {
        until("a hung worker ends", || worker.has_ended());
    }
    let left = living_of(stage.name()).len();
    if left > 3 {
        run.lost(format!("{workers} x {children} {life}: {} live on", left - 3));
    } else if left < 3 || !bystander.is_alive() {
        run.wrongly_killed("a bystander or its children");
    }
    // The bystander's children end with it: nobody else would end them soon.
    bystander.tell("expires last 1");
    watchdog.event(|event| event["event"] == "kin");
    until("it ends with them", || living_of(stage.name()).is_empty().then_some(()));
}
