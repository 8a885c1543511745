//! `/metrics`: the figures of a watchdog in `OpenMetrics`.
//!
//! A [`Scrape`] holds the figures for one response; [`render`] writes them. Nothing is kept between two
//! scrapes: counts live in the segment, in the tick's figures, or in the [`tally`](super::tally).
//!
//! Scope names, jobs and ranks are chosen by workers, so their number is bounded: the first [`SCOPES`] scopes
//! and [`MAX_LABEL_SETS`] label sets have series of their own; all others are summed up under `(other)`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use hangwatch::{OverdueView, ScopeView, Survey};
use hangwatch_core::wire::stats::Counts;
use hangwatch_core::wire::timeout::Overruns;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::writer::{Histogram, Writer, seconds};
use super::connections::Traffic;
use super::tally::{self, LabelSets, Labels, OTHER};
use hangwatch_server::Health;
use hangwatch_text::{Plain, plain};

mod writer;

/// The number of scopes with series of their own: the first ones, so that a series never changes its meaning.
pub(super) const SCOPES: usize = 128;
#[cfg(doc)]
use super::tally::MAX_LABEL_SETS;

/// Reads one count of a scope.
type Count = fn(&Counts) -> u64;

/// The figures for one response.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) host: String,
    pub(super) seen: Survey,
    pub(super) health: Health,
    pub(super) is_healthy: bool,
    pub(super) at_work: Counts,
    pub(super) lateness: Counts,
    pub(super) tally: tally::Counts,
    pub(super) traffic: Traffic,
    /// The processor time of this process.
    pub(super) cpu_s: f64,
}

/// Writes the figures of a scrape.
///
/// # Errors
/// Never: writing to a string does not fail.
pub(super) fn render(scrape: Scrape) -> Result<String, fmt::Error> {
    let labels = [("host", &scrape.host), ("segment", &scrape.seen.segment)]
        .map(|(name, value)| (Cow::Borrowed(name), Cow::Owned(plain(value).into_owned())));
    let mut registry = Registry::with_prefix_and_labels("hangwatch", labels.into_iter());
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.encode_watchdog(&mut writer)?;
        self.encode_lanes(&mut writer)?;
        self.encode_overdue(&mut writer)?;
        self.encode_expiries(&mut writer)?;
        self.encode_scopes(&mut writer)?;
        self.encode_allowances(&mut writer)?;
        self.encode_itself(&mut writer)
    }
}

impl Scrape {
    fn counter(&self, name: &str) -> u64 {
        self.seen.counters.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }

