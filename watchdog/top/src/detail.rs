//! The detail pane: one lane's timers, statistics and flight record, as lines.

use std::fmt::Write;

use hangwatch::{Operation, RecordView, ScopeView, TimerView};
use hangwatch_core::wire::lane::{TimerKind, TimerSignal};
use hangwatch_core::wire::timer::TimerState;
use ratatui::text::{Line, Span};

use super::model::{Detail, Model};
use super::row::{Row, ns, urgency, used};
use super::text::{Keep, short_count, short_duration};
use super::theme::{TITLE, Theme};

/// What a timer's line has beside its scope and its tag.
const TIMER_COLUMNS: usize = 30;
/// What a record's line has beside its scope, its lane and its allowance.
const RECORD_COLUMNS: usize = 22;
/// The least and the most that a scope's name gets.
const LEAST_SCOPE: usize = 8;
const MOST_SCOPE: usize = 40;

/// The pane's title: whose lane it is.
pub(super) fn title(model: &Model, columns: usize, theme: Theme) -> String {
    let Some(row) = model.selected_row() else { return String::new() };
    let rank = row.lane.rank.map(|rank| format!(", rank {rank}")).unwrap_or_default();
    let title = format!("lane {}, pid {}{rank}, {}", row.lane.lane, row.lane.pid, row.command);
    format!(" {} ", theme.text(&title, columns, Keep::Start))
}

/// The pane's lines, for so many columns.
pub(super) fn lines(model: &Model, columns: usize, theme: Theme) -> Vec<Line<'static>> {
    let Some(row) = model.selected_row() else { return Vec::new() };
    let detail = model.seen().and_then(|seen| seen.detail.as_ref());
    let detail = detail.filter(|detail| detail.lane == row.lane.lane);
    let mut lines = about(row, detail, columns, theme);
    lines.push(heading("TIMERS, the innermost first"));
    if row.lane.timers.is_empty() {
        lines.push(Line::styled("none is armed", theme.faint()));
    }
    let timers = row.lane.timers.iter();
    let tags = timers.clone().map(|timer| tag(timer).len()).max().unwrap_or(0);
    let width = columns.saturating_sub(TIMER_COLUMNS + tags).clamp(LEAST_SCOPE, MOST_SCOPE);
    lines.extend(timers.map(|timer| timer_line(timer, width, theme)));
    let Some(detail) = detail else { return lines };
    lines.push(heading("STATISTICS of this lane"));
    lines.push(Line::styled(
        format!(
            "{:<scope$} {:>6} {:>7} {:>7} {:>7} {:>6}",
            "scope",
            "count",
            "p50",
            "p99",
            "max",
            "late",
            scope = scope_columns(columns)
        ),
        theme.faint(),
    ));
    lines.extend(detail.scopes.iter().map(|scope| scope_line(scope, columns, theme)));
    lines.push(heading("RECORDS, the newest first"));
    // What happened last is what is asked for first.
    lines.extend(
        detail.records.iter().rev().map(|record| record_line(record, detail, columns, theme)),
    );
    lines
}

fn heading(text: &'static str) -> Line<'static> {
    Line::styled(text, TITLE)
}

fn about(row: &Row, detail: Option<&Detail>, columns: usize, theme: Theme) -> Vec<Line<'static>> {
    let lane = &row.lane;
    let mut facts = format!("thread {} (tid {})", lane.thread, lane.tid);
    if !lane.job.is_empty() {
        let _ = write!(facts, ", job {}", lane.job);
    }
    if let (Some(rank), size @ 1..) = (lane.rank, lane.world_size) {
        let _ = write!(facts, ", rank {rank} of {size}");
    }
    let records = short_count(lane.records);
    let _ = write!(facts, ", {} clock, {records} records", lane.clock.name());
    let mut lines = vec![Line::raw(theme.text(&facts, columns, Keep::Start))];
    if let Some(arguments) = detail.map(|detail| &detail.arguments).filter(|text| !text.is_empty())
    {
        lines.push(Line::raw(theme.text(arguments, columns, Keep::Start)));
    }
    if let Some(incident) = &row.incident {
        let ago = short_duration(incident.ago_ns);
        let text = format!("last incident {ago} ago: {}", incident.outcome);
        lines.push(Line::styled(theme.text(&text, columns, Keep::Start), theme.warning()));
    }
    lines
}

