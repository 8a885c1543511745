//! The model: what the live view shows and how, changed by pictures and keys and by nothing else.
//!
//! It knows neither terminal nor segment: [`source`](super::source) takes the pictures,
//! [`draw`](super::draw) shows the model.

use hangwatch::{RecordView, ScopeView};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::row::{self, Direction, Row, SortBy, Urgency};

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) place: Place,
    pub(super) sort: SortBy,
    pub(super) direction: Direction,
    /// In lower case; empty for none.
    pub(super) filter: String,
    pub(super) idle: Idle,
    pub(super) focus: Focus,
    pub(super) motion: Motion,
    /// The lane that is selected, and whose details are shown.
    pub(super) selected: Option<u32>,
    /// Which segment of a choice is selected.
    pub(super) chosen: usize,
    /// The detail pane, by its first line shown.
    pub(super) scroll: u16,
    /// Whether the detail pane is open, under whatever has the focus.
    pub(super) pane: Pane,
}

/// What there is to show.
#[derive(Debug)]
pub(super) enum Place {
    /// No segment: it says which is waited for, and why.
    Waiting(String),
    /// Several segments, one to be chosen.
    Choosing(Vec<Choice>),
    /// A segment.
    Watching(Box<Seen>),
}

/// A segment that may be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) name: String,
    /// Who serves it, or why it cannot be read.
    pub(super) about: String,
}

/// One picture of a segment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) segment: String,
    pub(super) watchdog: Watchdog,
    pub(super) lane_count: u32,
    pub(super) rows: Vec<Row>,
    pub(super) counters: Vec<(&'static str, u64)>,
    /// Of the selected lane, where the detail pane is open.
    pub(super) detail: Option<Detail>,
}

/// How the watchdog is, as far as the segment and the kernel tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watchdog {
    /// Nobody serves the segment.
    None,
    /// One that is not to be seen from this PID namespace.
    Unseen,
    /// One that ticks.
    Serving(u32),
    /// One that has not ticked for so long, ns.
    Stuck(u32, u64),
    /// One whose brake holds.
    Braked(u32),
}

/// What is told of one lane beyond its row.
#[derive(Clone, Debug)]
pub(super) struct Detail {
    pub(super) lane: u32,
    /// The process's arguments, where they are to be seen.
    pub(super) arguments: String,
    pub(super) scopes: Vec<ScopeView>,
    /// The oldest first.
    pub(super) records: Vec<RecordView>,
    /// When the picture was taken, ns.
    pub(super) at_ns: u64,
}

/// Whether lanes without an armed timer are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Shown,
    Hidden,
}

/// Whether pictures are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Motion {
    Live,
    Paused,
}

/// What the keys go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    List,
    Detail,
    Filter,
    Help,
}

/// Whether the detail pane is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Closed,
    Open,
}

/// What a key asks of whoever runs the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing: the model has changed, or not.
    Nothing,
    /// To end.
    Quit,
    /// To be stopped, as by the terminal.
    Suspend,
    /// A new picture at once.
    Look,
    /// A screen drawn from scratch.
    Redraw,
    /// This segment.
    Watch(String),
    /// The list of segments.
    Choose,
}

/// Rows a page key goes by.
const PAGE: isize = 10;

impl Model {
    pub(super) fn new() -> Model {
        Model {
            place: Place::Waiting(String::new()),
            sort: SortBy::Age,
            direction: Direction::Usual,
            filter: String::new(),
            idle: Idle::Shown,
            focus: Focus::List,
            motion: Motion::Live,
            selected: None,
            chosen: 0,
            scroll: 0,
            pane: Pane::Closed,
        }
    }

