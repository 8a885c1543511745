//! `hangwatch exec`: a deadline for any command, with all that it starts.
//!
//! The deadline is a notify-only timer of this process, so that `status` and the segment's watchdog
//! see it; this process enforces it itself, whatever becomes of the watchdog. The command gets the
//! segment's name, so that it may attach and set finer deadlines of its own.

use std::panic::{self, AssertUnwindSafe};
use std::process::{self, ExitStatus};
use std::time::Duration;

use hangwatch::sys::clock;
use hangwatch::{SEGMENT_VARIABLE, Segment, Signal as TimerSignal, WorkerOptions};
use hangwatch_core::wire::time::{Nanos, duration_ns};
use rustix::process::Signal;

use super::run::Removed;
use super::segments::{self, Origin, Wanted};
use super::{Failure, OneLine, complain};
use crate::cli::Exec;
use crate::cli::value::ReapSignal;
use crate::exit::Exit;
use hangwatch_evidence::capture::MayStop;
use hangwatch_evidence::exec::case::{Case, End, NotKept, Passed};
use hangwatch_log::outlet;
use hangwatch_process::child::{Event, Until};
use hangwatch_process::inherit::Inheritance;
use hangwatch_process::relay::{PASSED_ON, Relay};
use hangwatch_process::running_time::RunningTime;
use hangwatch_process::start::{Bond, Terms};
use hangwatch_process::tree::removal::{Removal, Survival, Survivor};
use hangwatch_process::tree::{Rest, SpawnError, Tree};
use hangwatch_server::events::{What, emit};
use hangwatch_server::{OwnProcess, Server, ServerEvent, ServerOptions};
use hangwatch_text::ms;

/// The least time a signal that can be caught is given, as the watchdog gives it too.
const LEAST_GRACE: Duration = Duration::from_millis(100);

/// How long after the end of a command that was told to end its processes may take to end, unnamed.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Processes that a line of the log names at most.
const NAMED: usize = 16;

/// Lanes of a segment of exec's own: for the command's threads, should it attach.
const OWN_LANES: u32 = 64;

pub(super) fn perform(options: &Exec) -> Result<Exit, Failure> {
    // Nobody asked for a watchdog's log: only what went wrong.
    // A full standard error must not hold up the deadline, nor the end.
    outlet::open()?;
    panic::set_hook(Box::new(|panic| complain(&format_args!("a bug in hangwatch: {panic}"))));
    hangwatch_log::init(options.log.format, tracing::Level::WARN)?;
    let relay = Relay::install(&PASSED_ON)?;
    // Before a watchdog of its own raises any limit.
    let inheritance = Inheritance::of_this_process();
    match &options.segment {
        Some(name) => {
            let segment = Segment::open(name)?;
            under(options, &relay, segment, &inheritance)
        }
        None => alone(options, &relay, &inheritance),
    }
}

/// With a segment and a watchdog of its own.
fn alone(options: &Exec, relay: &Relay, inheritance: &Inheritance) -> Result<Exit, Failure> {
    let wanted = Wanted { lanes: Some(OWN_LANES), ..Wanted::default() };
    let segment = segments::make_own("exec", wanted)?;
    let _removed = Removed { name: segment.name(), origin: Origin::Made };
    let policy = super::run::policy(&options.reap, options.reap.signal);
    // Of a worker that the command is or starts, with deadlines of its own.
    let (evidence, _) = options.evidence.options();
    let how =
        ServerOptions { policy, own_process: OwnProcess::Exclude, evidence, ..Default::default() };
    // What becomes of exec's own deadline, it says itself.
    let told = |event: &ServerEvent| match &event.what {
        What::Expired(expiry) => {
            expiry.timer.worker.as_ref().is_none_or(|w| w.pid != process::id())
        }
        _ => true,
    };
    let log = move |event: ServerEvent| {
        if told(&event) {
            emit(&event);
        }
    };
    let server = Server::start(segment, how, log)?;
    let done = under(options, relay, segment, inheritance);
    server.stop();
    done
}

