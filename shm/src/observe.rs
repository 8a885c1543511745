//! Observation: what anyone may read of a segment, without disturbing anyone.
//!
//! Every lane is read between two looks at its owner word, every timer between two looks at its word,
//! so each is consistent in itself. Everything read is a claim of whoever wrote it, except the
//! watchdog, whom the kernel names.

use std::time::Duration;

use crossbeam_utils::Backoff;
use hangwatch_core::atomic::{Ordering, fence};
use hangwatch_core::wire::clock::ClockKind;
use hangwatch_core::wire::lane::{LaneState, TimerKind, TimerSignal};
use hangwatch_core::wire::meeting::{Group, GroupId, Meeting, Members};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::segment::{Counter, Segment as Words};
use hangwatch_core::wire::stats::{Counts, ScopeStats};
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timeout::{Clocks, Overruns};
use hangwatch_core::wire::timer::{TimerState, TimerWord};

use crate::error::OpenError;
use crate::segment::Segment;
use crate::sys::Pid;
use crate::sys::clock;
use crate::sys::lock::Holder;

/// How often a picture that changes under the reader is taken again.
const TRIES: u32 = 8;

/// A picture of a segment at one time.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Observation {
    /// The segment's name.
    pub segment: String,
    /// When the picture was taken, `CLOCK_MONOTONIC`.
    pub at: Nanos,
    /// The watchdog that serves it.
    pub watchdog: WatchdogView,
    /// Every lane that somebody owns, in the order of the lanes.
    pub lanes: Vec<LaneView>,
    /// The number of lanes there are.
    pub lane_count: u32,
    /// Every scope that was ever interned, with its counts over all lanes.
    pub scopes: Vec<ScopeView>,
    /// How many scope names found no room and were counted as `(other)`.
    pub scopes_overflowed: u64,
    /// The watchdog's counters, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// The serving watchdog, by the kernel's word and its own.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WatchdogView {
    /// Who holds the watchdog's lock; `Free` where nobody serves the segment.
    pub holder: Holder,
    /// When its last tick ended; 0 where there never was one.
    pub last_tick_at: Nanos,
    /// Whether the kill limiter holds.
    pub limited: bool,
}

/// One lane and its owner.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LaneView {
    /// The lane's index.
    pub lane: u32,
    /// The pid its owner claims, in the owner's PID namespace.
    pub pid: u32,
    /// The inode of the PID namespace it claims to be in: in another than one's own, its pid is not
    /// one's own's.
    pub pid_namespace: u64,
    /// The thread it claims to be.
    pub tid: u32,
    /// Where the lane is in its life.
    pub state: Option<LaneState>,
    /// Whether the watchdog has quarantined it.
    pub quarantined: bool,
    /// The thread's name.
    pub thread: String,
    /// The job.
    pub job: String,
    /// The host, as the owner's namespace names it.
    pub host: String,
    /// The rank in the job.
    pub rank: Option<u32>,
    /// The number of ranks, 0 where unknown.
    pub world_size: u32,
    /// The rank on its host.
    pub local_rank: Option<u32>,
    /// The clock its owner uses.
    pub clock: ClockKind,
    /// When it attached.
    pub attached_at: Nanos,
    /// Records its owner has written since the segment was made.
    pub records: u64,
    /// The timers that are not idle, the innermost (last acquired) first.
    pub timers: Vec<TimerView>,
    /// The last meeting of each group that its owner has entered.
    pub attended: Vec<AttendedView>,
}

/// The last meeting of a group that a thread has entered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttendedView {
    /// The group's name.
    pub group: String,
    /// The group's number in the segment: groups of one name with other members differ in it.
    pub group_id: u16,
    /// The meeting's number in the group.
    pub sequence: u64,
}

/// The meeting that a timer was armed in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MeetingView {
    /// The group's name.
    pub group: String,
    /// The group's number in the segment: groups of one name with other members differ in it.
    pub group_id: u16,
    /// The ranks that take part, as claimed: `all ranks`, `ranks 0-7`.
    pub members: Members,
    /// The meeting's number in the group.
    pub sequence: u64,
}

/// One timer that is not idle.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimerView {
    /// Its index in the lane.
    pub timer: u16,
    /// What it is.
    pub state: TimerState,
    /// Its scope's name.
    pub scope: String,
    /// The task of its thread that acquired it (asyncio's, say), not 0; 0 where none is known. Timers of
    /// two tasks are not nested.
    pub task: u32,
    /// What kind of deadline.
    pub kind: TimerKind,
    /// What is to be done at the deadline.
    pub signal: TimerSignal,
    /// How long ago it was acquired or last kicked.
    pub age: Duration,
    /// The time it has from then on.
    pub timeout: Duration,
    /// The time left, negative once overdue; `None` while paused.
    pub left_ns: Option<i64>,
    /// The meeting it was armed in, if it is one.
    pub meeting: Option<MeetingView>,
}

