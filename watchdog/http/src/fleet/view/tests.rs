//! Tests the view with jobs of simulated ranks.

use super::super::answer::Timer;
use super::*;

const SECOND: u64 = 1_000_000_000;

/// A lane of rank `rank` of `world` in these scopes, innermost first, for so many seconds.
fn lane(rank: u32, world: u32, scopes: &[(&str, u64)]) -> Lane {
    let timer = |(scope, age_s): &(&str, u64)| Timer {
        scope: (*scope).to_owned(),
        state: "armed".to_owned(),
        age_ns: age_s * SECOND,
        left_ns: Some(5),
    };
    Lane {
        pid: rank,
        command: None,
        job: "train".to_owned(),
        host: format!("gpu-{rank}"),
        rank: Some(rank),
        world_size: world,
        quarantined: false,
        timers: scopes.iter().map(timer).collect(),
    }
}

/// The fleet of these lanes, one host for each.
fn fleet(lanes: Vec<Lane>) -> Fleet {
    let hosts = lanes.into_iter().enumerate().map(|(index, lane)| {
        let segments = vec![Segment { segment: "run-1".into(), braked: false, lanes: vec![lane] }];
        let host = format!("host-{index}");
        let target: Target = format!("{host}:1").parse().unwrap();
        (target, Ok(State { host, healthy: true, reason: None, segments }))
    });
    let (targets, answers): (Vec<Target>, Vec<Answer>) = hosts.unzip();
    Fleet::of(&targets, &answers)
}

fn odd(lanes: Vec<Lane>) -> Option<(u32, Option<String>, String)> {
    let mut fleet = fleet(lanes);
    assert!(fleet.odd.len() <= 1);
    let marked: Vec<_> = fleet.workers.iter().filter(|row| row.odd).map(|row| row.rank).collect();
    let odd = fleet.odd.pop()?;
    let expected = odd.host.as_ref().map(|_| Some(odd.rank));
    assert_eq!(marked, expected.into_iter().collect::<Vec<_>>());
    Some((odd.rank, odd.host, odd.scope))
}

const WAITING: &[(&str, u64)] = &[("allreduce", 30), ("step", 31)];

#[test]
fn culprit_is_the_rank_that_is_not_where_the_others_wait() {
    let elsewhere: [&[(&str, u64)]; 3] = [&[("load", 31), ("step", 32)], &[("step", 32)], &[]];
    for scopes in elsewhere {
        let lanes =
            vec![lane(0, 4, WAITING), lane(1, 4, scopes), lane(2, 4, WAITING), lane(3, 4, WAITING)];
        let expected = (1, Some("gpu-1".to_owned()), "allreduce".to_owned());
        assert_eq!(odd(lanes), Some(expected), "{scopes:?}");
    }
}

#[test]
fn rank_that_no_target_reports_is_the_culprit() {
    let lanes = || vec![lane(0, 4, WAITING), lane(1, 4, WAITING), lane(3, 4, WAITING)];
    assert_eq!(odd(lanes()), Some((2, None, "allreduce".to_owned())));
    let missing = Missing { job: "train".into(), world_size: 4, ranks: vec![2], count: 1 };
    assert_eq!(fleet(lanes()).missing, [missing]);
}

#[test]
fn job_without_a_culprit_marks_no_rank() {
    let waiting = |ranks: u32| (0..ranks).map(|rank| lane(rank, ranks, WAITING)).collect();
    assert_eq!(odd(waiting(4)), None, "all wait in the same scope");
    assert_eq!(odd(Vec::new()), None);
    let of_two = vec![lane(0, 2, WAITING), lane(1, 2, &[("load", 9)])];
    assert_eq!(odd(of_two), None, "with two ranks it could be either");
    let soon = |rank| lane(rank, 3, &[("allreduce", 0)]);
    let passing = vec![soon(0), soon(1), lane(2, 3, &[("load", 9)])];
    assert_eq!(odd(passing), None, "the others have not waited yet");
    let at_work = vec![
        lane(0, 3, &[("forward", 2), ("step", 30)]),
        lane(1, 3, &[("backward", 2), ("step", 30)]),
        lane(2, 3, &[("load", 9)]),
    ];
    assert_eq!(odd(at_work), None, "the others share a scope but do not wait in one");
    let load = |rank| lane(rank, 4, &[("load", 9)]);
    let halves = vec![lane(0, 4, WAITING), lane(1, 4, WAITING), load(2), load(3)];
    assert_eq!(odd(halves), None, "two and two");
    let others_down = vec![lane(0, 8, WAITING), lane(1, 8, WAITING)];
    assert_eq!(odd(others_down), None, "six of eight ranks are unknown");
}

#[test]
fn jobs_are_judged_separately() {
    let other = |rank: u32, scopes| Lane { job: "eval".into(), ..lane(rank, 3, scopes) };
    let lanes = vec![
        lane(0, 3, WAITING),
        lane(1, 3, WAITING),
        lane(2, 3, WAITING),
        other(0, WAITING),
        other(1, &[("read", 50)]),
        other(2, WAITING),
    ];
    let fleet = fleet(lanes);
    assert_eq!(fleet.odd.len(), 1);
    assert_eq!((fleet.odd[0].job.as_str(), fleet.odd[0].rank), ("eval", 1));
    assert_eq!(fleet.workers.iter().filter(|row| row.odd).count(), 1);
    assert_eq!(fleet.workers[0].age_ns, Some(50 * SECOND), "the oldest first");
}

#[test]
fn threads_of_a_process_share_a_row() {
    let mut threads = lane(0, 1, &[("fetch", 3)]);
    threads.timers[0].age_ns = 3;
    let segments = vec![Segment {
        segment: "run-1".into(),
        braked: true,
        lanes: vec![threads, lane(0, 1, WAITING)],
    }];
    let answers = [Ok(State { host: "h".into(), healthy: true, reason: None, segments })];
    let fleet = Fleet::of(&["h:1".parse().unwrap()], &answers);
    assert_eq!(fleet.workers.len(), 1);
    assert_eq!(fleet.workers[0].scopes, ["allreduce", "step", "fetch"]);
    assert_eq!(fleet.workers[0].age_ns, Some(30 * SECOND));
    assert!(fleet.targets[0].reason.as_ref().unwrap().contains("too many kills"));
}

#[test]
fn absurd_world_size_costs_no_memory() {
    let fleet = fleet(vec![lane(0, u32::MAX, WAITING), lane(u32::MAX, u32::MAX, WAITING)]);
    assert_eq!(fleet.missing[0].ranks.len(), 1_000);
    assert!(fleet.odd.is_empty());
}
