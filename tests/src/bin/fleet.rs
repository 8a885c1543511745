//! How long `hangwatch fleet` takes over a thousand hosts, on one core, the hosts' own work included.
//!
//! ```text
//! cargo run --release -p hangwatch-tests --bin fleet-bench
//! ```

use std::time::{Duration, Instant};

use hangwatch_cli::fleet::{Asking, Fleet, Target, ask};
use hangwatch_tests::hosts::{Hosts, Manner, state};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const HOSTS: u32 = 1_000;
const RANKS: u32 = 8;
const RUNS: usize = 9;

fn main() {
    pin();
    let waiting: &[(&str, u64)] = &[("allreduce", 30), ("backward", 31), ("step", 32)];
    let answer = |host: u32| {
        let ranks: Vec<_> =
            (host * RANKS..(host + 1) * RANKS).map(|rank| (rank, waiting)).collect();
        Manner::Answers("200 OK", state(&format!("gpu-{host}"), "train", HOSTS * RANKS, &ranks))
    };
    let mut manners: Vec<Manner> = (0..HOSTS).map(answer).collect();
    // Some are always in trouble.
    for (index, manner) in
        [Manner::IsSilent, Manner::HangsUp, Manner::Trickles].into_iter().enumerate()
    {
        manners[index * 100] = manner;
    }
    let hosts = Hosts::serve(manners);
    let targets: Vec<Target> = (0..HOSTS as usize)
        .map(|index| hosts.address(index).parse().expect("an address is a target"))
        .collect();
    let mut took: Vec<Duration> = (0..RUNS).map(|_| once(&targets)).collect();
    took.sort();
    println!("{HOSTS} hosts of {RANKS} ranks on one core, three of them in trouble (timeout 1s):");
    println!("median {:.2?}, worst {:.2?} of {RUNS}", took[RUNS / 2], took[RUNS - 1]);
}

fn once(targets: &[Target]) -> Duration {
    let began = Instant::now();
    let answers = ask(targets, Asking::default()).expect("a runtime");
    let fleet = Fleet::of(targets, &answers);
    let took = began.elapsed();
    let answered = fleet.targets.iter().filter(|target| target.status == "ok").count();
    assert_eq!(answered, targets.len() - 3, "every host but those in trouble answered");
    took
}

/// This process and all its threads on the first core that it may use.
fn pin() {
    let allowed = sched_getaffinity(None).expect("the kernel says");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("there is one");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("one of those allowed");
}
