//! What must be reached, as ratios and figures of one run.

use super::results::{Comparison, Results};
use super::{fleet, observed, producers, signals, tables, ticks, worker};

/// One goal and how it went.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What.
    pub what: String,
    /// What was measured.
    pub measured: f64,
    /// The most it may be.
    pub most: f64,
    /// The unit.
    pub unit: &'static str,
}

impl Goal {
    /// Whether it was reached.
    pub fn is_reached(&self) -> bool {
        self.measured <= self.most
    }
}

/// Every goal of which the run has the figures.
pub fn goals(results: &Results) -> Vec<Goal> {
    let of = |id: &str| results.comparisons.iter().find(|one| one.id == id);
    let mut goals = Vec::new();
    of("pair").into_iter().for_each(|pair| pairs(pair, &mut goals));
    of("pair-drained").into_iter().for_each(|pair| drained(pair, &mut goals));
    of("producers").into_iter().for_each(|all| together(all, &mut goals));
    for comparison in &results.comparisons {
        table(comparison, &mut goals);
    }
    absolute(&of, &mut goals);
    of("observed").into_iter().for_each(|pair| unmoved(pair, &mut goals));
    for (id, what, percentile, most) in [
        ("signal", "deadline to signal, idle, p50", 0, 1.2),
        ("signal", "the same, p99", 1, 2.0),
        ("signal-scopes", "deadline to signal with --evidence scopes, idle, p50", 0, 1.2),
        ("signal-scopes", "the same, p99", 1, 2.0),
        ("signal-busy", "deadline to signal, every core computing, p99.9", 2, 2.0),
        ("signal-busy-realtime", "the same, real-time priority, p99.9", 2, 2.0),
    ] {
        let ratio = of(id).and_then(|one| one.ratio(signals::OURS, percentile));
        push(&mut goals, what, ratio, most, "x the machine");
    }
    goals
}

fn push(
    goals: &mut Vec<Goal>,
    what: impl Into<String>,
    measured: Option<f64>,
    most: f64,
    unit: &'static str,
) {
    goals.extend(measured.map(|measured| Goal { what: what.into(), measured, most, unit }));
}

fn pairs(pair: &Comparison, goals: &mut Vec<Goal>) {
    for (name, what, most) in [
        (worker::COUNTER, "pair, counter clock", 1.3),
        (worker::SYSTEM, "pair, two system clock reads", 2.3),
        (worker::COARSE, "pair, coarse clock", 0.5),
    ] {
        push(goals, what, pair.ratio(name, 0), most, "x clock_gettime");
    }
}

/// Beside the peers that need somebody to read.
fn drained(pair: &Comparison, goals: &mut Vec<Goal>) {
    let ours = pair.contender(worker::COUNTER).and_then(|one| one.median(0));
    for (name, what, least) in [
        ("NVIDIA's extension, section pair", "NVIDIA's extension (a section)", 3000.0),
        ("torch's local timer", "torch's local timer", 100.0),
    ] {
        let theirs = pair.contender(name).and_then(|one| one.median(0));
        let share = ours.zip(theirs).map(|(ours, theirs)| ours / theirs * least);
        push(goals, format!("{least} pairs, drained, beside one of {what}"), share, 1.0, "x");
    }
}

fn together(all: &Comparison, goals: &mut Vec<Goal>) {
    for (point, number) in producers::PRODUCERS.iter().enumerate().skip(1) {
        let slower = producers::slowdown(all, point);
        push(
            goals,
            format!("{number} producers against one, beside the control"),
            slower,
            1.1,
            "x",
        );
    }
}

fn table(comparison: &Comparison, goals: &mut Vec<Goal>) {
    if !comparison.id.starts_with("table-") {
        return;
    }
    if comparison.id == tables::id("longest tick") {
        let at = comparison.points.iter().position(|point| point == "1000000");
        let ours = at.and_then(|at| comparison.contender(tables::OURS)?.median(at));
        push(goals, "table, longest tick at 1,000,000 timers", ours, 100.0, "us");
        return;
    }
    let worst = comparison.losses().into_iter().map(|(_, _, ratio)| ratio).reduce(f64::max);
    let what =
        format!("{}, the worst size, against the best peer", comparison.title.to_lowercase());
    push(goals, what, Some(worst.unwrap_or(1.0)), 1.1, "x");
}

/// A pair takes no longer for being observed than a bare clock read takes from block to block.
fn unmoved(pair: &Comparison, goals: &mut Vec<Goal>) {
    let Some(clock) = pair.contender(worker::CLOCK) else { return };
    let spreads = || clock.figures.iter().flatten();
    let high = spreads().map(|spread| spread.high).fold(f64::MIN, f64::max);
    let low = spreads().map(|spread| spread.low).fold(f64::MAX, f64::min);
    for (name, what) in [
        (worker::COUNTER, "a pair, observed beside alone"),
        (worker::SYSTEM, "the same, two reads"),
    ] {
        let medians = pair.contender(name).and_then(|one| one.median(1).zip(one.median(0)));
        let moved = medians.map(|(observed, alone)| (observed - alone).abs());
        push(goals, what, moved, high - low, "ns apart; a clock read's spread");
    }
}

fn absolute<'r>(of: &impl Fn(&str) -> Option<&'r Comparison>, goals: &mut Vec<Goal>) {
    let ours = |id: &str, point: &str| {
        let comparison = of(id)?;
        let point = comparison.points.iter().position(|known| known == point)?;
        comparison.contenders.first()?.median(point)
    };
    let rows = [
        (
            "drain and apply, a quiet producer",
            "drain",
            "256",
            ticks::GOAL_NS_A_RECORD,
            "ns a record",
        ),
        ("tick, nothing due, 1,024 lanes x 64 timers", "tick", "1024", 30.0, "us"),
        ("tick, nothing due, 16,384 lanes", "tick", "16384", 1000.0, "us"),
        ("tick, 10,000 expiries at once", "mass-expiry", "", 5000.0, "us"),
        ("restart, 1,024 lanes x 64 timers adopted", "restart", "", 20_000.0, "us"),
        ("watchdog memory", "memory-timer", "", 64.0, "bytes a timer"),
        ("a default lane", "memory-lane", "", 32.0, "KiB"),
        (
            "the watchdog over 1,024 lanes, observed",
            "observed-share",
            observed::POINTS[1],
            0.5,
            "% of a core",
        ),
        ("a thousand hosts, three in trouble", "fleet", fleet::POINTS[1], 2000.0, "ms"),
        ("the idle watchdog over 1,024 lanes", "idle", "", 0.2, "% of a core"),
    ];
    for (what, id, point, most, unit) in rows {
        push(goals, what, ours(id, point), most, unit);
    }
    let counted = |point: &str| ours("observed-instructions", point);
    let more = counted(observed::POINTS[1]).zip(counted(observed::POINTS[0]));
    let more = more.map(|(observed, alone)| (observed - alone).abs());
    push(goals, "instructions of a pair, observed beside alone", more, 0.0, "apart");
}
