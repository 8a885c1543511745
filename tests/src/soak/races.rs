//! Releases against expiry: every acquire ends one way, exactly once, and the counts add up.
//!
//! One half of the races is against a watchdog in a process of its own that reports; the other against
//! one in this process, which never condemns its own process, so that nobody need die for each race.

use std::thread;

use hangwatch::{CreateOptions, WorkerOptions};
use hangwatch_core::wire::segment::Counter;
use hangwatch_server::{Holds, Server, ServerOptions, Treatment};

use super::{Part, Run};
use crate::race::{Asks, Endings, SCOPE, race};
use crate::random::Random;
use crate::{Actor, Stage, until};

/// See the module.
pub const PART: Part =
    Part { name: "races", fault: "a release races its expiry", full: 400_000, inject };

/// Acquires of one round.
const ROUND: u64 = 4_000;
/// Racers at once.
const RACERS: u64 = 2;

fn inject(run: &mut Run) {
    loop {
        let across = run.next_batch(ROUND);
        race_across_processes(run, across);
        let within = run.next_batch(ROUND);
        race_within_the_process(run, within);
        if within == 0 {
            return;
        }
    }
}

fn stage() -> Stage {
    Stage::with(PART.name, CreateOptions { geometry: Stage::geometry(8), ..Default::default() })
}

/// Each racer's share of the acquires.
fn shares(count: u64) -> impl Iterator<Item = u64> {
    (0..RACERS).map(move |racer| count / RACERS + u64::from(racer < count % RACERS))
}

fn race_across_processes(run: &mut Run, count: u64) {
    let stage = stage();
    let mut watchdog = stage.watchdog(&["--notify-only"]);
    let mut racers: Vec<Actor> = (0..RACERS).map(|_| stage.actor()).collect();
    for (racer, share) in racers.iter_mut().zip(shares(count)) {
        racer.order(&format!("race {share} {}", run.random.next_u64()));
    }
    let mut endings = Endings::default();
    for mut racer in racers {
        let answer = racer.answer().unwrap_or_default();
        endings.add(answer.strip_prefix("ok ").unwrap_or(&answer).parse().expect(&answer));
        assert!(racer.end().success(), "a racer ends in order");
    }
    check(run, &stage, endings, count);
    let signalled = watchdog.events().iter().filter(|event| event["event"] == "signalled").count();
    (0..signalled).for_each(|_| run.wrongly_killed("a racer that asked for reports"));
    assert!(watchdog.end().success(), "the watchdog ends in order");
}

fn race_within_the_process(run: &mut Run, count: u64) {
    let stage = stage();
    let reap = Treatment::Reap;
    let holds = Holds { stopped: reap, traced: reap, frozen: reap };
    let options = ServerOptions { holds, ..ServerOptions::default() };
    let server = Server::start(stage.segment, options, |_| {}).expect("nobody else serves it");
    let worker = WorkerOptions::new().attach_to(stage.segment).expect("there are free lanes");
    let racers: Vec<_> = shares(count)
        .map(|share| {
            let mut random = Random::new(run.random.next_u64());
            thread::spawn(move || race(worker, &mut random, share, Asks::Signals))
        })
        .collect();
    let mut endings = Endings::default();
    for racer in racers {
        endings.add(racer.join().expect("a racer panicked").expect("a racer has lanes"));
    }
    check(run, &stage, endings, count);
    drop(server);
}

/// What the releases said, what the scope's counts say and what the watchdog counted are the same.
fn check(run: &mut Run, stage: &Stage, endings: Endings, count: u64) {
    let counts = until("nothing is armed or condemned any more", || {
        let picture = stage.picture();
        let armed = picture.lanes.iter().any(|lane| !lane.timers.is_empty());
        let of_scope = picture.scopes.into_iter().find(|scope| scope.name == SCOPE);
        (!armed).then(|| of_scope.map(|scope| scope.counts).unwrap_or_default())
    });
    let by_statistics = Endings {
        acquired: counts.acquired,
        in_time: counts.released() - counts.reported,
        reported: counts.reported,
        condemned: counts.condemned,
        wronged: counts.abandoned,
    };
    let by_watchdog = Endings {
        reported: stage.counter(Counter::Reported),
        condemned: stage.counter(Counter::Condemned),
        ..endings
    };
    let ended = endings.in_time + endings.reported + endings.condemned;
    let adds_up = endings.acquired == count && ended == count && endings.wronged == 0;
    if adds_up && by_statistics == endings && by_watchdog == endings {
        run.survived(count);
    } else {
        run.lost(format!(
            "releases {endings:?}, statistics {by_statistics:?}, watchdog {by_watchdog:?}"
        ));
    }
}