/// One scope's counts over all lanes that are and were.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScopeView {
    /// Its name.
    pub name: String,
    /// Its counts.
    pub counts: Counts,
    /// The clocks that its workers used.
    pub clocks: Clocks,
    /// How long it may take where its acquire brings no time, by the watchdog's deadlines file.
    pub timeout: Option<Duration>,
    /// What ran beyond that, as far as a watchdog has looked for it.
    pub overruns: Overruns,
}

impl Default for WatchdogView {
    /// None.
    fn default() -> Self {
        WatchdogView { holder: Holder::Free, last_tick_at: Nanos(0), limited: false }
    }
}

impl Default for TimerView {
    /// An armed guard without a name or time; for tests of what shows views.
    fn default() -> Self {
        TimerView {
            timer: 0,
            state: TimerState::Armed,
            scope: String::new(),
            task: 0,
            kind: TimerKind::Guard,
            signal: TimerSignal::Default,
            age: Duration::ZERO,
            timeout: Duration::ZERO,
            left_ns: None,
            meeting: None,
        }
    }
}

impl Segment {
    /// Opens the segment `name` (if this process has not) and takes a picture of it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn observe(name: &str) -> Result<Observation, OpenError> {
        Ok(Segment::open(name)?.picture())
    }

    /// Takes a picture of the segment.
    pub fn picture(&self) -> Observation {
        let words = self.words();
        let scopes = scope_views(&words);
        Observation { scopes, ..glance(self.name(), &words, watchdog_holder(*self)) }
    }
}

/// A picture without the scopes' counts.
pub(crate) fn glance(name: &str, words: &Words<'_>, holder: Holder) -> Observation {
    let at = Nanos(clock::monotonic_ns());
    let watchdog = words.watchdog();
    Observation {
        segment: name.to_owned(),
        at,
        watchdog: WatchdogView {
            holder,
            last_tick_at: Nanos(watchdog.last_tick_at().load(Ordering::Relaxed)),
            limited: watchdog.limited().load(Ordering::Relaxed) != 0,
        },
        lanes: (0..words.lanes_used()).filter_map(|lane| lane_view(words, lane, at)).collect(),
        lane_count: words.geometry().lanes,
        scopes: Vec::new(),
        scopes_overflowed: words.scopes_overflowed().load(Ordering::Relaxed),
        counters: counters(words),
    }
}

/// The watchdog's counters, by name.
pub(crate) fn counters(words: &Words<'_>) -> Vec<(&'static str, u64)> {
    let count = |counter| words.counter(counter).load(Ordering::Relaxed);
    Counter::ALL.iter().map(|&(counter, name)| (name, count(counter))).collect()
}

/// One lane's own counts, in the order in which its threads first used the scopes.
pub(crate) fn lane_scopes(words: &Words<'_>, lane: u32) -> Vec<ScopeView> {
    if lane >= words.geometry().lanes {
        return Vec::new();
    }
    let stats = words.lane(lane).stats().iter().map(ScopeStats);
    let view =
        |stats: ScopeStats<'_>| Some(scope_view(words, ScopeId(stats.scope()?), stats.snapshot()));
    stats.filter_map(view).collect()
}

/// Who serves the segment. The kernel keeps silent about a process's own locks: this one knows.
pub(crate) fn watchdog_holder(segment: Segment) -> Holder {
    let own = std::process::id();
    match segment.watchdog().unwrap_or(Holder::Free) {
        Holder::Free if segment.serves_itself() => {
            Pid::from_raw(own.cast_signed()).map_or(Holder::Free, Holder::Process)
        }
        holder => holder,
    }
}

fn lane_view(words: &Words<'_>, index: u32, at: Nanos) -> Option<LaneView> {
    let lane = words.lane(index);
    let (mut view, backoff) = (None, Backoff::new());
    for _ in 0..TRIES {
        let owner = lane.owner();
        if matches!(owner.state(), Some(LaneState::Free | LaneState::Detached)) {
            return None;
        }
        let identity = lane.identity();
        let minus_one = |number: u64| number.checked_sub(1).map(|number| number as u32);
        let seen = LaneView {
            lane: index,
            pid: owner.pid(),
            pid_namespace: identity.pid_namespace,
            tid: identity.tid as u32,
            state: owner.state(),
            quarantined: lane.is_quarantined(),
            thread: lane.thread_name(),
            job: lane.job(),
            host: lane.host(),
            rank: minus_one(identity.rank),
            world_size: identity.world_size as u32,
            local_rank: minus_one(identity.local_rank),
            clock: ClockKind::from_bits(identity.clock),
            attached_at: Nanos(identity.attached_at),
            records: lane.head().load(Ordering::Relaxed),
            timers: timer_views(words, index, at),
            attended: attended(words, index),
        };
        view = Some(seen);
        if lane.owner() == owner {
            break;
        }
        backoff.snooze();
    }
    view
}

