//! The source of the data: finds the segment to show, and observes it.
//!
//! A segment may appear and disappear at any time: each update searches for it again if its name is gone.

use std::cell::RefCell;
use std::collections::HashMap;

use hangwatch::sys::file::OpenError as FileError;
use hangwatch::sys::lock::Holder;
use hangwatch::sys::{Pid, host};
use hangwatch::{LaneView, Nanos, Observation, Observer, OpenError, Segment};
use hangwatch_process::proc;

use super::model::{Choice, Detail, Place, Seen, Watchdog};
use super::row::{Row, ns};
use hangwatch_http::state::name_of;
use hangwatch_process::bounded::Bounded;
use hangwatch_process::sigbus;
use hangwatch_text::plain_words;

/// The most records of a lane that are shown.
const RECORDS: usize = 200;
/// A watchdog that has not ticked for this many intervals is stuck.
const STUCK_INTERVALS: u64 = 10;
/// The least time without a tick that counts as stuck, ns.
const STUCK_NS: u64 = 2_000_000_000;

/// The source of observations.
pub(super) struct Source {
    /// The wanted segment; `None` for any.
    wanted: Option<String>,
    ask: Ask,
    watched: Option<Watched>,
    /// The PID namespace of this process: pids of another one cannot be looked up.
    pid_namespace: u64,
    /// Command lines; reading one may block, because it is in the process's memory.
    arguments: RefCell<Bounded<Pid, Option<Vec<String>>>>,
}

/// Whether to ask which segment to show, if there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    IfSeveral,
    Always,
}

struct Watched {
    observer: Observer,
    /// Dropped before the mapping.
    guard: Option<sigbus::Guard>,
    before: HashMap<u32, Before>,
}

/// A lane in the last observation.
struct Before {
    attached_at: Nanos,
    records: u64,
    at: Nanos,
    command: String,
}

impl Source {
    pub(super) fn new(wanted: Option<String>) -> Source {
        // If /proc does not say, no pid is looked up.
        let pid_namespace = host::pid_namespace().unwrap_or(0);
        let (ask, watched, arguments) = (Ask::IfSeveral, None, RefCell::default());
        Source { wanted, ask, watched, pid_namespace, arguments }
    }

    /// Switches to this segment.
    pub(super) fn watch(&mut self, name: String) {
        self.watched = None;
        (self.wanted, self.ask) = (Some(name), Ask::IfSeveral);
    }

    /// Lets the user choose a segment.
    pub(super) fn choose(&mut self) {
        self.watched = None;
        (self.wanted, self.ask) = (None, Ask::Always);
    }

    /// Observes the segment, with the details of one lane.
    pub(super) fn look(&mut self, detail: Option<u32>) -> Place {
        if self.watched.as_ref().is_some_and(Watched::is_gone) {
            self.watched = None;
        }
        if self.watched.is_none()
            && let Some(place) = self.find()
        {
            return place;
        }
        let Some(watched) = &mut self.watched else { return Place::Waiting(String::new()) };
        match watched.observer.glance() {
            Ok(seen) => {
                let mut seen = watched.see(seen, self.pid_namespace);
                seen.detail = detail.and_then(|lane| self.detail(lane, &seen.rows));
                Place::Watching(Box::new(seen))
            }
            Err(error) => {
                self.watched = None;
                Place::Waiting(format!("{error}."))
            }
        }
    }

    /// The details of one lane.
    pub(super) fn detail(&self, lane: u32, rows: &[Row]) -> Option<Detail> {
        let observer = &self.watched.as_ref()?.observer;
        let row = rows.iter().find(|row| row.lane.lane == lane)?;
        let pid = is_here(&row.lane, self.pid_namespace).then(|| pid(&row.lane)).flatten();
        let arguments = pid.and_then(|pid| {
            self.arguments.borrow_mut().read(pid, move || proc::cmdline(pid).ok().flatten())
        });
        Some(Detail {
            lane,
            arguments: plain_words(&arguments.flatten().unwrap_or_default()).into_owned(),
            scopes: observer.lane_scopes(lane).ok()?,
            records: observer.recent_records(lane, RECORDS).ok()?,
            at_ns: hangwatch::sys::clock::monotonic_ns(),
        })
    }

