//! `hangwatch fleet` over a thousand simulated hosts: from its start to its end.
//!
//! The program runs on one core, and the hosts, which one process simulates, on the others: where there
//! is one core only, both share it.

use std::process::Stdio;
use std::time::Instant;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Mode;
use super::results::{Comparison, Contender, Side, Spread};
use crate::hosts::{Hosts, Manner, state};
use crate::process::{Player, program};

/// The program.
pub const OURS: &str = "**hangwatch fleet**, one core";
/// The points: hosts that are all well, and those of which three never answer well.
pub const POINTS: [&str; 2] = ["all well", "three in trouble"];

const HOSTS: u32 = 1_000;
const RANKS: u32 = 8;
/// The hosts in trouble: one says nothing, one hangs up, one sends a byte now and then.
const TROUBLE: [Manner; 3] = [Manner::IsSilent, Manner::HangsUp, Manner::Trickles];

type Failed = Box<dyn std::error::Error>;

/// A thousand hosts of eight ranks, seen by one run of the program.
///
/// # Errors
/// Where processes cannot be started, or a host that is well is not seen.
pub fn compare(mode: Mode) -> Result<Comparison, Failed> {
    let turns = mode.of(15, 3);
    let cores = Cores::split();
    let mut figures = Vec::new();
    for (trouble, _) in [0, TROUBLE.len()].into_iter().zip(POINTS) {
        let mut hosts = Player::start(&["hosts", &trouble.to_string()])?;
        sched_setaffinity(Some(hosts.pid()), &cores.theirs)?;
        let file = std::env::temp_dir().join(format!("bench-fleet-{}.json", std::process::id()));
        std::fs::write(&file, hosts.line())?;
        let path = file.to_string_lossy().into_owned();
        let taken: Result<Vec<f64>, Failed> =
            (0..=turns).map(|_| once(&path, trouble, &cores)).collect();
        std::fs::remove_file(&file)?;
        // The first turn has the program's pages read.
        figures.push(Some(Spread::of(&taken?[1..])));
    }
    Ok(Comparison {
        id: "fleet".to_owned(),
        title: "A thousand hosts of eight ranks in one table".to_owned(),
        how: format!(
            "From the start of `hangwatch fleet --file targets.json --json` to its end, on one core; \
             {HOSTS} simulated hosts, three timers a rank, answer from a process on the others. Of \
             those in trouble one says nothing and one trickles, so a run lasts no less than the \
             timeout, which is 1 s."
        ),
        unit: "ms".to_owned(),
        axis: "hosts".to_owned(),
        points: POINTS.map(str::to_owned).to_vec(),
        basis: OURS.to_owned(),
        contenders: vec![Contender {
            name: OURS.to_owned(),
            side: Side::Ours,
            figures,
            distribution: Vec::new(),
        }],
    })
}

/// One run, ms.
fn once(file: &str, trouble: usize, cores: &Cores) -> Result<f64, Failed> {
    let began = Instant::now();
    let child = program(&["fleet", "--file", file, "--json"])?.stdout(Stdio::piped()).spawn()?;
    sched_setaffinity(Some(Pid::from_child(&child)), &cores.ours)?;
    let output = child.wait_with_output()?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let fleet: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let targets = fleet["targets"].as_array().ok_or("no targets")?;
    let answered = targets.iter().filter(|target| target["status"] == "ok").count();
    if answered != HOSTS as usize - trouble {
        return Err(format!("{answered} of {HOSTS} hosts answered, {trouble} in trouble").into());
    }
    Ok(took)
}

/// Serves the hosts, and says where they are: the role of a process of its own.
pub(crate) fn serve(trouble: usize) -> ! {
    let waiting: &[(&str, u64)] = &[("allreduce", 30), ("backward", 31), ("step", 32)];
    let answer = |host: u32| {
        let ranks: Vec<_> =
            (host * RANKS..(host + 1) * RANKS).map(|rank| (rank, waiting)).collect();
        Manner::Answers("200 OK", state(&format!("gpu-{host}"), "train", HOSTS * RANKS, &ranks))
    };
    let mut manners: Vec<Manner> = (0..HOSTS).map(answer).collect();
    for (index, manner) in TROUBLE.into_iter().take(trouble).enumerate() {
        manners[index * 100] = manner;
    }
    println!("{}", Hosts::serve(manners).file_sd());
    loop {
        std::thread::park();
    }
}

/// The cores of the program and of the hosts.
struct Cores {
    ours: CpuSet,
    theirs: CpuSet,
}

impl Cores {
    /// The first core that may be used, and the others.
    fn split() -> Cores {
        let mut theirs = sched_getaffinity(None).expect("the kernel says");
        let first = (0..CpuSet::MAX_CPU).find(|cpu| theirs.is_set(*cpu)).expect("there is one");
        let mut ours = CpuSet::new();
        ours.set(first);
        if theirs.count() > 1 {
            theirs.unset(first);
        }
        Cores { ours, theirs }
    }
}
