//! The model: what the live view shows and how, changed by pictures and keys and by nothing else.
//!
//! It knows neither terminal nor segment: `keys` says what a key does, [`source`](super::source) takes the pictures,
//! [`draw`](super::draw) shows the model.

use hangwatch::{RecordView, ScopeView};

use super::row::{self, Direction, Row, SortBy, Urgency};

mod keys;

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
    /// The help, by its first line shown.
    pub(super) help_scroll: u16,
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
            help_scroll: 0,
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
}

#[cfg(test)]
mod tests;