    fn encode_watchdog(&self, writer: &mut Writer) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        writer.one("build", "The watchdog's version", &Info::new(version))?;
        writer.gauge("healthy", "1 where /healthz is green, else 0", self.is_healthy.into())?;
        writer.gauge(
            "braked",
            "1 while the kill limiter (--max-reaps) has tripped and nothing is signalled",
            self.health.braked.into(),
        )?;
        writer.counter("ticks", "Ticks of all watchdogs of the segment", self.counter("ticks"))?;
        let help = "How long ticks took, without their sleep";
        writer.one("tick_duration_seconds", help, &Histogram(&self.at_work))?;
        let help = "How late ticks were whose sleep was not interrupted";
        writer.one("tick_lateness_seconds", help, &Histogram(&self.lateness))?;
        let age_ns = self.seen.at.since(self.health.last_tick_at);
        let help = "How long ago the last tick ended";
        writer.one("last_tick_age_seconds", help, &ConstGauge::new(seconds(age_ns)))?;
        writer.counter("records_drained", "Records drained", self.counter("drained"))?;
        let help = "Records overwritten before they were drained; no deadline depends on them";
        writer.counter("records_lapped", help, self.counter("lapped"))?;
        let help = "Stalls credited: the watchdog was late, and armed timers were extended";
        writer.counter("stalls", help, self.counter("stalls"))?;
        let help = "The length of the stalls since this watchdog began";
        let stalled = ConstCounter::new(seconds(self.tally.stalled_ns));
        writer.one("stall_seconds", help, &stalled)?;
        writer.counter("adoptions", "Watchdogs that took over the segment", self.counter("adopted"))
    }

    fn encode_lanes(&self, writer: &mut Writer) -> fmt::Result {
        writer.gauge("workers", "Verified processes that are alive", self.health.workers)?;
        writer.gauge("lanes", "Lanes of the segment", self.seen.lane_count as usize)?;
        writer.gauge("lanes_taken", "Lanes that a worker's thread has", self.seen.lanes_taken)?;
        let quarantined = self.seen.lanes_quarantined;
        writer.gauge(
            "lanes_quarantined",
            "Lanes with invalid values, not enforced",
            quarantined,
        )?;
        writer.counter("quarantines", "Lanes quarantined so far", self.counter("quarantined"))?;
        writer.counter("lanes_recycled", "Lanes recycled", self.counter("recycled"))?;
        let help = "Timers that are not idle, by state; the armed ones have a deadline to meet";
        let timers = Survey::STATES.into_iter().zip(self.seen.timers);
        let timers = timers.map(|(state, count)| ([("state", state.name())], count));
        writer.gauges("timers", help, timers)
    }

    /// Writes the timers that are overdue now.
    fn encode_overdue(&self, writer: &mut Writer) -> fmt::Result {
        let mut label_sets = LabelSets::default();
        let mut overdue: BTreeMap<Labels, (usize, u64)> = BTreeMap::new();
        for OverdueView { job, rank, timer, .. } in &self.seen.overdue {
            let labels = Labels::new(job, rank.map(u64::from), &timer.scope);
            let (count, longest_ns) = overdue.entry(label_sets.admit(labels)).or_default();
            *count += 1;
            let overdue_ns = timer.left_ns.map_or(0, i64::unsigned_abs);
            *longest_ns = overdue_ns.max(*longest_ns);
        }
        let of = overdue.iter();
        let help = "Timers past their deadline that have not been released, cleared or reaped";
        writer.gauges(
            "overdue",
            help,
            of.clone().map(|(who, &(count, _))| (who.labels(), count)),
        )?;
        let help = "How long the longest overdue of them has been overdue";
        let longest = of.map(|(who, &(_, ns))| (who.labels(), ConstGauge::new(seconds(ns))));
        writer.family("overdue_seconds", help, longest)
    }

    fn encode_expiries(&self, writer: &mut Writer) -> fmt::Result {
        let tally = &self.tally;
        let help = "Expired timers by their outcome, since this watchdog started";
        writer.family(
            "expiries",
            help,
            tally.expiries.iter().map(|((outcome, who), times)| {
                (with("outcome", outcome, who.labels()), ConstCounter::new(times.count))
            }),
        )?;
        let help = "When the last of them ended, by the wall clock";
        let last = tally.expiries.iter().map(|((outcome, who), times)| {
            (with("outcome", outcome, who.labels()), ConstGauge::new(times.last_at_s))
        });
        writer.family("last_expiry_timestamp_seconds", help, last)?;
        let help = "Overdue workers that were not signalled because they could not run";
        writer.family(
            "held",
            help,
            tally.held.iter().map(|((hold, who), times)| {
                (with("hold", hold, who.labels()), ConstCounter::new(times.count))
            }),
        )?;
        let help = "Timers that used the part of their timeout at which a warning was requested";
        writer.counter("warnings", help, tally.warnings)?;
        let reaps = ["reaped", "unkillable", "failed"]
            .map(|outcome| ([("outcome", outcome)], ConstCounter::new(self.counter(outcome))));
        let help = "Workers reaped (dead after a signal), unkillable (survived SIGKILL), and reaps that failed";
        writer.family("reaps", help, reaps)
    }

    fn encode_scopes(&self, writer: &mut Writer) -> fmt::Result {
        let scopes = self.scopes();
        let counters: [(&str, &str, Count); 6] = [
            ("acquires", "Acquires", |counts| counts.acquired),
            ("releases", "Releases, in time or after a report", Counts::released),
            ("released_after_report", "Releases after a report", |counts| counts.reported),
            ("condemned", "Timers condemned", |counts| counts.condemned),
            ("abandoned", "Timers armed at the end of their process or lane", |counts| {
                counts.abandoned
            }),
            ("rearmed", "Deadlines moved while armed", |counts| counts.rearmed),
        ];
        for (name, help, count) in counters {
            writer.family(
                name,
                help,
                scopes.iter().map(|(scope, counts)| {
                    ([("scope", &**scope)], ConstCounter::new(count(counts)))
                }),
            )?;
        }
        let help = "From acquire to release";
        let durations =
            scopes.iter().map(|(scope, counts)| ([("scope", &**scope)], Histogram(counts)));
        writer.family("scope_duration_seconds", help, durations)?;
        writer.gauge("scopes", "Scope names interned", self.seen.scopes.len())?;
        let help = "Scope names that did not fit into the segment and count as (other)";
        writer.counter("scopes_overflowed", help, self.seen.scopes_overflowed)?;
        let help = "Scopes without series of their own, summed up as (other)";
        let own = scopes.iter().filter(|(scope, _)| scope != OTHER).count();
        writer.gauge("scopes_summed_up", help, self.seen.scopes.len() - own)
    }

    /// Writes the timeouts of scopes in the deadlines file, and the acquires that exceeded them.
    fn encode_allowances(&self, writer: &mut Writer) -> fmt::Result {
        let mut allowed: BTreeMap<Plain<'_>, Duration> = BTreeMap::new();
        for (name, scope) in self.own_series() {
            let Some(time) = scope.timeout.filter(|_| name != OTHER) else { continue };
            allowed.entry(name).or_insert(time);
        }
        let help = "Timeout of an acquire without one of its own, by the deadlines file";
        writer.family(
            "scope_allowance_seconds",
            help,
            allowed.iter().map(|(scope, time)| {
                (
                    [("scope", &**scope)],
                    ConstGauge::new(seconds(hangwatch_core::wire::time::duration_ns(*time))),
                )
            }),
        )?;
        let overruns = self.overruns();
        let ends = overruns.iter().flat_map(|(scope, overruns)| {
            let ends = [("released", overruns.ended), ("died", overruns.died)];
            ends.map(|(end, count)| ([("scope", &**scope), ("end", end)], ConstCounter::new(count)))
        });
        let help = "Acquires that exceeded the scope's current timeout, by their end";
        writer.family("overruns", help, ends)?;
        let late = |ns: u64| ConstCounter::new(seconds(ns));
        let help = "How long the released of them exceeded it, in total";
        let together =
            overruns.iter().map(|(scope, it)| ([("scope", &**scope)], late(it.sum_late_ns)));
        writer.family("overrun_seconds", help, together)?;
        let help = "How long the longest of the released exceeded it";
        let longest = overruns
            .iter()
            .map(|(scope, it)| ([("scope", &**scope)], ConstGauge::new(seconds(it.max_late_ns))));
        writer.family("overrun_longest_seconds", help, longest)
    }

    /// Returns every scope with the name of its series: its own, safe to print, for the first [`SCOPES`], else
    /// [`OTHER`]. Several scopes may share a name, because a page may contain each series only once.
    fn own_series(&self) -> impl Iterator<Item = (Plain<'_>, &ScopeView)> {
        let mut names: BTreeSet<Plain<'_>> = BTreeSet::new();
        self.seen.scopes.iter().map(move |scope| {
            let name = plain(&scope.name);
            if names.contains(&*name) || (name != OTHER && names.len() < SCOPES) {
                names.insert(name.clone());
                return (name, scope);
            }
            (plain(OTHER), scope)
        })
    }

    /// Returns the overruns of scopes that have or had a timeout, by the names of their series.
    fn overruns(&self) -> BTreeMap<Plain<'_>, Overruns> {
        let mut by_name: BTreeMap<Plain<'_>, Overruns> = BTreeMap::new();
        for (name, scope) in self.own_series() {
            let overruns = &scope.overruns;
            if scope.timeout.is_none() && *overruns == Overruns::default() {
                continue;
            }
            let sum = by_name.entry(name).or_default();
            sum.ended = sum.ended.wrapping_add(overruns.ended);
            sum.died = sum.died.wrapping_add(overruns.died);
            sum.sum_late_ns = sum.sum_late_ns.wrapping_add(overruns.sum_late_ns);
            sum.max_late_ns = sum.max_late_ns.max(overruns.max_late_ns);
        }
        by_name
    }

    /// Returns the scopes' counts by the names of their series, in the order in which the scopes were interned.
    fn scopes(&self) -> Vec<(Plain<'_>, Cow<'_, Counts>)> {
        let mut places: BTreeMap<Plain<'_>, usize> = BTreeMap::new();
        let mut scopes: Vec<(Plain<'_>, Cow<'_, Counts>)> = Vec::new();
        for (name, scope) in self.own_series() {
            if let Some(&place) = places.get(&*name) {
                scopes[place].1.to_mut().add(&scope.counts);
            } else {
                places.insert(name.clone(), scopes.len());
                scopes.push((name, Cow::Borrowed(&scope.counts)));
            }
        }
        scopes
    }

    fn encode_itself(&self, writer: &mut Writer) -> fmt::Result {
        let traffic = &self.traffic;
        let requests = traffic.requests.iter().map(|((path, status), count)| {
            ([("path", (*path).to_owned()), ("status", status.to_string())], *count)
        });
        let help = "Requests answered";
        writer.family("http_requests", help, requests.map(|(of, n)| (of, ConstCounter::new(n))))?;
        let help = "Connections by their end: closed, timed_out, broken, displaced by newer ones";
        let connections = traffic.connections.iter();
        writer.family(
            "http_connections",
            help,
            connections.map(|(how, count)| ([("end", *how)], ConstCounter::new(*count))),
        )?;
        let help = "Events lost because the log was too slow";
        writer.counter("events_lost", help, self.tally.events_lost)?;
        let help = "Processor time of the watchdog's process";
        writer.one("cpu_seconds", help, &ConstCounter::new(self.cpu_s))
    }
}

impl Labels {
    fn labels(&self) -> [(&'static str, &str); 3] {
        [("job_name", &self.job), ("rank", &self.rank), ("scope", &self.scope)]
    }
}

fn with<'a>(
    name: &'static str,
    value: &'a str,
    [one, two, three]: [(&'static str, &'a str); 3],
) -> [(&'static str, &'a str); 4] {
    [(name, value), one, two, three]
}
