//! `hangwatch exec`: a deadline for a command and all its descendants.
//!
//! The deadline is a notify-only timer of this process, which `status` and the segment's watchdog can see.
//! This process enforces it itself, with or without a watchdog. The command gets the segment's name, so
//! that it can attach and set finer deadlines.

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

/// The least grace after a signal that can be caught; the same as the watchdog's.
const LEAST_GRACE: Duration = Duration::from_millis(100);

/// After a command ended by a signal: how long its descendants may run before the log names them.
const AT_ONCE: Duration = Duration::from_secs(1);

/// The most processes that one log line names.
const NAMED: usize = 16;

/// Lanes of a new segment, for the threads of the command if it attaches.
const OWN_LANES: u32 = 64;

pub(super) fn perform(options: &Exec) -> Result<Exit, Failure> {
    // Only warnings and errors are logged.
    // A standard error that blocks must not delay the deadline or the end.
    outlet::open()?;
    panic::set_hook(Box::new(|panic| complain(&format_args!("a bug in hangwatch: {panic}"))));
    hangwatch_log::init(options.log.format, tracing::Level::WARN)?;
    let relay = Relay::install(&PASSED_ON)?;
    // Recorded before the watchdog raises any limit.
    let inheritance = Inheritance::of_this_process();
    match &options.segment {
        Some(name) => {
            let segment = Segment::open(name)?;
            under(options, &relay, segment, &inheritance)
        }
        None => alone(options, &relay, &inheritance),
    }
}

/// Creates a segment and runs a watchdog in this process.
fn alone(options: &Exec, relay: &Relay, inheritance: &Inheritance) -> Result<Exit, Failure> {
    let wanted = Wanted { lanes: Some(OWN_LANES), ..Wanted::default() };
    let segment = segments::make_own("exec", wanted)?;
    let _removed = Removed { name: segment.name(), origin: Origin::Made };
    let policy = super::run::policy(&options.reap, options.reap.signal);
    // For workers among the command and its descendants, with deadlines of their own.
    let (evidence, _) = options.evidence.options();
    let how =
        ServerOptions { policy, own_process: OwnProcess::Exclude, evidence, ..Default::default() };
    // `tell` logs the expiry of exec's own deadline.
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

/// Runs the command with its timer in a segment, which may or may not have a watchdog.
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
    // The panic hook has printed the panic.
    watched.unwrap_or(Ok(Exit::Panicked))
}

/// Kills a command whose deadline cannot be enforced any more.
fn end_unwatched(options: &Exec, tree: &mut Tree) {
    if !may_signal(options) {
        let pid = tree.pid();
        complain(&format_args!("the command (pid {pid}) continues without a deadline"));
        return;
    }
    match tree.kill_all(Signal::KILL, Duration::ZERO) {
        Ok(removal) => complain_of(&removal.survivors),
        Err(error) => complain(&format_args!("the command could not be killed: {error}")),
    }
}

fn complain_of(survivors: &[Survivor]) {
    for survivor in survivors {
        complain(&format_args!("could not be killed: {survivor}"));
    }
}

fn may_signal(options: &Exec) -> bool {
    options.reap.signal != ReapSignal::NotifyOnly
}

/// The running command and its deadline.
struct Watch<'w> {
    options: &'w Exec,
    relay: &'w Relay,
    segment: Segment,
    scope: &'w str,
    /// When the command was started, by `clock`.
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
                self.say_what_is_left(tree, "they have no deadline now")?;
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

    /// Waits for the command's end; `None` if the deadline passed first.
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

    /// Whether the deadline has passed. Call it after each sleep.
    fn is_due(&mut self) -> bool {
        let (now, stall) = self.clock.wake();
        // A watchdog in this process logs stalls itself.
        if let Some(stall) = stall
            && self.options.segment.is_some()
        {
            let late_ms = ms(stall.length_ns());
            tracing::warn!(
                segment = self.segment.name(),
                event = "stalled",
                late_ms,
                "this process did not run for a while; the deadline was extended by that time"
            );
        }
        now >= self.due()
    }

    /// Waits for the descendants of a command that ended by a signal, until the deadline.
    ///
    /// A second signal kills them.
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
                let what = "the deadline still applies to them, and a second signal kills them";
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
                "the command ended by a signal, but its descendants are still running; {what}"
            );
        }
        Ok(())
    }

    /// Captures why the command hangs and kills it; with `--signal none` only reports.
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
        // The lateness counts to the first signal.
        let late_ns = removal.signalled_at.map_or(0, |at| at.since(due_at));
        let number = signal.as_raw().unsigned_abs() as u8;
        let end = match outcome_of(&removal) {
            // It ended while evidence was captured: as for a watchdog's workers, there is no lateness.
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

/// The outcome of a kill, as in [`End::outcome`].
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

/// The first names, and how many more there are.
fn few(mut named: Vec<String>) -> String {
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    named.join(", ") + &more
}

/// What the log says about an incident.
#[derive(Debug, Default)]
struct Told {
    /// Its name, if it is stored.
    name: Option<String>,
    /// Why the command hung, if known.
    verdict: Option<String>,
}

/// Closes the incident and returns its name and verdict; if it cannot be stored, logs why.
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
                "an incident could not be stored"
            );
            None
        }
    };
    Told { name, verdict }
}

/// Logs that the deadline passed, and what was done.
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
    let text = "the deadline passed, but the command ended by itself before a signal was sent";
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
                "the deadline passed; some processes of the command are still alive"
            } else {
                "the deadline passed and the command was killed"
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

/// The scope of the deadline: that of `--scope`, else the command's name.
fn scope_of(options: &Exec) -> String {
    let program = || {
        let path = std::path::Path::new(&options.command[0]);
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    };
    // A command without a name cannot be started, but the start reports that error.
    let named = Some(options.scope.clone().unwrap_or_else(program));
    named.filter(|name| !name.is_empty()).unwrap_or_else(|| "(no name)".to_owned())
}
