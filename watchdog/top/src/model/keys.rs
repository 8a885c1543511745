//! What each key does to the model, and what it asks of whoever runs the view.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::row::{Direction, SortBy};
use super::{Asked, Focus, Idle, Model, Motion, Pane, Place};

/// Rows a page key goes by.
const PAGE: isize = 10;

impl Model {
    /// Does what a key means here.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Asked {
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
                self.press_in_help(key.code);
                Asked::Nothing
            }
            (Focus::Filter, _) => self.press_in_filter(key.code),
            (_, Place::Choosing(_)) => self.press_in_choice(key.code),
            (Focus::List | Focus::Detail, _) => self.press_in_view(key.code),
        }
    }

    fn open_help(&mut self) {
        (self.focus, self.help_scroll) = (Focus::Help, 0);
    }

    /// Scrolls it; any other key leaves it.
    fn press_in_help(&mut self, code: KeyCode) {
        match step(code, usize::from(u16::MAX)) {
            Some(by) => self.help_scroll = scrolled(self.help_scroll, by),
            None => self.focus = self.behind(),
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
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.open_help(),
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
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.open_help(),
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

    pub(super) fn close_pane(&mut self) {
        self.pane = Pane::Closed;
        self.scroll = 0;
        if self.focus == Focus::Detail {
            self.focus = Focus::List;
        }
    }

    fn move_by(&mut self, code: KeyCode) -> Asked {
        if self.focus == Focus::Detail {
            if let Some(by) = step(code, usize::from(u16::MAX)) {
                self.scroll = scrolled(self.scroll, by);
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

/// A scroll moved by so many lines; the drawing puts it back into what there is.
fn scrolled(scroll: u16, by: isize) -> u16 {
    scroll.saturating_add_signed(by.clamp(i16::MIN.into(), i16::MAX.into()) as i16)
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
