//! A row: one lane as the live view shows, sorts and filters it.

use std::cmp::{Ordering, Reverse};

use hangwatch::{LaneView, TimerView};
use hangwatch_core::wire::timer::TimerState;

/// One lane. Its texts are as the worker gave them; [`super::text`] makes them harmless.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) lane: LaneView,
    /// The command behind the pid, where that is to be seen from here.
    pub(super) command: String,
    /// Records a second since the last picture; `None` in the first.
    pub(super) rate: Option<f64>,
    /// The newest incident of its process, or of its rank.
    pub(super) incident: Option<Incident>,
}

/// What a row tells of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incident {
    /// How long ago.
    pub(super) ago_ns: u64,
    /// How it ended: `reaped`, `reported`, ...
    pub(super) outcome: String,
}

/// Where a lane stands with its deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// No timer is armed.
    Idle,
    /// All have time.
    Calm,
    /// One has used four fifths of its allowance.
    Near,
    /// One is overdue, condemned or reported.
    Overdue,
}

impl Row {
    /// The timer its row tells of: the longest overdue, or the row of an outer scope that is overdue
    /// would read as if a healthy inner one were; else the innermost, what the lane does now.
    pub(super) fn told(&self) -> Option<&TimerView> {
        let timers = &self.lane.timers;
        let overdue = timers.iter().filter(|timer| urgency(timer) == Urgency::Overdue);
        overdue.min_by_key(|timer| timer.left_ns.unwrap_or(0)).or(timers.first())
    }

    /// By its most urgent timer: a fresh inner scope hides no outer one.
    pub(super) fn urgency(&self) -> Urgency {
        self.lane.timers.iter().map(urgency).max().unwrap_or(Urgency::Idle)
    }

    /// The least time left, ns, over all its timers that run.
    fn least_left_ns(&self) -> Option<i64> {
        self.lane.timers.iter().filter_map(|timer| timer.left_ns).min()
    }

    fn age_ns(&self) -> Option<u64> {
        Some(ns(self.told()?.age))
    }

    /// Whether `wanted` (in lower case) stands anywhere in it.
    pub(super) fn matches(&self, wanted: &str) -> bool {
        let lane = &self.lane;
        let rank = lane.rank.map(|rank| format!("rank {rank}")).unwrap_or_default();
        let own = [&self.command, &lane.thread, &lane.job, &rank, &lane.pid.to_string()];
        own.into_iter()
            .chain(lane.timers.iter().map(|timer| &timer.scope))
            .any(|text| text.to_lowercase().contains(wanted))
    }
}

/// Where one timer stands.
pub(super) fn urgency(timer: &TimerView) -> Urgency {
    match (timer.state, timer.left_ns) {
        (TimerState::Condemned | TimerState::Reported, _) => Urgency::Overdue,
        (_, None) => Urgency::Calm,
        (_, Some(left)) if left < 0 => Urgency::Overdue,
        _ if used(timer) >= 0.8 => Urgency::Near,
        _ => Urgency::Calm,
    }
}

/// How much of its allowance a timer has used: 1 at its deadline.
pub(super) fn used(timer: &TimerView) -> f64 {
    if timer.timeout.is_zero() {
        return 1.0;
    }
    timer.age.as_secs_f64() / timer.timeout.as_secs_f64()
}

pub(super) fn ns(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SortBy {
    /// The age of the scope that is told of, the oldest first.
    Age,
    /// The least time left of any timer, the most urgent first.
    Left,
    /// Records a second, the quietest first.
    Rate,
    /// The pid.
    Pid,
    /// The rank.
    Rank,
    /// The command.
    Command,
    /// The scope that is told of.
    Scope,
}

impl SortBy {
    /// All of them, in the order of the key that goes through them.
    pub(super) const ALL: [SortBy; 7] = [
        SortBy::Age,
        SortBy::Left,
        SortBy::Rate,
        SortBy::Pid,
        SortBy::Rank,
        SortBy::Command,
        SortBy::Scope,
    ];

    /// Its name on the screen.
    pub(super) fn name(self) -> &'static str {
        match self {
            SortBy::Age => "age",
            SortBy::Left => "left",
            SortBy::Rate => "rate",
            SortBy::Pid => "pid",
            SortBy::Rank => "rank",
            SortBy::Command => "command",
            SortBy::Scope => "scope",
        }
    }

    /// The next one.
    pub(super) fn next(self) -> SortBy {
        let place = SortBy::ALL.iter().position(|by| *by == self).unwrap_or(0);
        SortBy::ALL[(place + 1) % SortBy::ALL.len()]
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let scope = |row: &Row| row.told().map(|timer| timer.scope.clone());
        match self {
            SortBy::Age => Reverse(a.age_ns()).cmp(&Reverse(b.age_ns())),
            SortBy::Left => absent_last(a.least_left_ns(), b.least_left_ns()),
            SortBy::Rate => a.rate.unwrap_or(0.0).total_cmp(&b.rate.unwrap_or(0.0)),
            SortBy::Pid => a.lane.pid.cmp(&b.lane.pid),
            SortBy::Rank => absent_last(a.lane.rank, b.lane.rank),
            SortBy::Command => a.command.cmp(&b.command),
            SortBy::Scope => absent_last(scope(a), scope(b)),
        }
    }
}