fn timer_views(words: &Words<'_>, lane: u32, at: Nanos) -> Vec<TimerView> {
    let view = |index| timer_with_start(words, lane, index, at);
    let mut seen: Vec<(Nanos, TimerView)> =
        (0..words.lane(lane).timers().len()).filter_map(view).collect();
    seen.sort_by_key(|(acquired_at, view)| (std::cmp::Reverse(*acquired_at), view.timer));
    seen.into_iter().map(|(_, view)| view).collect()
}

/// One timer, unless it is idle.
pub(crate) fn timer_view(
    words: &Words<'_>,
    lane: u32,
    index: usize,
    at: Nanos,
) -> Option<TimerView> {
    timer_with_start(words, lane, index, at).map(|(_, view)| view)
}

fn timer_with_start(
    words: &Words<'_>,
    lane_index: u32,
    index: usize,
    at: Nanos,
) -> Option<(Nanos, TimerView)> {
    let lane = words.lane(lane_index);
    let backoff = Backoff::new();
    for _ in 0..TRIES {
        let word: TimerWord = lane.timer(index)?.load();
        let state = word.state()?;
        if state == TimerState::Idle {
            return None;
        }
        let Some(detail) = lane.read_detail(index, word) else {
            backoff.snooze();
            continue;
        };
        let deadline = word.deadline().begins();
        let paused = state == TimerState::Paused;
        let view = TimerView {
            timer: index as u16,
            state,
            scope: timer_scope_name(words, lane_index, index as u16, detail.scope),
            task: lane.task(index),
            kind: detail.kind,
            signal: detail.signal,
            age: Duration::from_nanos(at.since(detail.acquired_at)),
            timeout: Duration::from_nanos(deadline.since(detail.acquired_at)),
            meeting: detail.meeting.and_then(|meeting| meeting_view(words, meeting)),
            left_ns: (!paused).then(|| deadline.0.cast_signed().wrapping_sub(at.0.cast_signed())),
        };
        return Some((detail.acquired_at, view));
    }
    None
}

/// A meeting with its group's name; `None` where there is no such group.
fn meeting_view(words: &Words<'_>, meeting: Meeting) -> Option<MeetingView> {
    let Group { name, members } = words.groups().get(meeting.group)?;
    let Meeting { group: GroupId(group_id), sequence } = meeting;
    Some(MeetingView { group: name.as_str().to_owned(), group_id, members, sequence })
}

/// The last meetings that the owner of a lane has entered.
pub(crate) fn attended(words: &Words<'_>, lane: u32) -> Vec<AttendedView> {
    let views = words.lane(lane).all_attended().flatten().filter_map(|meeting| {
        let MeetingView { group, group_id, sequence, .. } = meeting_view(words, meeting)?;
        Some(AttendedView { group, group_id, sequence })
    });
    views.collect()
}

/// The name of the scope that a timer carries, or what there is of one.
pub(crate) fn timer_scope_name(words: &Words<'_>, lane: u32, timer: u16, scope: ScopeId) -> String {
    words
        .scope_name(lane, timer, scope)
        .map_or_else(|| format!("(scope {})", scope.0), |name| name.as_str().to_owned())
}

/// The name of a scope, or what there is of one.
pub(crate) fn scope_name(words: &Words<'_>, scope: ScopeId) -> String {
    words
        .names()
        .name(scope)
        .map_or_else(|| format!("(scope {})", scope.0), |name| name.as_str().to_owned())
}

/// Sums every scope's total and lanes; taken again where the watchdog was folding a lane meanwhile.
pub(crate) fn scope_views(words: &Words<'_>) -> Vec<ScopeView> {
    let (mut counts, backoff) = (Vec::new(), Backoff::new());
    for _ in 0..TRIES {
        let before = words.folds();
        counts = sum_counts(words);
        // Acquire: pairs with the Release fence of the fold's `commit`.
        fence(Ordering::Acquire);
        if before.is_some() && before == words.folds() {
            break;
        }
        backoff.snooze();
    }
    let named = |(index, counts): (usize, Counts)| {
        let scope = ScopeId(index as u16);
        words.names().name(scope)?;
        (counts.acquired > 0 || index > 0).then(|| scope_view(words, scope, counts))
    };
    counts.into_iter().enumerate().filter_map(named).collect()
}

fn scope_view(words: &Words<'_>, scope: ScopeId, counts: Counts) -> ScopeView {
    let timeout = words.timeout(scope);
    ScopeView {
        name: scope_name(words, scope),
        counts,
        clocks: timeout.clocks(),
        timeout: timeout.get_ns().map(Duration::from_nanos),
        overruns: timeout.overruns(),
    }
}

fn sum_counts(words: &Words<'_>) -> Vec<Counts> {
    let taken = words.names().taken();
    let mut counts: Vec<Counts> =
        (0..taken).map(|scope| ScopeStats(words.total(ScopeId(scope as u16))).snapshot()).collect();
    for index in 0..words.lanes_used() {
        for block in words.lane(index).stats() {
            let stats = ScopeStats(block);
            if let Some(sum) = stats.scope().and_then(|scope| counts.get_mut(usize::from(scope))) {
                sum.add(&stats.snapshot());
            }
        }
    }
    counts
}
