//! The incidents that the hook is told of: those that were captured; where nobody captures evidence,
//! or what was captured does not come, what the server's events say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::facts::{now, timer_of, worker_of};
use super::running::Call;
use crate::incident::schema::{Decision, Ending, Incident, VERSION};
use crate::server::cascade::{Cascade, Suspect, SuspectEnd};
use crate::server::events::{Expiry, ExpiryOutcome, What, WorkerFacts};
use crate::server::{LaneFacts, ServerEvent};

/// How long after the last word about a worker its story is complete: each of its timers has an event
/// of its own.
const QUIET: Duration = Duration::from_millis(30);
/// Workers that something was decided about, and that have not come to their end.
const UNDECIDED_AT_MOST: usize = 1024;

/// Whether an event is part of a story.
pub(super) fn is_of_use(what: &What) -> bool {
    matches!(
        what,
        What::Expired(_)
            | What::Suspect(_)
            | What::Cascade(_)
            | What::Signalled { .. }
            | What::Captured(_)
            | What::Closed { .. }
    )
}

/// Captured incidents whose stories are not told yet at most.
const CAPTURED_AT_MOST: usize = 1024;

/// The stories that are being told, each about one worker.
#[derive(Debug, Default)]
pub(super) struct Stories {
    open: BTreeMap<Key, Story>,
    decisions: BTreeMap<u32, Vec<Decision>>,
    /// What was captured, by the incident's name.
    captured: BTreeMap<String, Captured>,
    /// How long a story waits for what is captured, and for its place.
    patience: Duration,
}

#[derive(Debug)]
struct Captured {
    incident: Arc<Incident>,
    stands: Stands,
}

/// Whether anything is still to come of what is captured.
#[derive(Debug)]
enum Stands {
    Open,
    /// It is not; this is its directory, where it is kept.
    Closed(Option<PathBuf>),
}

/// Whether there are more events to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Events {
    Open,
    Over,
}

/// Whom a story is about: a process, or a lane whose owner nobody has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Process(u32),
    Lane(u32),
}

#[derive(Debug)]
struct Story {
    segment: &'static str,
    incident: Incident,
    last_word: Instant,
}

impl Stories {
    /// None yet. Each waits so long at most for what is captured of it.
    pub(super) fn new(patience: Duration) -> Stories {
        Stories { patience, ..Stories::default() }
    }

