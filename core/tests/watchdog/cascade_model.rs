//! Random workers that come and go under a cascade, against what is promised of it.

use std::collections::{BTreeMap, BTreeSet};

use hangwatch_core::watchdog::policy::{Cascade, Policy};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::TimerState;
use proptest::prelude::*;

use crate::world::{MAX_INTERVAL, MS, Told, Worker, World, words};

const HOLD: u64 = 2_000 * MS;
const WORKERS: u64 = 4;
const TIMERS: u16 = 3;
const SCOPES: std::ops::Range<u16> = 1..3;
/// From the end of a hold to the signal: a tick, and the retry of a question.
const TICKS: u64 = 2 * MAX_INTERVAL + 4096;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Enter { pid: u64, timer: u16, scope: u16, ms: u64 },
    Release { pid: u64, timer: u16 },
    Die { pid: u64 },
    Pass { ms: u64 },
    Succeed,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (pid, timer) = (1..=WORKERS, 0..TIMERS);
    let act = prop_oneof![
        6 => (pid.clone(), timer.clone(), SCOPES, 100..3_000u64)
            .prop_map(|(pid, timer, scope, ms)| Act::Enter { pid, timer, scope, ms }),
        4 => (pid.clone(), timer).prop_map(|(pid, timer)| Act::Release { pid, timer }),
        1 => pid.prop_map(|pid| Act::Die { pid }),
        6 => (1..1_500u64).prop_map(|ms| Act::Pass { ms }),
        1 => Just(Act::Succeed),
    ];
    prop::collection::vec(act, 1..60)
}

/// The story under a policy: who was signalled when, and how each stands at the end.
struct Run {
    signals: Vec<(u64, u8, Nanos)>,
    told: Vec<Told>,
}

/// When a tick is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

/// Plays the acts; `watch` looks before and after every tick.
fn play(
    acts: &[Act],
    cascade: Cascade,
    mut watch: impl FnMut(Moment, &World<'_>, &[Worker<'_>]),
) -> Run {
    let policy = Policy { cascade, ..Policy::default() };
    let words = words();
    let mut world = World::new(&words, policy);
    let mut workers: Vec<Worker<'_>> = (1..=WORKERS).map(|pid| world.worker(pid)).collect();
    world.tick();
    for act in acts {
        let is_alive = |world: &World<'_>, pid| world.process(pid, |process| process.alive);
        match *act {
            Act::Enter { pid, timer, scope, ms } if is_alive(&world, pid) => {
                let worker = &mut workers[pid as usize - 1];
                if worker.state(timer) == Some(TimerState::Idle) {
                    worker.enter(ScopeId(scope), timer, ms * MS);
                }
            }
            Act::Release { pid, timer } if is_alive(&world, pid) => {
                workers[pid as usize - 1].release(timer);
            }
            Act::Die { pid } if is_alive(&world, pid) => world.kernel.borrow_mut().kill(pid),
            Act::Pass { ms } => {
                let until = world.now().plus(ms * MS);
                while world.now() < until {
                    watch(Moment::Before, &world, &workers);
                    world.tick();
                    watch(Moment::After, &world, &workers);
                }
            }
            Act::Succeed => world.succeed(policy),
            _ => {}
        }
    }
    world.serve_for(10_000 * MS);
    check_none_is_late(&world, &workers, HOLD + TICKS);
    let signals = world.signals().iter().map(|s| (s.worker, s.number, s.at)).collect();
    Run { signals, told: world.told() }
}

/// No living worker has a timer armed longer than this after its deadline.
fn check_none_is_late(world: &World<'_>, workers: &[Worker<'_>], bound_ns: u64) {
    for (pid, worker) in (1..).zip(workers) {
        if !world.process(pid, |process| process.alive) {
            continue;
        }
        for timer in 0..TIMERS {
            let seen = worker.timer(timer).load();
            let bound = seen.deadline().begins().plus(bound_ns);
            let is_late = seen.state() == Some(TimerState::Armed) && world.now() > bound;
            assert!(!is_late, "worker {pid} was lost: {seen:?} at {:?}", world.now());
        }
    }
}