    /// Opens a segment, or returns what to show instead.
    fn find(&mut self) -> Option<Place> {
        let name = match &self.wanted {
            Some(name) => name.clone(),
            None => match self.only_one() {
                Ok(name) => name,
                Err(place) => return Some(place),
            },
        };
        match Observer::open(&name) {
            Ok(observer) => {
                // Without the guard, a truncated segment ends `top`.
                let guard = sigbus::Guard::over(observer.range()).ok();
                self.watched = Some(Watched { observer, guard, before: HashMap::new() });
                None
            }
            Err(OpenError::File { source: FileError::NotFound { .. }, .. }) => {
                let text = format!("The segment {name:?} does not exist yet. Waiting for it.");
                Some(Place::Waiting(text))
            }
            Err(error) => Some(Place::Waiting(format!("{error}. Trying again."))),
        }
    }

    /// The only segment, else what to show instead.
    fn only_one(&self) -> Result<String, Place> {
        let names = Segment::list().unwrap_or_default();
        let choices: Vec<Choice> = names.iter().filter_map(|name| choice(name)).collect();
        match (&choices[..], self.ask) {
            ([], _) => Err(Place::Waiting(
                "No readable segment. Waiting for one: start `hangwatch run`.".to_owned(),
            )),
            ([only], Ask::IfSeveral) => Ok(only.name.clone()),
            _ => Err(Place::Choosing(choices)),
        }
    }
}

/// A segment as a choice; `None` if it is another user's, or removed.
fn choice(name: &str) -> Option<Choice> {
    let seen = match Observer::open(name).and_then(|observer| observer.glance()) {
        Ok(seen) => seen,
        Err(error) if is_not_for_us(&error) => return None,
        Err(error) => {
            return Some(Choice { name: name.to_owned(), about: error.to_string() });
        }
    };
    let watchdog = match seen.watchdog.holder {
        Holder::Process(pid) => format!("watchdog {pid}"),
        Holder::Unseen | Holder::Description => "watchdog in another PID namespace".to_owned(),
        Holder::Free => "no watchdog".to_owned(),
    };
    let about = format!("{watchdog}, {} of {} lanes", seen.lanes.len(), seen.lane_count);
    Some(Choice { name: name.to_owned(), about })
}

fn is_not_for_us(error: &OpenError) -> bool {
    let OpenError::File { source, .. } = error else { return false };
    matches!(
        source,
        FileError::NotFound { .. }
            | FileError::PermissionDenied { .. }
            | FileError::ForeignOwner { .. }
    )
}

impl Watched {
    /// Whether the segment was removed, replaced or truncated.
    fn is_gone(&self) -> bool {
        !self.observer.is_current() || self.guard.as_ref().is_some_and(sigbus::Guard::was_hit)
    }

    fn see(&mut self, seen: Observation, pid_namespace: u64) -> Seen {
        let watchdog = watchdog(&seen, ns(self.observer.max_interval()));
        let mut before = std::mem::take(&mut self.before);
        let rows = seen.lanes.into_iter().map(|lane| {
            let before = before.remove(&lane.lane);
            let before = before.filter(|before| before.attached_at == lane.attached_at);
            let rate = before.as_ref().and_then(|before| rate(before, &lane, seen.at));
            let known = before.map(|before| before.command).filter(|command| command != "-");
            let command = known.unwrap_or_else(|| {
                let name = is_here(&lane, pid_namespace).then(|| name_of(lane.pid)).flatten();
                name.unwrap_or_else(|| "-".to_owned())
            });
            let now = Before {
                attached_at: lane.attached_at,
                records: lane.records,
                at: seen.at,
                command: command.clone(),
            };
            self.before.insert(lane.lane, now);
            Row { lane, command, rate, incident: None }
        });
        Seen {
            segment: seen.segment,
            watchdog,
            lane_count: seen.lane_count,
            rows: rows.collect(),
            counters: seen.counters,
            detail: None,
        }
    }
}

