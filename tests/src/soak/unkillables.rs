//! A worker that no signal ends, held by a file system that never answers: it is said to be, once, and
//! everybody else is served meanwhile; it is reaped as soon as it is let go.

use std::os::unix::process::ExitStatusExt;

use hangwatch_core::wire::segment::Counter;

use super::{Part, Run};
use crate::fuse::Mute;
use crate::{Actor, Stage, until};

/// See the module.
pub const PART: Part =
    Part { name: "unkillables", fault: "a worker cannot be killed", full: 60, inject };

fn inject(run: &mut Run) {
    // Asked on a thread of its own: the mount is that thread's.
    let is_possible = || Mute::mount(PART.name).is_some();
    if !std::thread::spawn(is_possible).join().expect("it does not panic") {
        return;
    }
    while run.next_batch(1) == 1 {
        std::thread::scope(|scope| {
            let done = scope.spawn(|| hold_one(run)).join();
            done.expect("a fault was survived");
        });
        run.survived(1);
    }
}

fn hold_one(run: &mut Run) {
    // Declared first, hence dropped last: nobody can wait for it before the file system is gone.
    let mut stuck: Actor;
    let mute = Mute::mount(PART.name).expect("it could be mounted before");
    let stage = Stage::new(PART.name);
    let mut watchdog = stage.watchdog(&[]);
    stuck = stage.actor();
    stuck.tell(&format!("expires stuck {}", run.random.within(20..200)));
    stuck.order(&format!("look {}", mute.file().display()));
    let said = watchdog.expiry_of(stuck.pid());
    if said["outcome"] != "unkillable" || !stuck.is_alive() {
        run.lost(said);
    }
    for _ in 0..run.random.within(1..4) {
        let mut hung = stage.actor();
        hung.tell(&format!("expires hung {}", run.random.within(1..60)));
        let ended = until("the hung worker ends", || hung.has_ended());
        if ended.signal() != Some(9) {
            run.lost(format!("a hung worker ended with {ended}"));
        }
    }
    drop(mute);
    let ended = until("it is let go, and dies", || stuck.has_ended());
    if ended.signal() != Some(9) || stage.counter(Counter::Unkillable) != 1 {
        run.lost(format!("a stuck worker ended with {ended}"));
    }
    until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(watchdog.end().success(), "it ends in order");
}
