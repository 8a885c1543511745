//! `hangwatch scopes`: shows the statistics of all scopes and the deadlines they suggest.

use std::fmt::Write;
use std::time::Duration;

use hangwatch::sys::clock::coarse_resolution_ns;
use hangwatch::{ClockKind, Observation, ScopeView};
use hangwatch_core::watchdog::advice::{Advice, LEAST_NS, is_sound};
use serde::Serialize;

use super::Failure;
use super::status::{brief, json, shortened, show};
use crate::cli::learning::Scopes;
use crate::exit::Exit;

/// The quantiles that are shown.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
/// From this many acquires on, all quantiles are reliable.
const MANY: u64 = 10_000;
/// From this many times the p99.9 on, the longest acquire may have been a hang.
const SUSPICIOUS: u64 = 10;

pub(super) fn perform(options: &Scopes) -> Result<Exit, Failure> {
    show(&options.observed, |seen| json(seen.iter().map(SegmentJson::of)), table)
}

/// The resolution of the clocks that timed a scope: that of the coarsest.
pub(super) fn resolution_ns(scope: &ScopeView) -> u64 {
    let of = |clock| match clock {
        ClockKind::Coarse => coarse_resolution_ns(),
        ClockKind::System | ClockKind::Counter => 1,
    };
    scope.clocks.iter().map(of).max().unwrap_or(1)
}

/// The deadline that the statistics of a scope suggest.
pub(super) fn advice(scope: &ScopeView) -> Advice {
    Advice::of(&scope.counts, resolution_ns(scope))
}

fn clocks(scope: &ScopeView) -> Vec<&'static str> {
    scope.clocks.iter().map(ClockKind::name).collect()
}

/// The scopes of one segment that were used, in at most 80 columns.
fn table(seen: &Observation) -> String {
    let used = || seen.scopes.iter().filter(|scope| scope.counts.acquired > 0);
    let mut text = format!("segment {}: {}\n", seen.segment, timed_by(used()));
    if used().next().is_none() {
        return text + "no scope has been used yet\n";
    }
    let _ = writeln!(
        text,
        "{:<22} {:>8} {:>7} {:>7} {:>7} {:>7} {:>8} CONF",
        "SCOPE", "COUNT", "P50", "P99", "P99.9", "MAX", "SUGGEST"
    );
    let mut notes = String::new();
    let is_doubtful = |scope: &ScopeView| (1..MANY).contains(&scope.counts.released());
    for scope in used() {
        let _ = writeln!(text, "{}", row(scope));
        for note in remarks(scope) {
            let _ = writeln!(notes, "{}: {note}", shortened(&scope.name, 22));
        }
    }
    if used().any(is_doubtful) {
        notes.push_str("?: unreliable, fewer than ten acquires were longer\n");
    }
    if seen.scopes_overflowed > 0 {
        let _ = writeln!(
            notes,
            "(other): stands for {} scopes that did not fit into the segment",
            seen.scopes_overflowed
        );
    }
    text + &notes
}

fn timed_by<'s>(scopes: impl Iterator<Item = &'s ScopeView>) -> String {
    let (mut names, mut resolution) = (Vec::new(), 1);
    for scope in scopes {
        names.extend(clocks(scope));
        resolution = resolution.max(resolution_ns(scope));
    }
    names.sort_unstable();
    names.dedup();
    let resolution = Duration::from_nanos(resolution);
    match names.len() {
        0 => "nothing has been timed yet".to_owned(),
        1 => format!("timed by the {} clock, resolution {resolution:?}", names[0]),
        _ => format!("timed by the clocks {}, resolution {resolution:?}", names.join(", ")),
    }
}

fn row(scope: &ScopeView) -> String {
    let (counts, advice) = (&scope.counts, advice(scope));
    let samples = advice.samples;
    let quantile = |of: f64| match samples {
        0 => "-".to_owned(),
        _ => nanos(counts.quantile_ns(of)) + if is_sound(of, samples) { "" } else { "?" },
    };
    let [p50, p99, p999] = QUANTILES.map(quantile);
    let longest = if samples == 0 { "-".to_owned() } else { nanos(advice.longest_ns) };
    let suggested = advice.deadline_ns.map_or_else(|| "-".to_owned(), nanos);
    format!(
        "{:<22} {samples:>8} {p50:>7} {p99:>7} {p999:>7} {longest:>7} {suggested:>8} {:<5}",
        shortened(&scope.name, 22),
        advice.confidence.name()
    )
    .trim_end()
    .to_owned()
}

/// A duration in at most seven characters, with nanoseconds for very short scopes.
fn nanos(ns: u64) -> String {
    if ns < 1_000 { format!("{ns}ns") } else { brief(Duration::from_nanos(ns)) }
}

/// Remarks on the suggested deadline.
pub(super) fn remarks(scope: &ScopeView) -> Vec<String> {
    let (counts, advice) = (&scope.counts, advice(scope));
    let mut remarks = Vec::new();
    if counts.condemned > 0 {
        let condemned = counts.condemned;
        remarks.push(format!("{condemned} expired; how long they would have taken is unknown"));
    }
    let usual_ns = counts.quantile_ns(0.999);
    let times = advice.longest_ns.checked_div(usual_ns).unwrap_or(0);
    let matters = advice.longest_ns >= LEAST_NS && is_sound(0.99, advice.samples);
    if matters && times >= SUSPICIOUS {
        remarks.push(format!("the longest is {times} times the p99.9: was that a hang?"));
    }
    remarks
}

/// One segment in `scopes --json`.
#[derive(Serialize)]
struct SegmentJson<'s> {
    segment: &'s str,
    scopes: Vec<ScopeJson<'s>>,
    scopes_overflowed: u64,
}

#[derive(Serialize)]
struct ScopeJson<'s> {
    scope: &'s str,
    acquired: u64,
    released: u64,
    reported: u64,
    condemned: u64,
    abandoned: u64,
    quantiles: Vec<QuantileJson>,
    max_ns: u64,
    clocks: Vec<&'static str>,
    resolution_ns: u64,
    suggested_deadline_ns: Option<u64>,
    confidence: &'static str,
    factor: u64,
    /// The timeout of the deadlines file in force.
    deadline_ns: Option<u64>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct QuantileJson {
    quantile: f64,
    ns: u64,
    /// Whether at least ten acquires were longer.
    sound: bool,
}

impl SegmentJson<'_> {
    fn of(seen: &Observation) -> SegmentJson<'_> {
        SegmentJson {
            segment: &seen.segment,
            scopes: seen.scopes.iter().map(ScopeJson::of).collect(),
            scopes_overflowed: seen.scopes_overflowed,
        }
    }
}

impl ScopeJson<'_> {
    fn of(scope: &ScopeView) -> ScopeJson<'_> {
        let (counts, advice) = (&scope.counts, advice(scope));
        let quantile = |quantile| QuantileJson {
            quantile,
            ns: counts.quantile_ns(quantile),
            sound: is_sound(quantile, advice.samples),
        };
        ScopeJson {
            scope: &scope.name,
            acquired: counts.acquired,
            released: advice.samples,
            reported: counts.reported,
            condemned: counts.condemned,
            abandoned: counts.abandoned,
            quantiles: QUANTILES.map(quantile).into(),
            max_ns: advice.longest_ns,
            clocks: clocks(scope),
            resolution_ns: resolution_ns(scope),
            suggested_deadline_ns: advice.deadline_ns,
            confidence: advice.confidence.name(),
            factor: advice.confidence.factor(),
            deadline_ns: scope.timeout.map(hangwatch_core::wire::time::duration_ns),
            remarks: remarks(scope),
        }
    }
}
