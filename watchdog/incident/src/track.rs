//! Tracks: the spans of each thread of a worker, from its flight records and its open timers.
//!
//! A flight record is a window and may have gaps, so the begin or the end of a span may be unknown. An open
//! timer is known from the timer itself, with or without a record. [`schema`] has the records; the report's
//! chart and the trace draw the tracks.
//!
//! [`schema`]: crate::schema

use std::collections::{BTreeMap, HashMap};

use crate::schema::{Lane, Record, Timer};

/// What one thread did: the spans of all its lanes, the earliest begin first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// The thread, as its own PID namespace numbers it.
    pub tid: u64,
    /// Its name.
    pub thread: String,
    /// Its lanes.
    pub lanes: Vec<u32>,
    /// From here on something is known, `CLOCK_MONOTONIC` ns.
    pub from_ns: u64,
    /// Its spans.
    pub spans: Vec<Span>,
    /// What happened at a point in time, the earliest first.
    pub marks: Vec<Mark>,
    /// Records that are known to be lost.
    pub records_lost: u64,
}

/// One acquire of a scope, until its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The scope.
    pub scope: String,
    /// The lane of its timer.
    pub lane: u32,
    /// Its timer.
    pub timer: u16,
    /// When it was acquired; absent where that record is lost.
    pub begin_ns: Option<u64>,
    /// How it ended.
    pub end: End,
    /// Its last known deadline.
    pub deadline_ns: Option<u64>,
    /// Whether the watchdog condemned it.
    pub condemned: bool,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was released in time.
    Released(u64),
    /// It was released after the watchdog had condemned it.
    TooLate(u64),
    /// It was given up armed.
    Abandoned(u64),
    /// That record is lost: it had ended by then.
    LostBefore(u64),
    /// It had not ended when last seen.
    Open,
}

impl End {
    /// When; `None` of an open span.
    pub fn at_ns(self) -> Option<u64> {
        match self {
            End::Released(at) | End::TooLate(at) | End::Abandoned(at) | End::LostBefore(at) => {
                Some(at)
            }
            End::Open => None,
        }
    }
}

/// Something that happened at a point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When, `CLOCK_MONOTONIC` ns.
    pub at_ns: u64,
    /// What: `rearm`, `pause` or `resume`.
    pub what: String,
    /// The scope; of a pause, its reason.
    pub scope: String,
}

/// A timer: its lane, its index there.
type Key = (u32, u16);

/// The ended spans of one timer, the first end first.
#[derive(Default)]
struct Ended {
    /// When each began, where that is known, and ended.
    times: Vec<(Option<u64>, u64)>,
    /// Where the last one is whose begin is lost.
    last_without_begin: Option<usize>,
}

impl Ended {
    fn push(&mut self, span: &Span) {
        let Some(end) = span.end.at_ns() else { return };
        if span.begin_ns.is_none() {
            self.last_without_begin = Some(self.times.len());
        }
        self.times.push((span.begin_ns, end));
    }

    /// Whether one of them had begun by this time, or at a time that is lost, and ended after it.
    fn has_one_over(&self, at_ns: u64) -> bool {
        let first = self.times.partition_point(|(_, end)| *end <= at_ns);
        // Spans of one timer follow each other: those after the first begin later.
        let has_begun = self
            .times
            .get(first)
            .is_some_and(|(begin, _)| begin.is_none_or(|begin| begin <= at_ns));
        has_begun || self.last_without_begin.is_some_and(|last| last >= first)
    }
}

/// The tracks of one worker, from all its lanes: a guard that has moved is released in the ring of
/// whoever released it. The timers were looked at from `seen_at_ns` on.
pub fn tracks(lanes: &[Lane], seen_at_ns: u64) -> Vec<Track> {
    let mut spans = spans(lanes, seen_at_ns);
    let mut tracks: Vec<Track> = Vec::new();
    for lane in lanes {
        let own: Vec<Span> = spans.remove(&lane.lane).unwrap_or_default();
        let is_of = |track: &Track| lane.tid != 0 && track.tid == lane.tid;
        let track = if let Some(index) = tracks.iter().position(is_of) {
            &mut tracks[index]
        } else {
            let (tid, thread) = (lane.tid, lane.thread.clone());
            tracks.push(Track { tid, thread, from_ns: u64::MAX, ..Track::default() });
            tracks.last_mut().expect("it was just pushed")
        };
        track.lanes.push(lane.lane);
        track.records_lost += lane.records_lost;
        track.spans.extend(own);
        track.marks.extend(lane.records.iter().filter_map(mark));
        let known = lane.records.iter().map(|record| record.at_ns);
        track.from_ns = known.chain([track.from_ns]).min().unwrap_or(u64::MAX);
    }
    for track in &mut tracks {
        track.finish();
    }
    tracks
}

