//! Draws a frame: header, list, detail pane, footer, help. Pure: depends only on the model and the area.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, TableState, Wrap};

use super::model::{Focus, Model, Motion, Pane, Place, Seen, Watchdog};
use super::row::Urgency;
use super::text::{Keep, short_duration};
use super::theme::{SELECTED, TITLE, Theme};
use super::{detail, help, table};

/// The least size of the terminal: columns, rows.
pub(super) const LEAST: (u16, u16) = (36, 6);
/// From this many rows on, the detail pane is below the list, else it replaces the list.
const ROWS_FOR_BOTH: u16 = 34;

/// State kept between frames: how far the list is scrolled.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) list: TableState,
}

/// Draws the model, and limits the model's scroll position to the text.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model, memory: &mut Memory, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        return draw_too_small(frame, area);
    }
    let rows = [Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)];
    let [top, body, bottom] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(header(model, theme, area.width.into())), top);
    match &model.place {
        Place::Waiting(why) => {
            let text = theme.text(why, usize::MAX, Keep::Start);
            frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), body);
        }
        Place::Choosing(choices) => {
            table::draw_choices(frame, body, choices, model.chosen, theme);
        }
        Place::Watching(_) => draw_watched(frame, body, model, memory, theme),
    }
    frame.render_widget(Paragraph::new(footer(model, theme)), bottom);
    if model.focus == Focus::Help {
        draw_help(frame, area, model, theme);
    }
}

fn draw_too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!(
        "The terminal is too small: {} x {} needed, it has {} x {}. q quits.",
        LEAST.0, LEAST.1, area.width, area.height
    );
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

fn draw_watched(
    frame: &mut Frame<'_>,
    body: Rect,
    model: &mut Model,
    memory: &mut Memory,
    theme: Theme,
) {
    let (list, pane) = match model.pane {
        Pane::Closed => (Some(body), None),
        Pane::Open if frame.area().height < ROWS_FOR_BOTH => (None, Some(body)),
        Pane::Open => {
            let shares = [Constraint::Percentage(40), Constraint::Percentage(60)];
            let [list, pane] = Layout::vertical(shares).areas(body);
            (Some(list), Some(pane))
        }
    };
    if let Some(area) = list {
        table::draw(frame, area, model, &mut memory.list, theme);
    }
    if let Some(area) = pane {
        let lines = detail::lines(model, area.width.saturating_sub(2).into(), theme);
        let title = detail::title(model, area.width.saturating_sub(4).into(), theme);
        let focus = if model.focus == Focus::Detail { TITLE } else { theme.faint() };
        let block = Block::bordered().title(title).border_style(focus);
        let block = match theme.charset {
            super::text::Charset::Unicode => block,
            super::text::Charset::Ascii => block.border_set(ASCII_BORDER),
        };
        let most = lines.len().saturating_sub(block.inner(area).height.into());
        model.scroll = model.scroll.min(u16::try_from(most).unwrap_or(u16::MAX));
        frame.render_widget(Paragraph::new(lines).block(block).scroll((model.scroll, 0)), area);
    }
}

const ASCII_BORDER: ratatui::symbols::border::Set<'_> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Two lines: the segment and its watchdog; the number of lanes and what is shown of them.
fn header(model: &Model, theme: Theme, columns: usize) -> Vec<Line<'static>> {
    let Some(seen) = model.seen() else {
        return vec![Line::styled("hangwatch top", TITLE), Line::default()];
    };
    let (watchdog, style) = watchdog(&seen.watchdog, theme);
    // The watchdog's state matters more than the segment's name, which is cut.
    let room = columns.saturating_sub("hangwatch  ".len() + watchdog.len() + 2);
    let first = vec![
        Span::styled("hangwatch ", theme.faint()),
        Span::styled(theme.text(&seen.segment, room, Keep::End), TITLE),
        Span::raw("  "),
        Span::styled(watchdog, style),
    ];
    vec![Line::from(first), Line::from(state(model, seen, theme))]
}