proptest! {
    // A failing case is printed, with the seed to repeat it.
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_lost_or_reaped_later_than_the_cascade_allows(acts in acts()) {
        let hold = Cascade::Hold { hold_ns: HOLD };
        let run = play(&acts, hold, |_, world, workers| {
            check_none_is_late(world, workers, HOLD + TICKS);
        });
        // A worker is signalled once, and for a reason: its own deadline, or as a suspect.
        let mut seen = BTreeSet::new();
        for (worker, _, _) in &run.signals {
            prop_assert!(seen.insert(*worker), "worker {worker} was signalled twice");
            let is_told = run.told.iter().any(|told| matches!(told,
                Told::Expiry { worker: told_of, .. } | Told::Suspect { worker: told_of, .. }
                    if told_of == worker));
            prop_assert!(is_told, "nothing was told of worker {worker}");
        }
    }

    #[test]
    fn a_cascade_that_is_off_or_only_reports_changes_nothing(acts in acts()) {
        let late = |_: Moment, world: &World<'_>, workers: &[Worker<'_>]| {
            check_none_is_late(world, workers, TICKS);
        };
        let (off, report) = (play(&acts, Cascade::Off, late), play(&acts, Cascade::Report, late));
        prop_assert_eq!(off.signals, report.signals);
        let expiries = |told: &[Told]| -> Vec<Told> {
            told.iter().filter(|told| matches!(told, Told::Expiry { .. })).copied().collect()
        };
        prop_assert_eq!(expiries(&off.told), expiries(&report.told));
        let is_any_told = off.told.iter().any(|told| matches!(told, Told::Cascade { .. }));
        prop_assert!(!is_any_told);
    }

    /// Against a model of the rule: who is signalled within its own deadlines was the only living worker
    /// outside a scope in which all the others, two at least, were overdue.
    #[test]
    fn only_the_one_all_others_wait_for_is_reaped_within_its_deadlines(acts in acts()) {
        let mut before = BTreeMap::new();
        let mut known = 0;
        play(&acts, Cascade::Hold { hold_ns: HOLD }, |moment, world, workers| {
            if moment == Moment::Before {
                before = armed(world, workers);
                return;
            }
            for signal in &world.signals()[known..] {
                let is_overdue = |(_, deadline): &(ScopeId, Nanos)| *deadline <= signal.at;
                let own = &before[&signal.worker];
                let is_right = own.iter().any(is_overdue) || SCOPES.into_iter().any(|scope| {
                    let is_here = |timer: &(ScopeId, Nanos)| timer.0 == ScopeId(scope);
                    let mut others = before.iter().filter(|(pid, _)| **pid != signal.worker);
                    before.len() > 2
                        && !own.iter().any(is_here)
                        && others.all(|(_, timers)| timers.iter().any(|t| is_here(t) && is_overdue(t)))
                });
                assert!(is_right, "{signal:?} with {before:?}");
            }
            known = world.signals().len();
        });
    }
}

/// The armed timers of each living worker.
fn armed(world: &World<'_>, workers: &[Worker<'_>]) -> BTreeMap<u64, Vec<(ScopeId, Nanos)>> {
    let living = (1..).zip(workers).filter(|(pid, _)| world.process(*pid, |it| it.alive));
    living
        .map(|(pid, worker)| {
            let lane = worker.segment.lane(worker.lane);
            let timers = (0..TIMERS).filter_map(|timer| {
                let seen = worker.timer(timer).load();
                let detail = lane.read_detail(timer.into(), seen)?;
                let is_armed = seen.state() == Some(TimerState::Armed);
                is_armed.then(|| (detail.scope, seen.deadline().begins()))
            });
            (pid, timers.collect())
        })
        .collect()
}