/// What a scope's name gets beside the other columns, up to what a name needs.
fn scope_columns(columns: usize) -> usize {
    columns.saturating_sub(40).clamp(LEAST_SCOPE, MOST_SCOPE)
}

/// What is special about a timer.
fn tag(timer: &TimerView) -> String {
    let kind = match timer.kind {
        TimerKind::Guard => "",
        TimerKind::Keyed => " keyed",
        TimerKind::Heartbeat => " heartbeat",
    };
    match timer.signal {
        TimerSignal::Default => kind.to_owned(),
        TimerSignal::NotifyOnly => format!("{kind} report only"),
        TimerSignal::Signal(number) => format!("{kind} signal {number}"),
    }
}

/// A timer, its scope in so many columns.
fn timer_line(timer: &TimerView, width: usize, theme: Theme) -> Line<'static> {
    let scope = theme.text(&timer.scope, width, Keep::End);
    let left = match (timer.state, timer.left_ns) {
        (TimerState::Condemned, _) => "expired".to_owned(),
        (TimerState::Reported, _) => "reported".to_owned(),
        (TimerState::Limited, _) => "braked".to_owned(),
        (_, None) => "paused".to_owned(),
        (_, Some(left @ ..0)) => format!("{} over", short_duration(left.unsigned_abs())),
        (_, Some(left)) => format!("{} left", short_duration(left.unsigned_abs())),
    };
    let fraction = if timer.left_ns.is_some() { used(timer) } else { 0.0 };
    Line::from(vec![
        Span::raw(padded(&scope, width)),
        Span::raw(format!(" {:>7} ", short_duration(ns(timer.age)))),
        Span::raw(theme.bar(fraction, 8)),
        Span::raw(format!(" {left:>12}")),
        Span::styled(tag(timer), theme.faint()),
    ])
    .style(theme.of_urgency(urgency(timer)))
}

fn scope_line(scope: &ScopeView, columns: usize, theme: Theme) -> Line<'static> {
    let width = scope_columns(columns);
    let counts = &scope.counts;
    // Where nothing has been released, nothing is known, not even a maximum.
    let known = |ns: u64| match counts.released() {
        0 => "-".to_owned(),
        _ => short_duration(ns),
    };
    let late = counts.condemned.wrapping_add(counts.reported);
    let text = format!(
        "{} {:>6} {:>7} {:>7} {:>7} {:>6}",
        padded(&theme.text(&scope.name, width, Keep::End), width),
        short_count(counts.acquired),
        known(counts.quantile_ns(0.5)),
        known(counts.quantile_ns(0.99)),
        known(counts.max_ns),
        short_count(late),
    );
    Line::styled(text, if late > 0 { theme.warning() } else { ratatui::style::Style::new() })
}

fn record_line(
    record: &RecordView,
    detail: &Detail,
    columns: usize,
    theme: Theme,
) -> Line<'static> {
    let ago = short_duration(detail.at_ns.saturating_sub(record.at.0));
    let elsewhere = if record.lane == detail.lane {
        String::new()
    } else {
        format!(" of lane {}", record.lane)
    };
    let allowance = record.deadline.map_or_else(String::new, |deadline| {
        format!(" for {}", short_duration(deadline.0.saturating_sub(record.at.0)))
    });
    let beside = RECORD_COLUMNS + elsewhere.len() + allowance.len();
    let width = columns.saturating_sub(beside).clamp(LEAST_SCOPE, MOST_SCOPE);
    let text = format!(
        "{ago:>7} ago  {:<8} {}{elsewhere}{allowance}",
        operation(record.operation),
        theme.text(&record.scope, width, Keep::End),
    );
    let style = match record.operation {
        Operation::TooLate => theme.alarm(),
        _ => ratatui::style::Style::new(),
    };
    Line::styled(text, style)
}

fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Acquire => "acquire",
        Operation::Rearm => "rearm",
        Operation::Release => "release",
        Operation::TooLate => "too late",
        Operation::Pause => "pause",
        Operation::Resume => "resume",
    }
}

/// A text followed by what it lacks in columns: `format!` would count characters.
fn padded(text: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthStr;
    let lacking = columns.saturating_sub(text.width());
    format!("{text}{}", " ".repeat(lacking))
}