/// Records per second between two observations.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no last digit")]
fn rate(before: &Before, lane: &LaneView, at: Nanos) -> Option<f64> {
    let seconds = at.since(before.at) as f64 / 1e9;
    let records = lane.records.checked_sub(before.records)? as f64;
    (seconds > 0.0).then(|| records / seconds)
}

fn watchdog(seen: &Observation, interval_ns: u64) -> Watchdog {
    let pid = match seen.watchdog.holder {
        Holder::Free => return Watchdog::None,
        Holder::Unseen | Holder::Description => return Watchdog::Unseen,
        Holder::Process(pid) => pid.as_raw_pid().unsigned_abs(),
    };
    if seen.watchdog.limited {
        return Watchdog::Braked(pid);
    }
    let silent_ns = seen.at.since(seen.watchdog.last_tick_at);
    let is_stuck = silent_ns > (interval_ns * STUCK_INTERVALS).max(STUCK_NS);
    // Before its first tick the time is 0.
    if is_stuck && seen.watchdog.last_tick_at != Nanos(0) {
        Watchdog::Stuck(pid, silent_ns)
    } else {
        Watchdog::Serving(pid)
    }
}

fn is_here(lane: &LaneView, pid_namespace: u64) -> bool {
    lane.pid_namespace == pid_namespace
}

fn pid(lane: &LaneView) -> Option<Pid> {
    Pid::from_raw(i32::try_from(lane.pid).ok()?)
}

#[cfg(test)]
mod tests {
    use hangwatch::CreateOptions;

    use super::*;

    #[test]
    fn a_segment_is_found_and_given_up_when_removed() {
        let name = format!("test-top-source-{}", std::process::id());
        let mut source = Source::new(Some(name.clone()));
        let waits = |place: &Place| matches!(place, Place::Waiting(why) if why.contains("Waiting"));
        assert!(waits(&source.look(None)));
        Segment::create(&name, CreateOptions::default()).unwrap();
        let worker = hangwatch::Worker::attach(name.as_str()).unwrap();
        let minute = std::time::Duration::from_mins(1);
        let _guard = worker.expires("forward", minute).unwrap();
        let Place::Watching(seen) = source.look(Some(0)) else { panic!("it is there") };
        assert_eq!(seen.watchdog, Watchdog::None);
        assert_eq!((seen.rows.len(), seen.rows[0].rate), (1, None));
        assert_ne!(seen.rows[0].command, "-");
        let detail = seen.detail.unwrap();
        assert_eq!((detail.records.len(), &*detail.scopes[0].name), (1, "forward"));
        assert!(detail.arguments.contains("hangwatch"), "{}", detail.arguments);
        let Place::Watching(seen) = source.look(None) else { panic!("it is there") };
        assert_eq!(seen.rows[0].rate, Some(0.0), "nothing was recorded since");
        Segment::remove(&name).unwrap();
        assert!(waits(&source.look(Some(0))));
    }

    #[test]
    fn a_silent_watchdog_is_stuck() {
        let check = |last_tick_at: u64, braked: bool, expected: &Watchdog| {
            let holder = Holder::Process(Pid::from_raw(7).unwrap());
            let mut seen = Observation::default();
            (seen.at, seen.lane_count) = (Nanos(100_000_000_000), 1);
            (seen.watchdog.holder, seen.watchdog.limited) = (holder, braked);
            seen.watchdog.last_tick_at = Nanos(last_tick_at);
            assert_eq!(watchdog(&seen, 100_000_000), *expected);
        };
        check(99_900_000_000, false, &Watchdog::Serving(7));
        check(0, false, &Watchdog::Serving(7));
        check(97_000_000_000, false, &Watchdog::Stuck(7, 3_000_000_000));
        check(99_900_000_000, true, &Watchdog::Braked(7));
    }
}
