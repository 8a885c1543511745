//! A segment overwritten at random while everything runs: its watchdog neither panics nor dies, and
//! signals nobody but who attached to that very segment.

use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use hangwatch_core::wire::segment::Counter;

use super::{Part, Run};
use crate::mutator::Mutator;
use crate::random::Random;
use crate::{Actor, Stage, Watchdog, until};

/// See the module.
pub const PART: Part =
    Part { name: "mutations", fault: "words overwritten at random", full: 50_000_000, inject };

/// Words between two looks at whether everybody is as he should be.
const BATCH: u64 = 5_000;
/// Workers of the segment that is overwritten.
const WORKERS: usize = 4;

fn inject(run: &mut Run) {
    let victim = Stage::new("mutated");
    let mut bystanders = Bystanders::new();
    let mut watchdog = victim.watchdog(&[]);
    let (mut attached, mut sent, mut faults) = (HashSet::new(), HashSet::new(), Vec::new());
    let mut workers: Vec<Actor> = Vec::new();
    let random = Random::new(run.random.next_u64());
    let mut mutator = Mutator::of_all(&victim, bystanders.pids(), random);
    loop {
        let batch = run.next_batch(BATCH);
        if batch == 0 {
            break;
        }
        workers.retain_mut(|worker| match worker.has_ended() {
            Some(status) => {
                faults.extend(fault(status).map(|signal| (worker.pid(), signal)));
                false
            }
            None => true,
        });
        while workers.len() < WORKERS {
            let mut worker = Actor::start(victim.name(), &[]);
            attached.insert(worker.pid());
            // What it answers, if it can attach at all, is not what is asked here.
            worker.order("attach");
            worker.order("toil 1");
            workers.push(worker);
        }
        mutator.write(batch);
        bystanders.check(run);
        check_watchdog(run, &mut watchdog, &attached, &mut sent);
        run.survived(batch);
    }
    let ticks = victim.counter(Counter::Ticks);
    until("it ticks on", || (victim.counter(Counter::Ticks) != ticks).then_some(()));
    drop(workers);
    assert!(watchdog.end().success(), "it ends in order");
    check_watchdog(run, &mut watchdog, &attached, &mut sent);
    // A timer that lies may have asked for that very signal.
    for (pid, signal) in faults.into_iter().filter(|fault| !sent.contains(fault)) {
        run.lost(format!("worker {pid} died of signal {signal}, which nobody sent"));
    }
    bystanders.end(run);
    println!("mutations: {} words", mutator.written);
}

/// A worker of a mutated segment may be reaped, or fail with an error: never by a fault of memory, of
/// which this is the signal.
fn fault(status: ExitStatus) -> Option<i32> {
    status.signal().filter(|signal| !matches!(signal, 1..=3 | 9..=10 | 12..))
}

/// Nobody but workers is signalled; takes down who is, and how.
fn check_watchdog(
    run: &mut Run,
    watchdog: &mut Watchdog,
    attached: &HashSet<u32>,
    sent: &mut HashSet<(u32, i32)>,
) {
    for event in watchdog.take_events() {
        let pid = event["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let is_ours = pid.is_some_and(|pid| attached.contains(&pid));
        match event["event"].as_str() {
            Some("signalled") if !is_ours => run.wrongly_killed(event),
            Some("signalled") => {
                let signal = event["signal"].as_i64().and_then(|signal| i32::try_from(signal).ok());
                sent.extend(pid.zip(signal));
            }
            Some("panicked" | "ended") | None if event["why"] != "stopped" => run.lost(event),
            _ => {}
        }
    }
}

/// Processes that have nothing to do with the segment, and that it may come to name.
struct Bystanders {
    sleeper: Child,
    stage: Stage,
    watchdog: Watchdog,
    workers: Vec<Actor>,
}

impl Bystanders {
    fn new() -> Bystanders {
        let sleeper = Command::new("sleep").arg("infinity").stdin(Stdio::null()).spawn().unwrap();
        let stage = Stage::new("unmutated");
        let watchdog = stage.watchdog(&[]);
        let mut workers = vec![stage.actor(), stage.actor()];
        for worker in &mut workers {
            worker.tell("expires outer 3600000");
        }
        Bystanders { sleeper, stage, watchdog, workers }
    }

    fn pids(&self) -> Vec<u32> {
        let workers = self.workers.iter().map(Actor::pid);
        workers
            .chain([self.sleeper.id(), self.watchdog.pid().as_raw_pid().unsigned_abs()])
            .collect()
    }

    fn check(&mut self, run: &mut Run) {
        if self.sleeper.try_wait().unwrap().is_some() {
            run.wrongly_killed("a process that never heard of hangwatch");
        }
        if !self.workers.iter_mut().all(Actor::is_alive) {
            run.wrongly_killed("a worker of another segment");
        }
        if self.watchdog.has_ended().is_some() {
            run.wrongly_killed("the watchdog of another segment");
        }
    }

    fn end(mut self, run: &mut Run) {
        for worker in &mut self.workers {
            if worker.tell("release outer") != "InTime" {
                run.lost("a guard of another segment");
            }
            assert!(worker.end().success(), "it ends in order");
        }
        let stage = &self.stage;
        until("all its lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
        assert!(self.watchdog.end().success(), "it ends in order");
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}