impl Track {
    fn finish(&mut self) {
        self.marks.sort_by_key(|mark| mark.at_ns);
        let begins = self.spans.iter().filter_map(|span| span.begin_ns);
        self.from_ns = begins.chain([self.from_ns]).min().unwrap_or(u64::MAX);
        if self.from_ns == u64::MAX {
            self.from_ns = 0;
        }
        let from = self.from_ns;
        // Of two that begin at once, the longer one is the outer one.
        self.spans.sort_by_key(|span| {
            let end = span.end.at_ns().unwrap_or(u64::MAX);
            (span.begin_ns.unwrap_or(from), std::cmp::Reverse(end))
        });
    }

    /// When something was last begun or ended here, as far as is known.
    pub fn last_ns(&self) -> Option<u64> {
        let ends = self.spans.iter().filter_map(|span| span.end.at_ns().or(span.begin_ns));
        ends.chain(self.marks.iter().map(|mark| mark.at_ns)).max()
    }
}

fn mark(record: &Record) -> Option<Mark> {
    matches!(&*record.operation, "rearm" | "pause" | "resume").then(|| Mark {
        at_ns: record.at_ns,
        what: record.operation.clone(),
        scope: record.scope.clone(),
    })
}

/// The spans of each lane's timers.
fn spans(lanes: &[Lane], seen_at_ns: u64) -> BTreeMap<u32, Vec<Span>> {
    let mut open: BTreeMap<Key, Span> = BTreeMap::new();
    let mut ended: BTreeMap<u32, Vec<Span>> = BTreeMap::new();
    let mut ended_of: HashMap<Key, Ended> = HashMap::new();
    let mut records: Vec<&Record> = lanes.iter().flat_map(|lane| &lane.records).collect();
    // Stable: records of one ring that are as old as each other keep their order.
    records.sort_by_key(|record| record.at_ns);
    for record in records {
        if let Some(span) = apply(record, &mut open) {
            ended_of.entry((span.lane, span.timer)).or_default().push(&span);
            ended.entry(span.lane).or_default().push(span);
        }
    }
    for timer in lanes.iter().flat_map(|lane| &lane.timers) {
        // The records may have been read after the timers, and know its end.
        let known = ended_of.get(&(timer.lane, timer.timer));
        if known.is_some_and(|known| known.has_one_over(timer.acquired.monotonic_ns)) {
            continue;
        }
        let span = match open.remove(&(timer.lane, timer.timer)) {
            Some(span) if span.scope == timer.scope => with_truth(&span, timer),
            // The timer is the truth, and it has gone on to another scope.
            _ => from_timer(timer),
        };
        ended.entry(span.lane).or_default().push(span);
    }
    // What the records leave open and no timer holds has begun since the timers were looked at; else it
    // has ended, and the record of that is lost or being written.
    for (_, mut span) in open {
        let begin_ns = span.begin_ns.unwrap_or(0);
        span.end = if begin_ns > seen_at_ns { End::Open } else { End::LostBefore(begin_ns) };
        ended.entry(span.lane).or_default().push(span);
    }
    ended
}

/// Applies a record to the open spans; gives the span that it ends.
fn apply(record: &Record, open: &mut BTreeMap<Key, Span>) -> Option<Span> {
    let key = (record.lane, record.timer);
    let at = record.at_ns;
    let began = |begin_ns| Span {
        scope: record.scope.clone(),
        lane: record.lane,
        timer: record.timer,
        begin_ns,
        end: End::Open,
        deadline_ns: record.deadline_ns,
        condemned: false,
    };
    let end = match &*record.operation {
        "release" => End::Released(at),
        "too_late" => End::TooLate(at),
        "abandon" => End::Abandoned(at),
        "acquire" => {
            let before = open.insert(key, began(Some(at)))?;
            return Some(Span { end: End::LostBefore(at), ..before });
        }
        "rearm" => {
            let span = open.entry(key).or_insert_with(|| began(None));
            span.deadline_ns = record.deadline_ns.or(span.deadline_ns);
            return None;
        }
        // A pause's record has its reason for a scope, so no span can be made of it.
        _ => return None,
    };
    let span = open.remove(&key).unwrap_or_else(|| began(None));
    Some(Span { end, condemned: matches!(end, End::TooLate(_)), ..span })
}

fn with_truth(span: &Span, timer: &Timer) -> Span {
    let truth = from_timer(timer);
    Span { begin_ns: span.begin_ns.or(truth.begin_ns), ..truth }
}