/// In a segment that somebody serves, or nobody: the deadline holds all the same.
fn under(
    options: &Exec,
    relay: &Relay,
    segment: Segment,
    inheritance: &Inheritance,
) -> Result<Exit, Failure> {
    let scope = scope_of(options);
    let worker = WorkerOptions::new().signal(TimerSignal::NotifyOnly).attach_to(segment)?;
    let mut command = process::Command::new(&options.command[0]);
    command.args(&options.command[1..]).env(SEGMENT_VARIABLE, segment.name());
    let bond = if may_signal(options) { Bond::Dies } else { Bond::Loose };
    let terms = Terms { inheritance: Some(inheritance.clone()), bond, announcement: None };
    let clock = RunningTime::new();
    let began_at = clock.now();
    let guard = worker.expires(&scope, options.deadline)?;
    let mut tree = match Tree::spawn_on(&mut command, &terms) {
        Ok(tree) => tree,
        Err(SpawnError::Start(error)) => {
            complain(&OneLine(&error));
            return Ok(Exit::from(&error));
        }
        Err(error) => return Err(error.into()),
    };
    let watch = || {
        let mut watch = Watch { options, relay, segment, scope: &scope, began_at, clock };
        watch.until_the_end(&mut tree, || {
            guard.release();
        })
    };
    // A bug must not leave the command without a deadline.
    let watched = panic::catch_unwind(AssertUnwindSafe(watch));
    let failed = !matches!(watched, Ok(Ok(_)));
    if failed && !tree.has_ended() {
        end_unwatched(options, &mut tree);
    }
    // The panic has been told by its hook.
    watched.unwrap_or(Ok(Exit::Panicked))
}

/// Removes a command that nobody watches any more.
fn end_unwatched(options: &Exec, tree: &mut Tree) {
    if !may_signal(options) {
        let pid = tree.pid();
        complain(&format_args!("pid {pid}, the command, goes on, and nobody watches it any more"));
        return;
    }
    match tree.kill_all(Signal::KILL, Duration::ZERO) {
        Ok(removal) => complain_of(&removal.survivors),
        Err(error) => complain(&format_args!("the command could not be removed: {error}")),
    }
}

fn complain_of(survivors: &[Survivor]) {
    for survivor in survivors {
        complain(&format_args!("could not be removed: {survivor}"));
    }
}

fn may_signal(options: &Exec) -> bool {
    options.reap.signal != ReapSignal::NotifyOnly
}

/// What is watched, and by which deadline.
struct Watch<'w> {
    options: &'w Exec,
    relay: &'w Relay,
    segment: Segment,
    scope: &'w str,
    /// Before the command was started, by `clock`.
    began_at: Nanos,
    clock: RunningTime,
}

