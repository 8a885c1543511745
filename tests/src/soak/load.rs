//! Every lane of a big segment in use by many processes at once: no deadline missed, nobody killed, and
//! the watchdog's memory and descriptors stay what they were.

use std::time::Duration;

use hangwatch::CreateOptions;
use hangwatch_process::limits::raise_descriptor_limit;

use super::{Part, Run};
use crate::load::Sum;
use crate::{Actor, Stage, Watchdog, until};

/// See the module. What is counted are seconds.
pub const PART: Part =
    Part { name: "load", fault: "a second of every lane in use", full: 600, inject };

const LANES_A_PROCESS: u64 = 16;
/// Runs of fewer seconds than this are small.
const FEW_SECONDS: u64 = 60;
/// How much the watchdog's memory may grow, KiB: less than a page for each process.
const SLACK_KIB: u64 = 1024;

fn inject(run: &mut Run) {
    // A thread's scopes take up to so long: the pace that two cores can keep.
    let (processes, pace_ms) = if run.left() < FEW_SECONDS { (16, 20) } else { (256, 400) };
    raise_descriptor_limit(processes * 4 + 256).expect("two pipes for each process");
    let lanes = u32::try_from(processes * LANES_A_PROCESS).expect("a number of lanes");
    // Each process's first thread has a lane too, idle.
    let geometry = Stage::geometry(lanes + u32::try_from(processes).expect("few"));
    let stage = Stage::with(PART.name, CreateOptions { geometry, ..Default::default() });
    let mut watchdog = stage.watchdog(&[]);
    let before = watchdog.descriptors().0;
    let mut actors: Vec<Actor> = (0..processes).map(|_| stage.actor()).collect();
    for actor in &mut actors {
        actor.tell(&format!("load {LANES_A_PROCESS} {pace_ms} {}", run.random.next_u64()));
    }
    until("every process is admitted", || (watchdog.descriptors().1 == actors.len()).then_some(()));
    let seconds = run.left();
    let mut used = Vec::new();
    while run.next_batch(1) == 1 {
        // The load itself, no synchronisation.
        std::thread::sleep(Duration::from_secs(1));
        used.push(Usage::of(&watchdog));
        for event in watchdog.take_events() {
            if matches!(event["event"].as_str(), Some("signalled" | "left" | "quarantined")) {
                run.wrongly_killed(event);
            }
        }
        run.survived(1);
    }
    check_flat(run, &used, processes as usize);
    let mut sum = Sum::default();
    for actor in &mut actors {
        actor.order("tire");
    }
    for mut actor in actors {
        let answer = actor.answer().unwrap_or_default();
        sum.add(answer.strip_prefix("ok ").unwrap_or(&answer).parse().expect(&answer));
        assert!(actor.end().success(), "a loaded worker ends in order");
    }
    println!("{}: {processes} processes, {lanes} lanes, {seconds} s at most: {sum:?}", PART.name);
    (0..sum.missed).for_each(|_| run.lost("a deadline"));
    (0..sum.wronged).for_each(|_| run.lost("minutes that were left"));
    assert!(sum.overdue > 0, "some deadlines were let pass");
    until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
    until("all descriptors are closed", || (watchdog.descriptors().0 <= before).then_some(()));
    assert!(watchdog.end().success(), "the watchdog ends in order");
}

/// What the watchdog uses.
#[derive(Clone, Copy, Debug)]
struct Usage {
    resident_kib: u64,
    descriptors: usize,
    pidfds: usize,
}

impl Usage {
    fn of(watchdog: &Watchdog) -> Usage {
        let status = format!("/proc/{}/status", watchdog.pid().as_raw_pid());
        let status = std::fs::read_to_string(status).expect("it is alive");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident_kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
        let (descriptors, pidfds) = watchdog.descriptors();
        Usage { resident_kib: resident_kib.expect("it has memory"), descriptors, pidfds }
    }
}

/// The least of the second quarter and of the last: what is open or allocated for a moment is neither.
fn check_flat(run: &mut Run, used: &[Usage], processes: usize) {
    let quarter = used.len() / 4;
    if quarter == 0 {
        return;
    }
    let (early, late) = (&used[quarter..quarter * 2], &used[used.len() - quarter..]);
    let least = |of: &[Usage], what: fn(&Usage) -> u64| of.iter().map(what).min().unwrap_or(0);
    let memory = |of: &[Usage]| least(of, |usage| usage.resident_kib);
    let descriptors = |of: &[Usage]| least(of, |usage| usage.descriptors as u64);
    println!(
        "{}: watchdog {} KiB then {} KiB, {} then {} descriptors",
        PART.name,
        memory(early),
        memory(late),
        descriptors(early),
        descriptors(late)
    );
    if memory(late) > memory(early) + SLACK_KIB || descriptors(late) > descriptors(early) {
        run.lost("memory or descriptors of the watchdog");
    }
    if used.iter().any(|usage| usage.pidfds != processes) {
        run.lost(format!("a worker out of {processes}"));
    }
}