fn absent_last<T: Ord>(a: Option<T>, b: Option<T>) -> Ordering {
    (a.is_none(), a).cmp(&(b.is_none(), b))
}

/// Which way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// As said at [`SortBy`].
    Usual,
    /// The other way.
    Reversed,
}

impl Direction {
    pub(super) fn turned(self) -> Direction {
        match self {
            Direction::Usual => Direction::Reversed,
            Direction::Reversed => Direction::Usual,
        }
    }
}

/// Sorts rows; equals stay in the order of their lanes, so that rows do not jump about.
pub(super) fn sort(rows: &mut [&Row], by: SortBy, direction: Direction) {
    rows.sort_by(|a, b| {
        let order = by.compare(a, b);
        let order = if direction == Direction::Reversed { order.reverse() } else { order };
        order.then(a.lane.lane.cmp(&b.lane.lane))
    });
}

#[cfg(test)]
mod tests {
    use super::super::sample::{row, timer};
    use super::*;

    fn lanes(rows: &[Row], by: SortBy, direction: Direction) -> Vec<u32> {
        let mut sorted: Vec<&Row> = rows.iter().collect();
        sort(&mut sorted, by, direction);
        sorted.iter().map(|row| row.lane.lane).collect()
    }

    #[test]
    fn the_oldest_come_first_and_equals_stay() {
        let rows = [
            row(0, "b", &[timer("x", 3, 10)]),
            row(1, "a", &[]),
            row(2, "d", &[timer("z", 9, 100), timer("outer", 99, 100)]),
            row(3, "c", &[timer("y", 3, 4)]),
        ];
        let usual = |by| lanes(&rows, by, Direction::Usual);
        assert_eq!(usual(SortBy::Age), [2, 0, 3, 1], "idle lanes last");
        assert_eq!(usual(SortBy::Left), [2, 3, 0, 1], "by whichever timer is due first");
        assert_eq!(usual(SortBy::Command), [1, 0, 3, 2]);
        assert_eq!(usual(SortBy::Scope), [0, 3, 2, 1]);
        assert_eq!(lanes(&rows, SortBy::Age, Direction::Reversed), [1, 0, 3, 2]);
        let mut by = SortBy::Age;
        for expected in SortBy::ALL {
            assert_eq!(by, expected);
            by = by.next();
        }
        assert_eq!(by, SortBy::Age);
    }

    #[test]
    fn a_row_tells_of_the_longest_overdue_else_of_the_innermost() {
        let check = |timers: &[TimerView], scope: Option<&str>| {
            let row = row(0, "a", timers);
            assert_eq!(row.told().map(|timer| &*timer.scope), scope);
        };
        check(&[], None);
        let (inner, outer) = (timer("inner", 1, 10), timer("outer", 9, 10));
        check(&[inner.clone(), outer], Some("inner"));
        let (late, later) = (timer("late", 12, 10), timer("later", 40, 10));
        check(&[inner, late.clone(), later], Some("later"));
        let mut condemned = late;
        (condemned.state, condemned.left_ns) = (TimerState::Condemned, None);
        check(&[timer("inner", 1, 10), condemned], Some("late"));
    }

    #[test]
    fn an_overdue_outer_scope_shows_behind_a_fresh_inner_one() {
        let check = |timers: &[TimerView], urgency| {
            assert_eq!(row(0, "a", timers).urgency(), urgency);
        };
        check(&[], Urgency::Idle);
        check(&[timer("inner", 1, 10)], Urgency::Calm);
        check(&[timer("inner", 8, 10)], Urgency::Near);
        check(&[timer("inner", 1, 10), timer("outer", 12, 10)], Urgency::Overdue);
        let mut condemned = timer("x", 1, 10);
        condemned.state = TimerState::Condemned;
        check(&[condemned], Urgency::Overdue);
        let mut paused = timer("x", 9, 10);
        (paused.left_ns, paused.state) = (None, TimerState::Paused);
        check(&[paused], Urgency::Calm);
    }

    #[test]
    fn a_filter_looks_everywhere() {
        let row = row(3, "Train.py", &[timer("forward", 1, 2), timer("Epoch", 1, 2)]);
        for wanted in ["train", "forward", "epoch", "rank 3", "thread-3", "jobs", "1003"] {
            assert!(row.matches(wanted), "{wanted}");
        }
        assert!(!row.matches("backward"));
    }
}