impl Watch<'_> {
    fn until_the_end(&mut self, tree: &mut Tree, release: impl FnOnce()) -> Result<Exit, Failure> {
        let Some(status) = self.until_due(tree)? else { return self.deadline_passed(tree) };
        if let Some(error) = tree.start_error() {
            release();
            complain(&OneLine(&error));
            return Ok(Exit::from(&error));
        }
        if tree.ended_as_told() {
            if !may_signal(self.options) {
                self.say_what_is_left(tree, "they have no deadline any more")?;
            } else if self.rest(tree)? == Rest::TimedOut {
                return self.deadline_passed(tree);
            }
        }
        release();
        Ok(status.into())
    }

    /// When the deadline passes, by `clock`.
    fn due(&self) -> Nanos {
        self.began_at.plus(duration_ns(self.options.deadline))
    }

    /// How the command ended, or that it did not in its time.
    fn until_due(&mut self, tree: &mut Tree) -> Result<Option<ExitStatus>, Failure> {
        loop {
            let instant = Some(self.clock.sleep_towards(self.due()));
            match tree.wait(self.relay, Until { instant, wake: None })? {
                Event::Ended(status) => return Ok(Some(status)),
                Event::TimedOut | Event::Woken => {}
            }
            if self.is_due() {
                return Ok(None);
            }
        }
    }

    /// Whether the deadline has passed; after a sleep.
    fn is_due(&mut self) -> bool {
        let (now, stall) = self.clock.wake();
        // With a server of exec's own, that one tells.
        if let Some(stall) = stall
            && self.options.segment.is_some()
        {
            let late_ms = ms(stall.length_ns());
            tracing::warn!(
                segment = self.segment.name(),
                event = "stalled",
                late_ms,
                "everything stood still; the command got the time back"
            );
        }
        now >= self.due()
    }

    /// Watches what a command that was told to end has left: until its deadline, or until it is told to
    /// end once more, by which it is removed.
    fn rest(&mut self, tree: &mut Tree) -> Result<Rest, Failure> {
        let say_at = self.clock.now().plus(duration_ns(AT_ONCE));
        let mut is_said = false;
        loop {
            let next = if is_said { self.due() } else { self.due().min(say_at) };
            match tree.wait_for_rest(self.relay, self.clock.sleep_towards(next))? {
                Rest::Gone => return Ok(Rest::Gone),
                Rest::ToldToEnd => {
                    let removal = tree.kill_all(Signal::KILL, Duration::ZERO)?;
                    complain_of(&removal.survivors);
                    return Ok(Rest::ToldToEnd);
                }
                Rest::TimedOut => {}
            }
            if self.is_due() {
                return Ok(Rest::TimedOut);
            }
            if !is_said && self.clock.now() >= say_at {
                is_said = true;
                let what = "they have until its deadline, and one more signal removes them";
                self.say_what_is_left(tree, what)?;
            }
        }
    }

    fn say_what_is_left(&self, tree: &mut Tree, what: &str) -> Result<(), Failure> {
        let names = tree.names()?;
        if !names.is_empty() {
            let segment = self.segment.name();
            let (processes, left) = (names.len(), few(names));
            tracing::warn!(
                segment,
                processes,
                left,
                "the command ended as it was told to, and processes that it started go on; {what}"
            );
        }
        Ok(())
    }

    /// Captures why it is overdue, and removes the command, or only reports where `--signal none` asks
    /// for no more.
    fn deadline_passed(&self, tree: &mut Tree) -> Result<Exit, Failure> {
        let options = self.options;
        let due_at = self.clock.on_monotonic(self.due());
        let passed = Passed {
            segment: self.segment,
            scope: self.scope,
            began_at: self.began_at,
            due_at,
            allowance_ns: duration_ns(options.deadline),
            command: &options.command,
            may_stop: if may_signal(options) { MayStop::Yes } else { MayStop::No },
        };
        let case = Case::open(passed, tree, &options.evidence.options().0);
        let signal = match options.reap.signal {
            ReapSignal::Signal(signal) => signal,
            ReapSignal::NotifyOnly => {
                let late_ns = Nanos(clock::monotonic_ns()).since(due_at);
                let end = End { outcome: "reported", late_ns, ..End::default() };
                let incident = close(case, &end, passed);
                tell(options, tree, passed, &end, &[], &incident);
                loop {
                    if let Event::Ended(status) = tree.wait(self.relay, Until::default())? {
                        return Ok(status.into());
                    }
                }
            }
        };
        let grace = if signal == Signal::KILL {
            Duration::ZERO
        } else {
            options.reap.grace.max(LEAST_GRACE)
        };
        let removal = tree.kill_all_relaying(signal, grace, self.relay)?;
        let signalled = removal.signalled;
        // The lateness is that of the first signal, not of the removal's beginning or end.
        let late_ns = removal.signalled_at.map_or(0, |at| at.since(due_at));
        let number = signal.as_raw().unsigned_abs() as u8;
        let end = match outcome_of(&removal) {
            // It ended while evidence was taken: as of a watchdog's worker, nothing was late for it.
            "exited" => End { outcome: "exited", signalled, ..End::default() },
            outcome => {
                let killed_at = removal.killed_at.filter(|_| signal != Signal::KILL);
                End { outcome, signal: number, signalled, late_ns, killed_at }
            }
        };
        let incident = close(case, &end, passed);
        tell(options, tree, passed, &end, &removal.survivors, &incident);
        complain_of(&removal.survivors);
        let ended = removal.status.filter(|_| options.preserve_status);
        Ok(ended.map_or(Exit::DeadlinePassed, Exit::from))
    }
}