fn from_timer(timer: &Timer) -> Span {
    Span {
        scope: timer.scope.clone(),
        lane: timer.lane,
        timer: timer.timer,
        begin_ns: Some(timer.acquired.monotonic_ns),
        end: End::Open,
        deadline_ns: timer.deadline.as_ref().map(|deadline| deadline.monotonic_ns),
        condemned: matches!(&*timer.state, "condemned" | "reported"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Moment;

    fn record(at_ns: u64, operation: &str, timer: u16, scope: &str) -> Record {
        let operation = operation.to_owned();
        Record { at_ns, operation, timer, scope: scope.to_owned(), ..Record::default() }
    }

    fn lane(records: Vec<Record>, timers: Vec<Timer>) -> Lane {
        Lane { tid: 7, records, timers, ..Lane::default() }
    }

    fn open(timer: u16, scope: &str, acquired: u64, state: &str) -> Timer {
        let acquired = Moment { monotonic_ns: acquired, ..Moment::default() };
        let (scope, state) = (scope.to_owned(), state.to_owned());
        Timer { timer, scope, state, acquired, ..Timer::default() }
    }

    /// The spans of one lane as (scope, begin, end).
    fn check(lane: Lane, expected: &[(&str, Option<u64>, End)]) {
        let tracks = tracks(&[lane], 100);
        let spans: Vec<_> =
            tracks[0].spans.iter().map(|s| (&*s.scope, s.begin_ns, s.end)).collect();
        assert_eq!(spans, expected);
    }

    #[test]
    fn a_release_ends_what_its_acquire_began() {
        let records = vec![
            record(1, "acquire", 0, "step"),
            record(2, "acquire", 1, "read"),
            record(5, "release", 1, "read"),
            record(9, "release", 0, "step"),
        ];
        check(
            lane(records, Vec::new()),
            &[("step", Some(1), End::Released(9)), ("read", Some(2), End::Released(5))],
        );
    }

    #[test]
    fn a_window_may_begin_in_the_midst_of_a_span_and_lose_its_end() {
        let records = vec![
            record(3, "release", 0, "step"),
            record(4, "acquire", 1, "read"),
            record(8, "acquire", 1, "read"),
        ];
        check(
            lane(records, vec![open(1, "read", 8, "armed")]),
            &[
                ("step", None, End::Released(3)),
                ("read", Some(4), End::LostBefore(8)),
                ("read", Some(8), End::Open),
            ],
        );
    }

    #[test]
    fn the_open_timers_are_the_truth() {
        let records = vec![record(3, "acquire", 0, "step"), record(4, "acquire", 1, "gone")];
        let timers = vec![open(2, "old", 1, "condemned"), open(0, "step", 3, "armed")];
        check(
            lane(records, timers),
            &[
                ("old", Some(1), End::Open),
                ("step", Some(3), End::Open),
                ("gone", Some(4), End::LostBefore(4)),
            ],
        );
    }

    #[test]
    fn records_that_are_younger_than_the_timers_know_better() {
        let records = vec![
            record(1, "acquire", 0, "step"),
            record(101, "release", 0, "step"),
            record(102, "acquire", 1, "next"),
        ];
        check(
            lane(records, vec![open(0, "step", 1, "armed")]),
            &[("step", Some(1), End::Released(101)), ("next", Some(102), End::Open)],
        );
    }

    #[test]
    fn a_guard_that_moved_is_ended_by_whoever_released_it() {
        let mut there = lane(vec![record(9, "release", 0, "step")], Vec::new());
        (there.lane, there.tid) = (1, 8);
        let tracks = tracks(&[lane(vec![record(1, "acquire", 0, "step")], Vec::new()), there], 100);
        assert_eq!(tracks[0].spans[0].end, End::Released(9));
        assert_eq!(tracks[1].spans, []);
    }

    #[test]
    fn lanes_of_one_thread_are_one_track() {
        let mut second = lane(Vec::new(), vec![Timer { lane: 1, ..open(0, "more", 2, "armed") }]);
        second.lane = 1;
        let tracks = tracks(&[lane(Vec::new(), vec![open(0, "step", 1, "armed")]), second], 100);
        assert_eq!(tracks.len(), 1);
        assert_eq!((tracks[0].lanes.len(), tracks[0].spans.len()), (2, 2));
    }

    /// Each of many timers was compared with each span of its lane.
    #[test]
    fn a_timer_is_compared_with_its_own_spans_only() {
        let (timers, rounds) = (2_000_u16, 20);
        let mut records = Vec::new();
        for round in 0..rounds {
            for timer in 0..timers {
                let at = (round * u64::from(timers) + u64::from(timer)) * 2;
                records.push(record(at, "acquire", timer, "step"));
                records.push(record(at + 1, "release", timer, "step"));
            }
        }
        let timers = (0..timers).map(|timer| open(timer, "next", u64::MAX / 2, "armed"));
        let lane = lane(records, timers.collect());
        let tracks = tracks(&[lane], u64::MAX);
        assert_eq!(tracks[0].spans.len(), 2_000 * 21);
        assert_eq!(tracks[0].spans.iter().filter(|span| span.end == End::Open).count(), 2_000);
    }

    #[test]
    fn a_timer_that_ended_while_it_was_looked_at_is_no_open_span() {
        let ended = |begin_ns, end| Span {
            begin_ns,
            end: End::Released(end),
            ..from_timer(&Timer::default())
        };
        let mut known = Ended::default();
        assert!(!known.has_one_over(0));
        known.push(&ended(Some(1), 5));
        known.push(&ended(Some(6), 9));
        for (at, expected) in [(0, false), (1, true), (4, true), (5, false), (6, true), (9, false)]
        {
            assert_eq!(known.has_one_over(at), expected, "{at}");
        }
        known.push(&ended(None, 20));
        assert!(known.has_one_over(5) && known.has_one_over(19) && !known.has_one_over(20));
    }
}
