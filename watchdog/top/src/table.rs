//! The list: one row per lane, with the columns that fit the terminal.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as TableRow, Table, TableState};

use hangwatch::TimerView;
use hangwatch_core::wire::timer::TimerState;

use super::model::{Choice, Model};
use super::row::{Row, Urgency, ns, used};
use super::text::{Keep, short_duration, short_rate};
use super::theme::{SELECTED, TITLE, Theme};

/// A column of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Pid,
    Command,
    Rank,
    Thread,
    Scope,
    Age,
    Bar,
    Rate,
    Incident,
}

/// The width of the text beside the bar: the timeout or the timer's state.
const SAID: usize = 7;

/// The least width of the scope; then other columns are left out.
const LEAST_SCOPE: usize = 10;

impl Column {
    /// From left to right.
    const ALL: [Column; 9] = [
        Column::Pid,
        Column::Command,
        Column::Rank,
        Column::Thread,
        Column::Scope,
        Column::Age,
        Column::Bar,
        Column::Rate,
        Column::Incident,
    ];
    /// Columns in the order in which they are left out on narrow terminals.
    const GOES: [Column; 6] = [
        Column::Thread,
        Column::Rate,
        Column::Rank,
        Column::Incident,
        Column::Command,
        Column::Pid,
    ];

    fn title(self) -> &'static str {
        match self {
            Column::Pid => "PID",
            Column::Command => "COMMAND",
            Column::Rank => "RANK",
            Column::Thread => "THREAD",
            Column::Scope => "SCOPE",
            Column::Age => "AGE",
            Column::Bar => "OF TIMEOUT",
            Column::Rate => "RATE",
            Column::Incident => "INCIDENT",
        }
    }

    /// The width of the column in a terminal of `width`; the scope takes what is left.
    fn columns(self, width: usize) -> usize {
        match self {
            Column::Pid => 7,
            Column::Age | Column::Incident => 8,
            Column::Command => 12,
            Column::Rank => 4,
            Column::Thread => 15,
            Column::Scope => LEAST_SCOPE,
            Column::Bar => bar_columns(width) + 1 + SAID,
            Column::Rate => 5,
        }
    }

    fn alignment(self) -> Alignment {
        match self {
            Column::Pid | Column::Rank | Column::Age | Column::Rate | Column::Incident => {
                Alignment::Right
            }
            _ => Alignment::Left,
        }
    }
}

/// The width of the bar itself, columns.
fn bar_columns(width: usize) -> usize {
    if width < 60 { 4 } else { 8 }
}

/// The columns that fit `width`, and the width of the scope.
fn columns(width: usize, rows: &[&Row]) -> (Vec<Column>, usize) {
    let any = |has: fn(&Row) -> bool| rows.iter().any(|row| has(row));
    let mut columns = Column::ALL.to_vec();
    if !any(|row| row.lane.rank.is_some()) {
        columns.retain(|column| *column != Column::Rank);
    }
    if !any(|row| row.incident.is_some()) {
        columns.retain(|column| *column != Column::Incident);
    }
    // A space between each and the next.
    let taken = |columns: &[Column]| {
        columns.iter().map(|column| column.columns(width) + 1).sum::<usize>().saturating_sub(1)
    };
    for goes in Column::GOES {
        // The thread's name needs room to spare for the scope.
        let spare = if goes == Column::Thread { 20 } else { 0 };
        if taken(&columns) + spare > width {
            columns.retain(|column| *column != goes);
        }
    }
    let scope = (width + LEAST_SCOPE).saturating_sub(taken(&columns));
    (columns, scope)
}

/// Draws the list.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    state: &mut TableState,
    theme: Theme,
) {
    let rows = model.rows();
    if rows.is_empty() {
        let text = if model.seen().is_some_and(|seen| seen.rows.is_empty()) {
            "No worker is attached to this segment."
        } else {
            "No lane matches: esc clears the filter, i shows idle lanes."
        };
        return frame.render_widget(Paragraph::new(text), area);
    }
    let total = usize::from(area.width);
    let (columns, scope) = columns(total, &rows);
    let width = |column: &Column| match column {
        Column::Scope => scope,
        other => other.columns(total),
    };
    let widths = columns
        .iter()
        .map(|column| Constraint::Length(u16::try_from(width(column)).unwrap_or(u16::MAX)));
    let titles = columns
        .iter()
        .map(|column| Cell::new(Line::styled(column.title(), TITLE).alignment(column.alignment())));
    let shown = rows.iter().map(|row| {
        let cells = columns.iter().map(|column| {
            let line = cell(row, *column, width(column), theme);
            Cell::new(line.alignment(column.alignment()))
        });
        TableRow::new(cells).style(theme.of_urgency(row.urgency()))
    });
    state.select(model.selected_place());
    let table = Table::new(shown, widths)
        .header(TableRow::new(titles))
        .column_spacing(1)
        .row_highlight_style(SELECTED);
    frame.render_stateful_widget(table, area, state);
}