/// What a removal came to, as [`End::outcome`].
fn outcome_of(removal: &Removal) -> &'static str {
    let is_held = |it: &Survivor| matches!(it.why, Survival::Unkillable { .. });
    if removal.survivors.iter().any(is_held) {
        "unkillable"
    } else if !removal.survivors.is_empty() {
        "failed"
    } else if removal.signalled == 0 {
        "exited"
    } else {
        "reaped"
    }
}

/// The first of them, and how many more there are.
fn few(mut named: Vec<String>) -> String {
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    named.join(", ") + &more
}

/// What the log says of an incident.
#[derive(Debug, Default)]
struct Told {
    /// Its name, where it is kept.
    name: Option<String>,
    /// Why the command hung, where that is known.
    verdict: Option<String>,
}

/// Has the incident kept; the log says why, where it is not.
fn close(case: Option<Case>, end: &End<'_>, passed: Passed<'_>) -> Told {
    let Some(case) = case else { return Told::default() };
    let verdict = case.verdict();
    let name = match case.close(end) {
        Ok(id) => Some(id),
        Err(NotKept { id, why }) => {
            let segment = passed.segment.name();
            tracing::error!(
                segment,
                event = "incident_lost",
                incident = id,
                error = why,
                "an incident could not be kept"
            );
            None
        }
    };
    Told { name, verdict }
}

/// One line in the log.
fn tell(
    options: &Exec,
    tree: &Tree,
    passed: Passed<'_>,
    end: &End<'_>,
    survivors: &[Survivor],
    told: &Told,
) {
    let (segment, scope) = (passed.segment.name(), passed.scope);
    let (incident, verdict) = (told.name.as_deref(), told.verdict.as_deref());
    let pid = tree.pid().as_raw_nonzero().get();
    let deadline = humantime::format_duration(options.deadline).to_string();
    let late_ms = ms(end.late_ns);
    let outcome = end.outcome;
    let text = "the deadline passed, and the command ended by itself before a signal";
    match options.reap.signal {
        ReapSignal::NotifyOnly => tracing::warn!(
            segment,
            pid,
            scope,
            deadline,
            late_ms,
            outcome,
            incident,
            verdict,
            "the deadline passed"
        ),
        ReapSignal::Signal(_) if outcome == "exited" => {
            tracing::warn!(segment, pid, scope, deadline, outcome, incident, verdict, "{text}");
        }
        ReapSignal::Signal(_) => {
            let is_any_left = !survivors.is_empty();
            let named = || few(survivors.iter().map(Survivor::to_string).collect());
            let left = is_any_left.then(named);
            let killed = end.killed_at.map(|_| "KILL");
            let text = if is_any_left {
                "the deadline passed, and some processes of the command are left alive"
            } else {
                "the deadline passed, and the command was removed"
            };
            tracing::error!(
                segment,
                pid,
                scope,
                deadline,
                late_ms,
                signal = %options.reap.signal,
                followed_by = killed,
                processes = end.signalled,
                outcome,
                left,
                incident,
                verdict,
                "{text}"
            );
        }
    }
}

/// The scope the deadline is listed under: the one asked for, or the command's name.
fn scope_of(options: &Exec) -> String {
    let program = || {
        let path = std::path::Path::new(&options.command[0]);
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    };
    // A command without a name cannot be started; but that is for the start to say.
    let named = Some(options.scope.clone().unwrap_or_else(program));
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "(no name)".to_owned())
}
