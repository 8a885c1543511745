//! From the deadline to the signal, and to the death.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hangwatch_evidence::options::Level;

use super::Mode;
use super::results::{Comparison, Contender, Side};
use crate::latency::{Conditions, Cores, Lateness, measure};

/// hangwatch's server.
pub const OURS: &str = "**hangwatch**";
/// What ratios are to.
pub const LIMIT: &str = "the machine: sleep to the instant, signal";
/// The percentiles that are told.
pub const PERCENTILES: [f64; 3] = [0.5, 0.99, 0.999];

type Failed = Box<dyn std::error::Error>;

/// Signals under each condition, and deaths.
///
/// # Errors
/// Where processes or servers cannot be started.
pub fn compare(mode: Mode) -> Result<Vec<Comparison>, Failed> {
    let samples = mode.of(1008, 32);
    // Of a thousand, p99.9 is the worst but one: an accident of the host. Where it is a goal, of four.
    let many = mode.of(4_032, 32);
    let idle = Conditions {
        ahead: Duration::from_millis(30),
        cores: Cores::Idle,
        priority: None,
        evidence: Level::Off,
    };
    let busy = Conditions { cores: Cores::Busy, ..idle };
    let all = [
        ("signal", idle, samples),
        ("signal-scopes", Conditions { evidence: Level::Scopes, ..idle }, samples),
        ("signal-busy", busy, many),
        ("signal-realtime", Conditions { priority: Some(50), ..idle }, samples),
        ("signal-busy-realtime", Conditions { priority: Some(50), ..busy }, many),
    ];
    let mut comparisons = Vec::new();
    for (id, conditions, samples) in all {
        eprintln!("  {id}: {samples} signals each");
        let lateness = match measure(conditions, samples) {
            Ok(lateness) => lateness,
            Err(error) if conditions.priority.is_some() => {
                eprintln!("  {id}: left out: {error}");
                continue;
            }
            Err(error) => return Err(error),
        };
        comparisons.push(signals(id, conditions, &lateness));
        if id == "signal" {
            comparisons.push(deaths(mode, &lateness)?);
        }
    }
    let far = Conditions { ahead: Duration::from_millis(250), ..idle };
    let mut beyond = signals("signal-far", far, &measure(far, samples / 4)?);
    beyond.title = format!("{}, the deadline beyond the interval", beyond.title);
    comparisons.push(beyond);
    Ok(comparisons)
}

fn signals(id: &str, conditions: Conditions, lateness: &Lateness) -> Comparison {
    let cores = match conditions.cores {
        Cores::Idle => "idle cores",
        Cores::Busy => "every core computing",
    };
    let class = if conditions.priority.is_some() { "real-time" } else { "normal" };
    let evidence = conditions.evidence.name();
    let contender = |name, side, values| Contender::percentiles(name, side, values, &PERCENTILES);
    Comparison {
        id: id.to_owned(),
        title: format!("Deadline to signal, {cores}, {class} scheduling, evidence {evidence}"),
        how: "The real server and real worker processes, in batches of 16 with deadlines 7 ms apart, \
              in turn with a thread that sleeps to each deadline (`clock_nanosleep`, timer slack 1 \
              ns) and signals workers of another such segment through a pidfd, under the same \
              scheduling policy. Both are timed when the system call that sends the signal has \
              returned: under normal scheduling often after the death, for which the kernel may give \
              the core to the victim first. The server wakes two milliseconds ahead of a deadline, \
              which can make its median the better one."
            .to_owned(),
        unit: "us".to_owned(),
        axis: "percentile".to_owned(),
        points: ["p50", "p99", "p99.9"].map(str::to_owned).to_vec(),
        basis: LIMIT.to_owned(),
        contenders: vec![
            contender(LIMIT, Side::Limit, &lateness.limit.signals),
            contender(OURS, Side::Ours, &lateness.hangwatch.signals),
        ],
    }
}

fn deaths(mode: Mode, lateness: &Lateness) -> Result<Comparison, Failed> {
    let timeout = (0..mode.of(100, 5)).map(|_| timeout_us()).collect::<Result<Vec<_>, _>>()?;
    let percentiles = &PERCENTILES[..2];
    let contender = |name, side, values| Contender::percentiles(name, side, values, percentiles);
    Ok(Comparison {
        id: "death".to_owned(),
        title: "Deadline to death".to_owned(),
        how: "When the kernel says that the process is dead, on idle cores. `timeout(1)`: `timeout -s \
              KILL 0.1` around a process that waits, from its start until it has seen the end, its \
              own start and end included. torch's servers, at their defaults and at their best (10 ms \
              between passes), around a worker with a deadline of 1 s; a dozen samples at their best, \
              one at their defaults."
            .to_owned(),
        unit: "us".to_owned(),
        axis: "percentile".to_owned(),
        points: ["p50", "p99"].map(str::to_owned).to_vec(),
        basis: LIMIT.to_owned(),
        contenders: vec![
            contender(LIMIT, Side::Limit, &lateness.limit.deaths),
            contender(OURS, Side::Ours, &lateness.hangwatch.deaths),
            contender("`timeout(1)`", Side::Peer, &timeout),
        ],
    })
}

/// How late `timeout(1)` ends a process, us.
fn timeout_us() -> Result<f64, Failed> {
    let allowance = Duration::from_millis(100);
    let start = Instant::now();
    let status = Command::new("timeout")
        .args(["-s", "KILL", "0.1"])
        .arg(std::env::current_exe()?)
        .args(["--bench-role", "wait"])
        .stdout(Stdio::null())
        .status()?;
    let late = start.elapsed().saturating_sub(allowance);
    if status.success() {
        return Err("timeout(1) let its command go on".into());
    }
    Ok(late.as_secs_f64() * 1e6)
}
