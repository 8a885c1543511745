//! The event log: the threads note what happens, and one thread turns the notes into events.
//!
//! Noting never waits: a note that does not fit into the queue is lost and counted. The end of the server is
//! kept outside the queue ([`EventLog::end`]), so that a full queue cannot lose it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hangwatch::Segment;
use hangwatch_core::watchdog::cascade::Scene;
use hangwatch_core::watchdog::expiry::ExpiredTimer;
use hangwatch_core::watchdog::reap::{Course, Hold, Outcome};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_process::proc::wchan;

use super::cascade::{Cascade, Suspect, SuspectEnd};
use super::case::Case;
use super::control::Ended;
use super::events::limits::{self, LeftOutLines, REPORT_INTERVAL};
use super::events::{Expiry, ExpiryOutcome, Leaving, ServerEvent, TimerFacts, What, WorkerFacts};
use super::segment_file_check::Finding;
use super::worker::{Admitted, Command, LaneFacts};
use hangwatch_evidence::redact::Redactor;
use hangwatch_incident::schema::Incident;
use hangwatch_process::descendants::Removed;
use hangwatch_text::count;

/// Maximum number of queued notes.
const NOTES: usize = 4096;

/// A noted timer. Whatever is slow to find out is left to the log's thread.
#[derive(Clone, Debug)]
pub(super) struct TimerNote {
    pub(super) timer: ExpiredTimer,
    pub(super) worker: Option<Arc<Admitted>>,
    pub(super) owner: Option<Arc<LaneFacts>>,
}

/// A noted suspect.
#[derive(Clone, Debug)]
pub(super) struct SuspectNote {
    pub(super) worker: Arc<Admitted>,
    pub(super) owner: Option<Arc<LaneFacts>>,
}

/// A noted cascade decision.
#[derive(Clone, Debug)]
pub(super) struct CascadeNote {
    pub(super) timer: TimerNote,
    pub(super) scene: Scene,
    pub(super) suspect: Option<SuspectNote>,
    pub(super) course: Course,
}

/// The noted end of a suspect's reap.
#[derive(Clone, Debug)]
pub(super) struct SuspectEndNote {
    pub(super) suspect: SuspectNote,
    pub(super) scope: ScopeId,
    pub(super) timer: Option<TimerNote>,
    pub(super) signal: u8,
    pub(super) outcome: Outcome,
    pub(super) case: Option<Arc<Case>>,
}