    /// Whether nothing is left to be told.
    pub(super) fn are_told(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn hear(&mut self, event: &ServerEvent) {
        match &event.what {
            What::Expired(expiry) => self.expired(event.segment, expiry),
            What::Suspect(end) => self.suspect_ended(event.segment, end),
            What::Cascade(cascade) => self.decided(cascade),
            What::Signalled { worker, signal } => {
                let why = format!("signal {signal} was sent");
                self.decide(worker.pid, "signalled", why);
            }
            What::Captured(incident) => self.captured(incident, Stands::Open),
            What::Closed { incident, dir } => {
                self.captured(incident, Stands::Closed(dir.clone()));
            }
            _ => {}
        }
    }

    fn captured(&mut self, incident: &Arc<Incident>, stands: Stands) {
        if self.captured.len() >= CAPTURED_AT_MOST {
            self.captured.pop_first(); // names begin with their time
        }
        let captured = Captured { incident: Arc::clone(incident), stands };
        self.captured.insert(incident.id.clone(), captured);
    }

    /// The calls for the stories that are complete by now.
    pub(super) fn complete(&mut self, now: Instant, events: Events) -> Vec<Call> {
        let is_complete = |story: &Story| {
            let since = now.duration_since(story.last_word);
            let is_closed = |it: &Captured| matches!(it.stands, Stands::Closed(_));
            let is_there = story.incident.id.is_empty()
                || self.captured.get(&story.incident.id).is_some_and(is_closed);
            // Whatever becomes of the evidence, the hook is run.
            let is_awaited = !is_there && events == Events::Open && since < self.patience;
            since >= QUIET && !is_awaited
        };
        let keys: Vec<Key> =
            self.open.iter().filter(|(_, story)| is_complete(story)).map(|(key, _)| *key).collect();
        let stories: Vec<Story> = keys.iter().filter_map(|key| self.open.remove(key)).collect();
        stories.into_iter().map(|story| self.call(story)).collect()
    }

    fn call(&mut self, story: Story) -> Call {
        let Story { segment, incident, .. } = story;
        match self.captured.remove(&incident.id) {
            None => call(segment, Arc::new(incident), None),
            Some(Captured { incident: captured, stands }) => {
                let dir = if let Stands::Closed(dir) = stands { dir } else { None };
                // How it ended is known here, also where that has not come to the evidence.
                let captured = match captured.ending {
                    Some(_) => captured,
                    None => Arc::new(Incident { ending: incident.ending, ..(*captured).clone() }),
                };
                call(segment, captured, dir)
            }
        }
    }

    fn decided(&mut self, cascade: &Cascade) {
        if let Some(worker) = &cascade.timer.worker {
            self.decide(worker.pid, cascade.name(), cascade.sentence());
        }
    }

    fn decide(&mut self, pid: u32, what: &str, why: String) {
        if self.decisions.len() >= UNDECIDED_AT_MOST {
            self.decisions.clear(); // of workers that have released since
        }
        let at = now();
        let decision = Decision { at, what: what.to_owned(), why };
        self.decisions.entry(pid).or_default().push(decision);
    }

    fn expired(&mut self, segment: &'static str, expiry: &Expiry) {
        let ending = Ending {
            at: now(),
            outcome: expiry.outcome.name().to_owned(),
            signal: expiry.signal,
            late_ns: expiry.late_ns,
            wait_channel: expiry.wait_channel.clone(),
        };
        let timer = &expiry.timer;
        let story = self.story(segment, timer.worker.as_ref(), &timer.owner, timer.lane);
        story.is_of(expiry.incident.as_ref());
        story.incident.timers.push(timer_of(timer, expiry.outcome));
        // Of several timers, the first has the earliest deadline.
        story.incident.ending.get_or_insert(ending);
    }

    fn suspect_ended(&mut self, segment: &'static str, end: &SuspectEnd) {
        let Suspect { worker, owner } = &end.suspect;
        self.decide(worker.pid, "reaped_first", end.sentence());
        let lane = end.timer.as_ref().map_or(0, |timer| timer.lane);
        let outcome = ExpiryOutcome::Reap(end.outcome);
        let ending = Ending {
            at: now(),
            outcome: outcome.name().to_owned(),
            signal: end.signal,
            late_ns: 0,
            wait_channel: end.wait_channel.clone(),
        };
        let story = self.story(segment, Some(worker), owner, lane);
        story.is_of(end.incident.as_ref());
        story.incident.timers.extend(end.timer.as_ref().map(|timer| timer_of(timer, outcome)));
        story.incident.ending.get_or_insert(ending);
        story.incident.suspect = Some(crate::incident::schema::Suspect {
            pid: Some(worker.pid),
            rank: owner.rank,
            scope: end.scope.clone(),
            why: end.sentence(),
        });
    }

    fn story(
        &mut self,
        segment: &'static str,
        worker: Option<&WorkerFacts>,
        owner: &LaneFacts,
        lane: u32,
    ) -> &mut Story {
        let pid = worker.map(|worker| worker.pid);
        let decisions = pid.and_then(|pid| self.decisions.remove(&pid)).unwrap_or_default();
        let story =
            self.open.entry(pid.map_or(Key::Lane(lane), Key::Process)).or_insert_with(|| {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let worker = worker_of(worker, owner);
                let at = now();
                let (segment_name, version) = (segment.to_owned(), VERSION);
                let incident = Incident {
                    version,
                    host,
                    segment: segment_name,
                    at,
                    worker,
                    ..Incident::default()
                };
                Story { segment, incident, last_word: Instant::now() }
            });
        story.incident.decisions.extend(decisions);
        story.last_word = Instant::now();
        story
    }
}

impl Story {
    /// Notes the name of what is captured of it.
    fn is_of(&mut self, incident: Option<&String>) {
        self.incident
            .id
            .extend(incident.filter(|_| self.incident.id.is_empty()).map(String::as_str));
    }
}

fn call(segment: &'static str, incident: Arc<Incident>, dir: Option<PathBuf>) -> Call {
    let first = incident.timers.first();
    let suspected_in = incident.suspect.as_ref().map(|suspect| suspect.scope.clone());
    let scope = first.map(|timer| timer.scope.clone()).or(suspected_in).unwrap_or_default();
    Call {
        segment,
        pid: incident.worker.pid,
        scope,
        rank: incident.worker.rank,
        outcome: incident.ending.as_ref().map(|end| end.outcome.clone()).unwrap_or_default(),
        dir,
        incident,
    }
}
