//! `hangwatch shadow`: shows what a watchdog that only reports would have killed.

use std::fmt::Write;
use std::time::Duration;

use hangwatch::{Observation, ScopeView};
use hangwatch_core::wire::timer::TimerState;
use serde::Serialize;

use super::Failure;
use super::status::{brief, json, shortened, show};
use crate::cli::learning::Shadow;
use crate::deadlines::time_text;
use crate::exit::Exit;

pub(super) fn perform(options: &Shadow) -> Result<Exit, Failure> {
    show(&options.observed, |seen| json(seen.iter().map(SegmentJson::of)), table)
}

/// One scope with a deadline from the file, or with late acquires.
#[derive(Serialize)]
struct ScopeJson<'s> {
    scope: &'s str,
    /// The deadline in the deadlines file.
    deadline_ns: Option<u64>,
    /// How long it has had this deadline.
    for_ns: Option<u64>,
    /// Acquires that were released late.
    ended_late: u64,
    /// Acquires whose worker died after the deadline.
    died_late: u64,
    /// Acquires that are past their deadline now.
    late_now: u64,
    mean_late_ns: Option<u64>,
    max_late_ns: u64,
    longest_ns: u64,
}

#[derive(Serialize)]
struct SegmentJson<'s> {
    segment: &'s str,
    scopes: Vec<ScopeJson<'s>>,
}

impl SegmentJson<'_> {
    fn of(seen: &Observation) -> SegmentJson<'_> {
        let scopes = seen.scopes.iter().map(|scope| ScopeJson::of(seen, scope));
        let matters = |scope: &ScopeJson| scope.deadline_ns.is_some() || scope.late() > 0;
        SegmentJson { segment: &seen.segment, scopes: scopes.filter(matters).collect() }
    }
}

impl<'s> ScopeJson<'s> {
    fn of(seen: &Observation, scope: &'s ScopeView) -> ScopeJson<'s> {
        let overruns = &scope.overruns;
        ScopeJson {
            scope: &scope.name,
            deadline_ns: scope.timeout.map(hangwatch_core::wire::time::duration_ns),
            for_ns: (overruns.since.0 > 0).then(|| seen.at.since(overruns.since)),
            ended_late: overruns.ended,
            died_late: overruns.died,
            late_now: late_now(seen, scope),
            mean_late_ns: overruns.sum_late_ns.checked_div(overruns.ended),
            max_late_ns: overruns.max_late_ns,
            longest_ns: scope.counts.max_ns,
        }
    }

    /// The number of acquires that would have been killed.
    fn late(&self) -> u64 {
        self.ended_late.wrapping_add(self.died_late).wrapping_add(self.late_now)
    }
}

/// The armed timers of a scope that are past its timeout or their own deadline.
fn late_now(seen: &Observation, scope: &ScopeView) -> u64 {
    let timers = seen.lanes.iter().flat_map(|lane| &lane.timers);
    let is_late = |timer: &&hangwatch::TimerView| {
        let is_beyond = scope.timeout.is_some_and(|timeout| timer.age > timeout);
        match timer.state {
            TimerState::Reported => true,
            TimerState::Armed => is_beyond || timer.left_ns.is_some_and(|left| left < 0),
            _ => false,
        }
    };
    timers.filter(|timer| timer.scope == scope.name).filter(is_late).count() as u64
}

fn table(seen: &Observation) -> String {
    let scopes = SegmentJson::of(seen).scopes;
    if scopes.is_empty() {
        return format!(
            "segment {}: no scope has a deadline from a file, and nothing was late; the watchdog \
             needs --notify-only and --deadlines FILE\n",
            seen.segment
        );
    }
    let late = scopes.iter().map(ScopeJson::late).fold(0, u64::wrapping_add);
    let acquires = if late == 1 { "acquire" } else { "acquires" };
    let mut text = format!("segment {}: {late} {acquires} would have been killed\n", seen.segment);
    let _ = writeln!(
        text,
        "{:<24} {:>8} {:>7} {:>6} {:>5} {:>5} {:>8} {:>8}",
        "SCOPE", "DEADLINE", "FOR", "LATE", "DIED", "NOW", "MEAN", "LATEST"
    );
    let nanos =
        |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), |ns| brief(Duration::from_nanos(ns)));
    for scope in &scopes {
        let deadline = scope.deadline_ns.map(|ns| time_text(Duration::from_nanos(ns)));
        let _ = writeln!(
            text,
            "{:<24} {:>8} {:>7} {:>6} {:>5} {:>5} {:>8} {:>8}",
            shortened(scope.scope, 24),
            deadline.unwrap_or_else(|| "-".to_owned()),
            nanos(scope.for_ns),
            scope.ended_late,
            scope.died_late,
            scope.late_now,
            nanos(scope.mean_late_ns),
            nanos((scope.ended_late > 0).then_some(scope.max_late_ns)),
        );
    }
    text
}