/// A note, from which an event is made.
#[derive(Clone, Debug)]
pub(super) enum Note {
    Standby,
    Serving { adopted_lanes: u32 },
    Admitted(Arc<Admitted>),
    Left { worker: Arc<Admitted>, how: Leaving },
    Expiry { timer: TimerNote, signal: u8, late_ns: u64, outcome: Outcome, case: Option<Arc<Case>> },
    Captured(Arc<Incident>),
    Closed { incident: Arc<Incident>, dir: Option<PathBuf> },
    IncidentLost { id: String, error: String },
    Unattestable { timer: TimerNote, late_ns: u64 },
    Warning(TimerNote),
    Overrun(TimerNote),
    EndedLate { timer: TimerNote, late_ns: u64 },
    Held { timer: TimerNote, hold: Hold },
    Cascade(CascadeNote),
    Suspect(SuspectEndNote),
    Signalled { worker: Arc<Admitted>, signal: u8 },
    DescendantsKilled { worker: Arc<Admitted>, removed: Removed },
    DescendantsUnlisted { pid: u32, error: String },
    Resumed { worker: Arc<Admitted>, processes: usize },
    ReapFailed { worker: Arc<Admitted>, error: String },
    ErrorFile { worker: Arc<Admitted>, path: PathBuf, error: Option<String> },
    Limited { max_reaps: u32 },
    LimiterReleased,
    Quarantined { lane: u32, owner: Option<Arc<LaneFacts>> },
    Stalled { length_ns: u64 },
    Admission(String),
    Unprotected(String),
    ScopesFull { scopes: u32 },
    LeftBehind(&'static str),
    File(Finding),
    Panicked(String),
}

/// Where threads note what happens. Clones share one queue.
#[derive(Clone)]
pub(super) struct EventLog {
    /// `None` only wakes the reader, which then checks whether the server has ended.
    notes: SyncSender<Option<Note>>,
    shared: Arc<Shared>,
}

/// The receiving end, which makes the events.
pub(super) struct Reader {
    notes: Receiver<Option<Note>>,
    shared: Arc<Shared>,
}

/// State shared by both ends.
#[derive(Default)]
struct Shared {
    lost: AtomicU64,
    /// Notes that were queued and not yet made into events. The end counts as one.
    open: AtomicU64,
    /// How the server ended. It is set once and cannot be lost.
    ended: OnceLock<Ended>,
}

/// What the reader has received.
enum Next {
    /// A note, or a wake-up to check whether the server has ended.
    Note(Option<Note>),
    /// Nothing for a while.
    Nothing,
    /// All senders were dropped.
    End,
}

/// Creates the event log and its reader.
pub(super) fn event_log() -> (EventLog, Reader) {
    let (sender, notes) = sync_channel(NOTES);
    let shared = Arc::<Shared>::default();
    (EventLog { notes: sender, shared: Arc::clone(&shared) }, Reader { notes, shared })
}

impl EventLog {
    /// Queues a note, or counts it as lost.
    pub(super) fn note(&self, note: Note) {
        // Relaxed: independent counts.
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        if self.notes.try_send(Some(note)).is_err() {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the event log after the notes that are queued. Only the first end counts.
    pub(super) fn end(&self, ended: Ended) {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        if self.shared.ended.set(ended).is_err() {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // If the queue is full, the reader still has notes to take, and checks for the end after each.
        let _ = self.notes.try_send(None);
    }

    /// Returns the number of notes that are not yet events.
    pub(super) fn pending(&self) -> u64 {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Whether every note has become an event.
    pub(super) fn is_drained(&self) -> bool {
        self.pending() == 0
    }
}

impl Reader {
    /// Makes events of the notes until the server has ended. (Threads that hang may never drop their senders.)
    pub(super) fn run(
        self,
        segment: Segment,
        redactor: &Redactor,
        mut log: impl FnMut(ServerEvent),
    ) {
        let segment_name = segment.name();
        let mut tell = |what| log(ServerEvent { segment: segment_name, what });
        let mut counts_told_at = Instant::now();
        loop {
            match self.next(segment_name) {
                Next::Note(note) => self.tell_one(segment, redactor, note, &mut tell),
                Next::Nothing => {}
                Next::End => return,
            }
            if let Some(ended) = self.shared.ended.get() {
                // The queue now holds notes from before the end, and notes of threads that were left behind. Those
                // continue, so at most one full queue is taken.
                for _ in 0..NOTES {
                    let Ok(note) = self.notes.try_recv() else { break };
                    self.tell_one(segment, redactor, note, &mut tell);
                }
                self.counts(segment_name).into_iter().for_each(&mut tell);
                tell(What::Ended(ended.clone()));
                self.shared.open.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            // At most once a second, because a flood of events must not cause further lines.
            if counts_told_at.elapsed() >= REPORT_INTERVAL {
                self.counts(segment_name).into_iter().for_each(&mut tell);
                counts_told_at = Instant::now();
            }
        }
    }

    fn tell_one(
        &self,
        segment: Segment,
        redactor: &Redactor,
        note: Option<Note>,
        tell: &mut impl FnMut(What),
    ) {
        if let Some(note) = note {
            tell(what(segment, redactor, note));
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits for a note; only for a while if there are counts to report.
    fn next(&self, segment: &str) -> Next {
        let has_counts =
            self.shared.lost.load(Ordering::Relaxed) > 0 || limits::is_pending(segment);
        if !has_counts {
            return self.notes.recv().map_or(Next::End, Next::Note);
        }
        match self.notes.recv_timeout(REPORT_INTERVAL) {
            Ok(note) => Next::Note(note),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// Takes the counts of lost events and dropped log lines.
    fn counts(&self, segment: &str) -> Vec<What> {
        let events = self.shared.lost.swap(0, Ordering::Relaxed);
        let lost = (events > 0).then_some(What::Lost { events });
        let left_out =
            limits::take(segment).into_iter().map(|LeftOutLines { kind, lines, lane, pid }| {
                What::LeftOut { kind, lines, lane, pid }
            });
        lost.into_iter().chain(left_out).collect()
    }
}

/// Maximum length of a command line in an event, bytes.
const MOST_ARGUMENT_BYTES: usize = 16 << 10;

/// Returns a worker's pid and redacted command. More people read the log than incidents.
fn worker_facts(worker: &Admitted, redactor: &Redactor) -> WorkerFacts {
    let told = worker.command.get();
    let command = told.map(|Command { name, arguments }| Command {
        name: name.clone(),
        arguments: redactor.arguments(&bounded(arguments)),
    });
    WorkerFacts { pid: worker.pid(), command: command.unwrap_or_default() }
}

/// Returns as many whole arguments as fit. No argument is cut, because redaction might not recognise half of
/// a secret.
fn bounded(arguments: &[String]) -> Vec<String> {
    let mut room = MOST_ARGUMENT_BYTES;
    let has_room = |argument: &&String| {
        let left = room.checked_sub(argument.len() + 1);
        room = left.unwrap_or_default();
        left.is_some()
    };
    let mut kept: Vec<String> = arguments.iter().take_while(has_room).cloned().collect();
    if kept.len() < arguments.len() {
        kept.push(format!("\u{2026} and {}", count(arguments.len() - kept.len(), "more argument")));
    }
    kept
}

pub(super) fn timer_facts(segment: Segment, redactor: &Redactor, note: &TimerNote) -> TimerFacts {
    let detail = note.timer.detail;
    TimerFacts {
        lane: note.timer.lane,
        timer: note.timer.timer,
        worker: note.worker.as_deref().map(|worker| worker_facts(worker, redactor)),
        owner: note.owner.as_deref().cloned().unwrap_or_default(),
        scope: timer_scope_name(segment, note.timer.lane, note.timer.timer, detail.scope),
        kind: detail.kind,
        acquired_at_ns: detail.acquired_at.0,
        deadline_ns: note.timer.deadline.0,
    }
}

fn timer_scope_name(segment: Segment, lane: u32, timer: u16, scope: ScopeId) -> String {
    let name = segment.words().scope_name(lane, timer, scope);
    name.map_or_else(|| "(unknown)".to_owned(), |name| name.as_str().to_owned())
}

fn scope_name(segment: Segment, scope: ScopeId) -> String {
    let name = segment.words().names().name(scope);
    name.map_or_else(|| "(unknown)".to_owned(), |name| name.as_str().to_owned())
}

fn suspect_facts(redactor: &Redactor, note: &SuspectNote) -> Suspect {
    let owner = note.owner.as_deref().cloned().unwrap_or_default();
    Suspect { worker: worker_facts(&note.worker, redactor), owner }
}

pub(super) fn cascade(segment: Segment, redactor: &Redactor, note: &CascadeNote) -> Cascade {
    Cascade {
        timer: timer_facts(segment, redactor, &note.timer),
        scope: scope_name(segment, note.scene.scope),
        scene: note.scene,
        suspect: note.suspect.as_ref().map(|suspect| suspect_facts(redactor, suspect)),
        course: note.course,
    }
}

fn suspect_end(segment: Segment, redactor: &Redactor, note: &SuspectEndNote) -> SuspectEnd {
    SuspectEnd {
        suspect: suspect_facts(redactor, &note.suspect),
        scope: scope_name(segment, note.scope),
        timer: note.timer.as_ref().map(|timer| timer_facts(segment, redactor, timer)),
        signal: note.signal,
        outcome: note.outcome,
        wait_channel: wait_channel(&note.suspect.worker, note.outcome),
        incident: note.case.as_ref().map(|case| case.id()),
    }
}

/// Returns the kernel function in which an unkillable worker sleeps.
fn wait_channel(worker: &Admitted, outcome: Outcome) -> Option<String> {
    let is_unkillable = outcome == Outcome::Unkillable;
    is_unkillable.then(|| wchan(worker.process.pid).ok().flatten()).flatten()
}

fn what(segment: Segment, redactor: &Redactor, note: Note) -> What {
    let timer = |note: &TimerNote| Box::new(timer_facts(segment, redactor, note));
    let facts = |worker: &Admitted| worker_facts(worker, redactor);
    match note {
        Note::Standby => What::Standby,
        Note::Serving { adopted_lanes } => What::Serving { adopted_lanes },
        Note::Admitted(worker) => What::Admitted(facts(&worker)),
        Note::Left { worker, how } => What::Left { worker: facts(&worker), how },
        Note::Expiry { timer, signal, late_ns, outcome, case } => {
            let wait_channel =
                timer.worker.as_ref().and_then(|worker| wait_channel(worker, outcome));
            What::Expired(Box::new(Expiry {
                timer: timer_facts(segment, redactor, &timer),
                signal,
                late_ns,
                outcome: ExpiryOutcome::Reap(outcome),
                wait_channel,
                incident: case.map(|case| case.id()),
            }))
        }
        Note::Unattestable { timer, late_ns } => What::Expired(Box::new(Expiry {
            timer: timer_facts(segment, redactor, &timer),
            signal: 0,
            late_ns,
            outcome: ExpiryOutcome::Unattestable,
            wait_channel: None,
            incident: None,
        })),
        Note::Captured(incident) => What::Captured(incident),
        Note::Closed { incident, dir } => What::Closed { incident, dir },
        Note::IncidentLost { id, error } => What::IncidentLost { id, error },
        Note::Warning(note) => What::Warning(timer(&note)),
        Note::Overrun(note) => What::Overrun(timer(&note)),
        Note::EndedLate { timer: note, late_ns } => {
            What::EndedLate { timer: timer(&note), late_ns }
        }
        Note::Held { timer: note, hold } => What::Held { timer: timer(&note), hold },
        Note::Cascade(note) => What::Cascade(Box::new(cascade(segment, redactor, &note))),
        Note::Suspect(note) => What::Suspect(Box::new(suspect_end(segment, redactor, &note))),
        Note::Signalled { worker, signal } => What::Signalled { worker: facts(&worker), signal },
        Note::DescendantsKilled { worker, removed } => {
            What::DescendantsKilled { worker: facts(&worker), removed }
        }
        Note::DescendantsUnlisted { pid, error } => What::DescendantsUnlisted { pid, error },
        Note::Resumed { worker, processes } => What::Resumed { worker: facts(&worker), processes },
        Note::ReapFailed { worker, error } => What::ReapFailed { worker: facts(&worker), error },
        Note::ErrorFile { worker, path, error } => {
            What::ErrorFile { worker: facts(&worker), path, error }
        }
        Note::Limited { max_reaps } => What::Limited { max_reaps },
        Note::LimiterReleased => What::LimiterReleased,
        Note::Quarantined { lane, owner } => {
            What::Quarantined { lane, facts: owner.as_deref().cloned().unwrap_or_default() }
        }
        Note::Stalled { length_ns } => What::Stalled { length_ns },
        Note::Admission(error) => What::AdmissionFailed { error },
        Note::Unprotected(error) => What::Unprotected { error },
        Note::ScopesFull { scopes } => What::ScopesFull { scopes },
        Note::LeftBehind(who) => What::LeftBehind { who },
        Note::File(finding) => What::File(finding),
        Note::Panicked(message) => What::Panicked { message },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use hangwatch::{CreateOptions, Geometry};

    use super::*;

    /// With no room for it, the end was lost, and a program waited for the log forever.
    #[test]
    fn end_is_reported_last_even_if_the_queue_is_full() {
        let name = format!("event-log-{}", std::process::id());
        let geometry = Geometry { lanes: 1, ..Geometry::default() };
        let segment =
            Segment::create(&name, CreateOptions { geometry, ..CreateOptions::default() }).unwrap();
        Segment::remove(&name).unwrap();
        let (event_log, reader) = event_log();
        for _ in 0..NOTES + 10 {
            event_log.note(Note::LimiterReleased);
        }
        event_log.end(Ended::Stopped);
        event_log.end(Ended::Failed);
        assert_eq!(event_log.pending(), NOTES as u64 + 1);
        let (sender, told) = channel();
        // This end outlives the reader's run, as that of a thread that hangs does.
        let run = std::thread::spawn(move || {
            reader.run(segment, &Redactor::default(), |event| sender.send(event.what).unwrap());
        });
        let told: Vec<What> = told.iter().collect();
        run.join().unwrap();
        let lost = told.iter().any(|what| matches!(what, What::Lost { events: 10 }));
        assert!(lost, "lost notes are counted");
        assert!(matches!(told.last(), Some(What::Ended(Ended::Stopped))), "{:?}", told.last());
        assert_eq!(told.len(), NOTES + 2);
        assert!(event_log.is_drained());
    }

    #[test]
    fn command_line_is_bounded_without_cutting_an_argument() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(bounded(&words(&["python", "train.py"])), words(&["python", "train.py"]));
        let long = "x".repeat(MOST_ARGUMENT_BYTES);
        let kept = bounded(&words(&["python", &long, "a"]));
        assert_eq!(kept, words(&["python", "\u{2026} and 2 more arguments"]));
        let many = vec!["x".repeat(100); 100_000];
        let bytes: usize = bounded(&many).iter().map(String::len).sum();
        assert!(bytes <= MOST_ARGUMENT_BYTES + 100, "{bytes}");
        assert!(bounded(&vec![String::new(); 1_000_000]).len() <= MOST_ARGUMENT_BYTES + 1);
    }
}