    /// Takes up a new picture.
    pub(super) fn show(&mut self, place: Place) {
        if let Place::Choosing(choices) = &place {
            // The choice stays with its segment, whoever comes or goes before it.
            let before = match &self.place {
                Place::Choosing(before) => before.get(self.chosen).map(|choice| &choice.name),
                Place::Waiting(_) | Place::Watching(_) => None,
            };
            let found = choices.iter().position(|choice| Some(&choice.name) == before);
            self.chosen = found.unwrap_or(self.chosen.min(choices.len().saturating_sub(1)));
        }
        if matches!(place, Place::Waiting(_)) {
            self.selected = None;
            self.close_pane();
        }
        self.place = place;
        if let Some(seen) = self.seen()
            && self.selected.is_some_and(|lane| seen.rows.iter().all(|row| row.lane.lane != lane))
        {
            self.selected = None;
            self.close_pane();
        }
    }

    /// The picture, where there is one.
    pub(super) fn seen(&self) -> Option<&Seen> {
        match &self.place {
            Place::Watching(seen) => Some(seen),
            Place::Waiting(_) | Place::Choosing(_) => None,
        }
    }

    /// The rows shown, in their order.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let Some(seen) = self.seen() else { return Vec::new() };
        let shown = |row: &&Row| {
            let busy = self.idle == Idle::Shown || row.urgency() != Urgency::Idle;
            busy && (self.filter.is_empty() || row.matches(&self.filter))
        };
        let mut rows: Vec<&Row> = seen.rows.iter().filter(shown).collect();
        row::sort(&mut rows, self.sort, self.direction);
        rows
    }

    /// Where the selected row stands among those shown.
    pub(super) fn selected_place(&self) -> Option<usize> {
        let lane = self.selected?;
        self.rows().iter().position(|row| row.lane.lane == lane)
    }

    /// The selected lane's row, shown or filtered out.
    pub(super) fn selected_row(&self) -> Option<&Row> {
        let lane = self.selected?;
        self.seen()?.rows.iter().find(|row| row.lane.lane == lane)
    }

    /// The lane whose details are wanted.
    pub(super) fn wanted_detail(&self) -> Option<u32> {
        self.selected.filter(|_| self.pane == Pane::Open)
    }

    /// Does what a key means here.
    pub(super) fn press(&mut self, key: KeyEvent) -> Asked {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Asked::Quit,
            KeyCode::Char('z') if control => return Asked::Suspend,
            KeyCode::Char('l') if control => return Asked::Redraw,
            KeyCode::Char(_) if control => return Asked::Nothing,
            _ => {}
        }
        match (self.focus, &self.place) {
            (Focus::Help, _) => {
                self.focus = self.behind();
                Asked::Nothing
            }
            (Focus::Filter, _) => self.press_in_filter(key.code),
            (_, Place::Choosing(_)) => self.press_in_choice(key.code),
            (Focus::List | Focus::Detail, _) => self.press_in_view(key.code),
        }
    }

    fn press_in_filter(&mut self, code: KeyCode) -> Asked {
        match code {
            KeyCode::Enter => self.focus = self.behind(),
            KeyCode::Esc => {
                self.filter.clear();
                self.focus = self.behind();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) => self.filter.extend(c.to_lowercase()),
            _ => {}
        }
        Asked::Nothing
    }

    fn press_in_choice(&mut self, code: KeyCode) -> Asked {
        let Place::Choosing(choices) = &self.place else { return Asked::Nothing };
        let last = choices.len().saturating_sub(1);
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.focus = Focus::Help,
            KeyCode::Enter | KeyCode::Char('l') | KeyCode::Right => {
                if let Some(choice) = choices.get(self.chosen) {
                    return Asked::Watch(choice.name.clone());
                }
            }
            _ => {
                if let Some(by) = step(code, choices.len()) {
                    self.chosen = self.chosen.saturating_add_signed(by).min(last);
                }
            }
        }
        Asked::Nothing
    }

    fn press_in_view(&mut self, code: KeyCode) -> Asked {
        match code {
            KeyCode::Char('q') => return Asked::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.focus = Focus::Help,
            KeyCode::Char('/') => self.focus = Focus::Filter,
            KeyCode::Char('p' | ' ') => return self.turn_motion(),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.direction = self.direction.turned(),
            KeyCode::Char('i') => {
                self.idle = if self.idle == Idle::Shown { Idle::Hidden } else { Idle::Shown };
            }
            KeyCode::Char('S') => {
                self.close_pane();
                return Asked::Choose;
            }
            KeyCode::Char(c @ 'A'..='Z') => {
                if let Some(by) = sort_key(c) {
                    (self.sort, self.direction) = (by, Direction::Usual);
                }
            }
            KeyCode::Esc => self.go_back(),
            KeyCode::Enter => return self.open_pane(),
            KeyCode::Tab if self.pane == Pane::Open => {
                self.focus = if self.focus == Focus::List { Focus::Detail } else { Focus::List };
            }
            KeyCode::Left | KeyCode::Right if self.pane == Pane::Open => {
                self.select_by(if code == KeyCode::Left { -1 } else { 1 });
                return Asked::Look;
            }
            _ => return self.move_by(code),
        }
        Asked::Nothing
    }

    fn turn_motion(&mut self) -> Asked {
        match self.motion {
            Motion::Live => {
                self.motion = Motion::Paused;
                Asked::Nothing
            }
            Motion::Paused => {
                self.motion = Motion::Live;
                Asked::Look
            }
        }
    }

    /// Out of the pane, else out of the filter.
    fn go_back(&mut self) {
        if self.pane == Pane::Open {
            self.close_pane();
        } else {
            self.filter.clear();
        }
    }

    fn open_pane(&mut self) -> Asked {
        if self.selected_row().is_none() {
            self.select_by(0);
        }
        if self.selected.is_none() {
            return Asked::Nothing;
        }
        (self.pane, self.focus, self.scroll) = (Pane::Open, Focus::Detail, 0);
        Asked::Look
    }

    fn close_pane(&mut self) {
        self.pane = Pane::Closed;
        self.scroll = 0;
        if self.focus == Focus::Detail {
            self.focus = Focus::List;
        }
    }

    fn move_by(&mut self, code: KeyCode) -> Asked {
        if self.focus == Focus::Detail {
            if let Some(by) = step(code, usize::from(u16::MAX)) {
                let by = by.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
                self.scroll = self.scroll.saturating_add_signed(by);
            }
            return Asked::Nothing;
        }
        let Some(by) = step(code, self.rows().len()) else { return Asked::Nothing };
        self.select_by(by);
        if self.pane == Pane::Open { Asked::Look } else { Asked::Nothing }
    }

    fn select_by(&mut self, by: isize) {
        let place = self.selected_place();
        let rows = self.rows();
        let place = match place {
            Some(place) => place.saturating_add_signed(by).min(rows.len().saturating_sub(1)),
            None if by > PAGE => rows.len().saturating_sub(1),
            None => 0,
        };
        let lane = rows.get(place).map(|row| row.lane.lane);
        if lane.is_some() && lane != self.selected {
            self.selected = lane;
            self.scroll = 0;
        }
    }

    /// What has the focus once help or filter are left.
    fn behind(&self) -> Focus {
        if self.pane == Pane::Open { Focus::Detail } else { Focus::List }
    }
}

/// How far a key moves in a list of `count`.
fn step(code: KeyCode, count: usize) -> Option<isize> {
    let count = isize::try_from(count).unwrap_or(isize::MAX);
    Some(match code {
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::PageUp => -PAGE,
        KeyCode::PageDown => PAGE,
        KeyCode::Home | KeyCode::Char('g') => -count,
        KeyCode::End | KeyCode::Char('G') => count,
        _ => return None,
    })
}

fn sort_key(c: char) -> Option<SortBy> {
    Some(match c {
        'A' => SortBy::Age,
        'L' => SortBy::Left,
        'R' => SortBy::Rate,
        'P' => SortBy::Pid,
        'N' => SortBy::Rank,
        'C' => SortBy::Command,
        'O' => SortBy::Scope,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
