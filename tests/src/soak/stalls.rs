//! The watchdog and its workers stopped together for a random time, past their deadlines, by signals:
//! nobody is killed for it, and who hangs is reaped afterwards.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;

use super::{Part, Run};
use crate::{Stage, until};

/// See the module.
pub const PART: Part =
    Part { name: "stalls", fault: "the machine stands still", full: 200, inject };

/// What a worker in time has left after a stall, at the least, ms: far more than it needs.
const LEFT_MS: u64 = 2_000;

/// How long all threads of a process may take to stop, ms.
const STOPPED_WITHIN_MS: u32 = 200;

fn inject(run: &mut Run) {
    let stage = Stage::new(PART.name);
    let mut watchdog = stage.watchdog(&[]);
    while run.next_batch(1) == 1 {
        let stall_ms = run.random.within(400..2_400) as u32;
        let (mut fine, mut hung) = (stage.actor(), stage.actor());
        // Due before the end of some stalls and after that of others, but for the credit.
        fine.tell(&format!("expires fine {LEFT_MS}"));
        hung.tell(&format!("expires hung {}", run.random.within(100..1_000)));
        for worker in [&fine, &hung] {
            worker.signal(Signal::STOP);
        }
        watchdog.signal(Signal::STOP);
        // The fault itself, no synchronisation.
        std::thread::sleep(Duration::from_millis(stall_ms.into()));
        watchdog.signal(Signal::CONT);
        for worker in [&fine, &hung] {
            worker.signal(Signal::CONT);
        }
        watchdog.event(|event| {
            // Counted from the last look before it: at most an interval earlier, or somewhat later
            // where the tick ran until the kernel had stopped every thread.
            let least_ms = f64::from(stall_ms - STOPPED_WITHIN_MS);
            event["event"] == "stalled" && event["late_ms"].as_f64() >= Some(least_ms)
        });
        if !fine.is_alive() || fine.tell("release fine") != "InTime" {
            run.wrongly_killed("a worker that was stopped with its watchdog");
        }
        let ended = until("the hung worker ends", || hung.has_ended());
        if ended.signal() != Some(9) {
            run.lost(format!("a hung worker ended with {ended}"));
        }
        watchdog.take_events();
        run.survived(1);
    }
    assert!(watchdog.end().success(), "it ends in order");
}