fn watchdog(watchdog: &Watchdog, theme: Theme) -> (String, ratatui::style::Style) {
    match watchdog {
        Watchdog::None => ("NO WATCHDOG: no deadline is enforced".to_owned(), theme.alarm()),
        Watchdog::Unseen => ("watchdog in another PID namespace".to_owned(), theme.warning()),
        Watchdog::Serving(pid) => (format!("watchdog {pid}"), theme.good()),
        Watchdog::Stuck(pid, ns) => {
            (format!("watchdog {pid} has not ticked for {}", short_duration(*ns)), theme.alarm())
        }
        Watchdog::Braked(pid) => (format!("watchdog {pid}, KILL LIMITER ENGAGED"), theme.alarm()),
    }
}

fn state(model: &Model, seen: &Seen, theme: Theme) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    if model.motion == Motion::Paused {
        spans.push(Span::styled("PAUSED  ", theme.warning().patch(TITLE)));
    }
    let overdue = seen.rows.iter().filter(|row| row.urgency() == Urgency::Overdue).count();
    if overdue > 0 {
        spans.push(Span::styled(format!("{overdue} overdue  "), theme.alarm()));
    }
    spans.push(Span::raw(format!("{} of {} lanes", seen.rows.len(), seen.lane_count)));
    let shown = model.rows().len();
    if shown != seen.rows.len() {
        spans.push(Span::styled(format!(", {shown} shown"), theme.warning()));
    }
    spans.push(Span::styled(format!("  by {}", model.sort.name()), theme.faint()));
    if model.direction == super::row::Direction::Reversed {
        spans.push(Span::styled(" reversed", theme.faint()));
    }
    let told = seen.counters.iter().filter(|(name, count)| {
        *count > 0 && ["reaped", "reported", "unkillable", "failed"].contains(name)
    });
    for (name, count) in told {
        spans.push(Span::raw(format!("  {name} {count}")));
    }
    spans
}

fn footer(model: &Model, theme: Theme) -> Line<'static> {
    if model.focus == Focus::Filter {
        return Line::from(vec![
            Span::styled("filter: ", TITLE),
            Span::raw(theme.text(&model.filter, 60, Keep::End)),
            Span::styled(" ", SELECTED),
            Span::styled("  enter keeps, esc clears", theme.faint()),
        ]);
    }
    let hints = match (&model.place, model.pane) {
        (Place::Choosing(_), _) => "enter watch  q quit  ? help",
        (Place::Waiting(_), _) => "q quit  ? help  S segments",
        (_, Pane::Open) => "esc back  left right lane  up down scroll  p pause  q quit  ? help",
        _ => "q quit  ? help  enter detail  / filter  s sort  r reverse  i idle  p pause",
    };
    let mut spans = Vec::new();
    if !model.filter.is_empty() {
        let filter = theme.text(&model.filter, 20, Keep::End);
        spans.push(Span::styled(format!("filter {filter:?}  "), theme.warning()));
    }
    spans.push(Span::styled(hints, theme.faint()));
    Line::from(spans)
}

fn draw_help(frame: &mut Frame<'_>, area: Rect, model: &mut Model, theme: Theme) {
    let lines = help::lines(area.width.saturating_sub(2).into());
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let width = help::COLUMNS + 3;
    let within = area.centered(
        Constraint::Length(width.min(area.width)),
        Constraint::Length(height.min(area.height)),
    );
    frame.render_widget(Clear, within);
    let room = within.height.saturating_sub(2);
    let most = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(room);
    model.help_scroll = model.help_scroll.min(most);
    let title = if most > 0 { " help: up down scroll, q back " } else { " help: q back " };
    let block = Block::bordered().title(title).border_style(TITLE);
    let block = match theme.charset {
        super::text::Charset::Unicode => block,
        super::text::Charset::Ascii => block.border_set(ASCII_BORDER),
    };
    let text = Paragraph::new(lines).block(block).scroll((model.help_scroll, 0));
    frame.render_widget(text, within);
}

#[cfg(test)]
mod tests;