fn cell(row: &Row, column: Column, width: usize, theme: Theme) -> Line<'static> {
    let timer = row.told();
    let text = |text: &str, keep| Line::raw(theme.text(text, width, keep));
    match column {
        Column::Pid => Line::raw(row.lane.pid.to_string()),
        Column::Command => text(&row.command, Keep::Start),
        Column::Rank => {
            Line::raw(row.lane.rank.map_or_else(|| "-".into(), |rank| rank.to_string()))
        }
        Column::Thread => text(&row.lane.thread, Keep::Start),
        Column::Scope if row.lane.quarantined => {
            text("(quarantined: inconsistent values)", Keep::Start)
        }
        Column::Scope => text(timer.map_or("(idle)", |timer| &timer.scope), Keep::End),
        Column::Age => {
            let overdue = if row.urgency() == Urgency::Overdue { "!" } else { "" };
            let age = timer.map_or_else(|| "-".into(), |timer| short_duration(ns(timer.age)));
            Line::raw(format!("{overdue}{age}"))
        }
        Column::Bar => timer.map_or_else(Line::default, |timer| bar(timer, width - 8, theme)),
        Column::Rate => Line::raw(row.rate.map_or_else(|| "-".into(), short_rate)),
        Column::Incident => row.incident.as_ref().map_or_else(Line::default, |incident| {
            text(&short_duration(incident.ago_ns), Keep::Start)
        }),
    }
}

/// A bar of a timer's age in relation to its timeout.
fn bar(timer: &TimerView, columns: usize, theme: Theme) -> Line<'static> {
    let said = match timer.state {
        TimerState::Paused => "paused".to_owned(),
        TimerState::Condemned => "expired".to_owned(),
        TimerState::Reported => "reported".to_owned(),
        TimerState::Limited => "braked".to_owned(),
        _ => short_duration(ns(timer.timeout)),
    };
    let fraction = if timer.state == TimerState::Paused { 0.0 } else { used(timer) };
    let style = theme.of_urgency(super::row::urgency(timer));
    // A longer state takes columns of the bar.
    let columns = (columns + SAID).saturating_sub(said.len().max(SAID));
    Line::from(vec![
        Span::styled(theme.bar(fraction, columns), style),
        Span::raw(" "),
        Span::styled(said, style),
    ])
}

/// Draws the list of segments to choose from.
pub(super) fn draw_choices(
    frame: &mut Frame<'_>,
    area: Rect,
    choices: &[Choice],
    chosen: usize,
    theme: Theme,
) {
    let half = usize::from(area.width) / 2;
    let row = |choice: &Choice| {
        let cells = [
            theme.text(&choice.name, half, Keep::End),
            theme.text(&choice.about, half.saturating_sub(1), Keep::Start),
        ];
        TableRow::new(cells.map(Cell::new))
    };
    let titles = ["SEGMENT", "WATCHDOG AND LANES"].map(|text| Cell::new(text).style(TITLE));
    let widths = [Constraint::Fill(1), Constraint::Fill(1)];
    let table = Table::new(choices.iter().map(row), widths)
        .header(TableRow::new(titles))
        .style(Style::new())
        .row_highlight_style(SELECTED);
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(chosen));
}

#[cfg(test)]
mod tests {
    use super::super::sample::{row, timer};
    use super::*;

    #[test]
    fn narrow_terminals_leave_out_columns_in_order() {
        let mut ranked = row(0, "a", &[timer("x", 1, 2)]);
        ranked.incident =
            Some(super::super::row::Incident { ago_ns: 1, outcome: "reaped".to_owned() });
        let mut plain = ranked.clone();
        (plain.lane.rank, plain.incident) = (None, None);
        let check = |width: usize, row: &Row, shown: &[&str]| {
            let (columns, scope) = columns(width, &[row]);
            let titles: Vec<&str> = columns.iter().map(|column| column.title()).collect();
            assert_eq!(titles, shown, "{width}");
            assert!(scope >= LEAST_SCOPE, "{width}: {scope}");
        };
        let all =
            ["PID", "COMMAND", "RANK", "THREAD", "SCOPE", "AGE", "OF TIMEOUT", "RATE", "INCIDENT"];
        check(140, &ranked, &all);
        check(80, &plain, &["PID", "COMMAND", "SCOPE", "AGE", "OF TIMEOUT", "RATE"]);
        let usual = ["PID", "COMMAND", "RANK", "SCOPE", "AGE", "OF TIMEOUT", "RATE", "INCIDENT"];
        check(80, &ranked, &usual);
        check(40, &ranked, &["PID", "SCOPE", "AGE", "OF TIMEOUT"]);
        check(36, &ranked, &["SCOPE", "AGE", "OF TIMEOUT"]);
    }
}
