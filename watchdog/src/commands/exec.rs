//! `hangwatch exec`: a deadline for any command, with all that it starts.
//!
//! The deadline is a notify-only timer of this process, so that `status` and the segment's watchdog
//! see it; this process enforces it itself, whatever becomes of the watchdog. The command gets the
//! segment's name, so that it may attach and set finer deadlines of its own.

use std::process;
use std::time::{Duration, Instant};

use hangwatch::sys::clock;
use hangwatch::{SEGMENT_VARIABLE, Segment, Signal as TimerSignal, WorkerOptions};
use hangwatch_core::time::{Nanos, duration_ns};
use rustix::process::Signal;

use super::run::Removed;
use super::segments::{self, Origin, Wanted};
use super::{Failure, OneLine, complain};
use crate::child::{Event, Until};
use crate::cli::Exec;
use crate::cli::value::ReapSignal;
use crate::evidence::capture::MayStop;
use crate::exec::case::{Case, End, NotKept, Passed};
use crate::exec::tree::{SpawnError, Tree};
use crate::exit::Exit;
use crate::inherit::Inheritance;
use crate::logging;
use crate::relay::{PASSED_ON, Relay};
use crate::server::events::{What, emit};
use crate::server::{OwnProcess, Server, ServerEvent, ServerOptions};
use crate::start::{Bond, Terms};

/// The least time a signal that can be caught is given, as the watchdog gives it too.
const LEAST_GRACE: Duration = Duration::from_millis(100);

/// Lanes of a segment of exec's own: for the command's threads, should it attach.
const OWN_LANES: u32 = 64;

pub(super) fn perform(options: &Exec) -> Result<Exit, Failure> {
    // Nobody asked for a watchdog's log: only what went wrong.
    logging::init(options.log.format, tracing::Level::WARN)?;
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
        ServerOptions { policy, own_process: OwnProcess::Spare, evidence, ..Default::default() };
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
    let bond = match options.reap.signal {
        ReapSignal::Signal(_) => Bond::Dies,
        ReapSignal::NotifyOnly => Bond::Loose,
    };
    let terms = Terms { inheritance: Some(inheritance.clone()), bond, announcement: None };
    let (begun, began_at) = (Instant::now(), Nanos(clock::monotonic_ns()));
    let guard = worker.expires(&scope, options.deadline)?;
    let mut tree = match Tree::spawn_on(&mut command, &terms) {
        Ok(tree) => tree,
        Err(SpawnError::Start(error)) => {
            complain(&OneLine(&error));
            return Ok(error.exit());
        }
        Err(error) => return Err(error.into()),
    };
    // A deadline beyond what the clock can say is none that anyone will see pass.
    let instant = begun.checked_add(options.deadline);
    let ended = loop {
        match tree.wait(relay, Until { instant, wake: None })? {
            Event::Ended(status) => break Some(status),
            Event::TimedOut => break None,
            Event::Woken => {}
        }
    };
    if let Some(status) = ended {
        guard.release();
        if let Some(error) = tree.start_error() {
            complain(&OneLine(&error));
            return Ok(error.exit());
        }
        return Ok(status.into());
    }
    let notifies_only = options.reap.signal == ReapSignal::NotifyOnly;
    let passed = Passed {
        segment,
        scope: &scope,
        began_at,
        allowance_ns: duration_ns(options.deadline),
        command: &options.command,
        may_stop: if notifies_only { MayStop::No } else { MayStop::Yes },
    };
    deadline_passed(options, relay, &mut tree, passed)
}

/// Captures why it is overdue, and removes the command, or only reports where `--signal none` asks for
/// no more.
fn deadline_passed(
    options: &Exec,
    relay: &Relay,
    tree: &mut Tree,
    passed: Passed<'_>,
) -> Result<Exit, Failure> {
    let case = Case::open(passed, tree, &options.evidence.options().0);
    let late_ns = clock::monotonic_ns() - passed.began_at.plus(passed.allowance_ns).0;
    let signal = match options.reap.signal {
        ReapSignal::Signal(signal) => signal,
        ReapSignal::NotifyOnly => {
            let end = End { outcome: "reported", signal: 0, signalled: 0, late_ns };
            let incident = close(case, &end, passed);
            tell(options, tree, passed, &end, incident.as_deref());
            loop {
                if let Event::Ended(status) = tree.wait(relay, Until::default())? {
                    return Ok(status.into());
                }
            }
        }
    };
    let grace =
        if signal == Signal::KILL { Duration::ZERO } else { options.reap.grace.max(LEAST_GRACE) };
    let removal = tree.kill_all_relaying(signal, grace, relay)?;
    let signalled = removal.signalled;
    let number = signal.as_raw().unsigned_abs() as u8;
    let end = match (removal.survivors.is_empty(), signalled) {
        // It ended while evidence was taken: as of a watchdog's worker, nothing was late for it.
        (true, 0) => End { outcome: "exited", signal: 0, signalled, late_ns: 0 },
        (true, _) => End { outcome: "reaped", signal: number, signalled, late_ns },
        (false, _) => End { outcome: "unkillable", signal: number, signalled, late_ns },
    };
    let incident = close(case, &end, passed);
    tell(options, tree, passed, &end, incident.as_deref());
    for survivor in &removal.survivors {
        complain(&format_args!("could not be removed: {survivor}"));
    }
    Ok(Exit::DeadlinePassed)
}

/// The name of the incident, which is kept; else the log says why it is not.
fn close(case: Option<Case>, end: &End<'_>, passed: Passed<'_>) -> Option<String> {
    match case?.close(end) {
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
    }
}

/// One line in the log.
fn tell(options: &Exec, tree: &Tree, passed: Passed<'_>, end: &End<'_>, incident: Option<&str>) {
    let (segment, scope) = (passed.segment.name(), passed.scope);
    let pid = tree.pid().as_raw_nonzero().get();
    let deadline = humantime::format_duration(options.deadline).to_string();
    let late_ms = Duration::from_nanos(end.late_ns).as_secs_f64() * 1e3;
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
            "the deadline passed"
        ),
        ReapSignal::Signal(_) if outcome == "exited" => {
            tracing::warn!(segment, pid, scope, deadline, outcome, incident, "{text}");
        }
        ReapSignal::Signal(signal) => tracing::error!(
            segment,
            pid,
            scope,
            deadline,
            late_ms,
            signal = crate::cli::value::signal_name(signal),
            processes = end.signalled,
            outcome,
            incident,
            "the deadline passed, and the command was removed"
        ),
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
