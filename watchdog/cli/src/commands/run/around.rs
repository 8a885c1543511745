//! `hangwatch run -- CMD`: a watchdog around a command, with the command's exit status.
//!
//! It watches until the command's last worker has ended, unless `--leave-workers` is set. Its
//! [`standby`](super::standby) takes over if it is killed.

use std::env;
use std::process;
use std::time::{Duration, Instant};

use hangwatch::{PTRACER_VARIABLE, SEGMENT_VARIABLE, Segment};
use rustix::process::Signal;

use super::super::segments::{self, Origin};
use super::super::{Failure, OneLine, complain};
use super::left::{Left, Workers};
use super::published::Published;
use super::standby::{self, StandbyProcess};
use super::unwatched::{self, Unwatched};
use super::{LOOK, Outputs, wanted};
use crate::cli::Run;
use crate::cli::config::{self, Setting};
use crate::exit::Exit;
use hangwatch_process::child::{Child, Event, Step, Until};
use hangwatch_process::children;
use hangwatch_process::inherit::Inheritance;
use hangwatch_process::relay::{PASSED_ON, Relay};
use hangwatch_process::start::{Bond, Terms};
use hangwatch_server::notify;
use hangwatch_server::{Server, Standby, State};

/// How long workers may run after the command's end before the log names them.
const DYING: Duration = Duration::from_millis(300);
/// How often that is checked.
const DYING_LOOK: Duration = Duration::from_millis(10);

/// Runs a command under a new watchdog, and ends with the command's exit status.
pub(super) fn perform(options: &Run, deadlines: Option<Published>) -> Result<Exit, Failure> {
    // Forked first: it must not inherit threads, signal handlers or descriptors.
    let mut standby = standby_of(options);
    let relay = Relay::install(&PASSED_ON)?;
    let outputs = Outputs::bind(options)?;
    let (segment, origin) = match &options.segment {
        Some(name) => segments::make_or_adopt(name, wanted(options))?,
        None => (segments::make_own("run", wanted(options))?, Origin::Made),
    };
    let mut cleared = super::Removed { name: segment.name(), origin };
    standby.as_ref().inspect(|standby| standby.serves(segment, origin));
    let inheritance = Inheritance::of_this_process();
    let (server, _running) = outputs.start(segment, options, Standby::No)?;
    if let Some(mut deadlines) = deadlines {
        deadlines.publish(&server); // before a worker can need them
    }
    if let Some(said) = options.automatic.said() {
        tracing::info!(segment = segment.name(), event = "auto", "{said}");
    }
    let terms = Terms {
        inheritance: Some(inheritance),
        bond: Bond::Loose,
        announcement: standby.as_ref().map(StandbyProcess::announcement),
    };
    let child = match Child::start_on(&mut command_of(options, segment), &terms) {
        Ok(child) => child,
        Err(error) => {
            server.stop();
            complain(&OneLine(&error));
            return Ok(Exit::from(&error));
        }
    };
    // From here on only `leave` removes the segment: it may have workers.
    cleared.origin = Origin::Found;
    match attend(options, segment, &server, child, &relay, &mut standby) {
        Ok(exit) => {
            server.stop();
            standby::leave(segment, origin);
            drop(standby); // last: until here it takes over if this process is killed
            Ok(exit)
        }
        Err(error) => {
            // The command may still run, so the standby takes over.
            server.stop();
            if let Some(standby) = standby {
                standby.leave();
            }
            Err(error)
        }
    }
}

/// Starts the standby. As PID 1 there is none: the namespace ends with this process.
fn standby_of(options: &Run) -> Option<StandbyProcess> {
    if options.no_standby || process::id() == 1 {
        return None;
    }
    StandbyProcess::start(options)
        .inspect_err(|error| {
            tracing::warn!(
                event = "no_standby",
                %error,
                "no standby: if this process is killed, its workers are not watched any more"
            );
        })
        .ok()
}

fn command_of(options: &Run, segment: Segment) -> process::Command {
    let mut command = process::Command::new(&options.command[0]);
    // Settings of this watchdog must not apply to one that the command starts.
    for Setting { name, .. } in &options.origins.settings {
        command.env_remove(config::variable_of(name));
    }
    command.env_remove(config::CONFIG_VARIABLE);
    command.args(&options.command[1..]).env(SEGMENT_VARIABLE, segment.name());
    command.envs(options.automatic.environment());
    // As an ancestor this process may trace workers; its helpers need their permission.
    if env::var_os(PTRACER_VARIABLE).is_none() {
        command.env(PTRACER_VARIABLE, "watchdog");
    }
    // Only the watchdog reports to the service manager.
    for variable in notify::VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// Waits for the end of the command, and then of its last worker.
fn attend(
    options: &Run,
    segment: Segment,
    server: &Server,
    mut child: Child,
    relay: &Relay,
    standby: &mut Option<StandbyProcess>,
) -> Result<Exit, Failure> {
    let name = segment.name();
    let mut serving = true;
    let mut unwatched = Unwatched::new(Instant::now());
    let status = loop {
        let until = Until { instant: Some(Instant::now() + LOOK), wake: None };
        match child.step(relay, until)? {
            Step::Event(Event::Ended(status)) => break status,
            Step::Event(_) => {}
            Step::Signal(caught) => child.pass_on(caught),
        }
        look_after_children(segment, Some(&child), standby);
        unwatched.look(segment, options, Instant::now());
        if serving && matches!(server.health().state, State::Ended(_)) {
            // The server's last event says why. The command continues without a watchdog.
            tracing::error!(
                segment = name,
                "the watchdog has failed; the command continues without deadlines"
            );
            serving = false;
        }
    };
    if let Some(error) = child.start_error() {
        complain(&OneLine(&error));
        return Ok(Exit::from(&error));
    }
    unwatched::say_at_end(segment, options);
    let mut left = Left::new(segment);
    if serving && !options.leave_workers && workers_after_the_end(&mut left) {
        let workers = Workers::of(segment);
        tracing::warn!(
            segment = name,
            event = "workers_live_on",
            workers = workers.0.len(),
            pids = workers.list(),
            "the command has ended, but {} of it still run: `run` watches them, and ends after them and \
             the processes that start them (SIGTERM ends it now; see --leave-workers)",
            workers.count()
        );
        watch_on(left, segment, server, relay, standby)?;
    }
    Ok(status.into())
}

/// Whether workers still run after the command, not counting those that are just dying.
fn workers_after_the_end(left: &mut Left) -> bool {
    let until = Instant::now() + DYING;
    while !left.is_over() {
        if Instant::now() > until {
            return true;
        }
        std::thread::sleep(DYING_LOOK);
    }
    false
}

/// Watches until the last worker has ended, or a signal asks to stop.
fn watch_on(
    mut left: Left,
    segment: Segment,
    server: &Server,
    relay: &Relay,
    standby: &mut Option<StandbyProcess>,
) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    while !left.is_over() {
        if matches!(server.health().state, State::Ended(_)) {
            return Ok(());
        }
        while let Some(caught) = relay.next()? {
            // HUP is ignored: the terminal is gone, but the workers still run.
            if [Signal::TERM, Signal::INT, Signal::QUIT].contains(&caught.signal) {
                return Ok(());
            }
        }
        look_after_children(segment, None, standby);
        standby::wait(&[relay.as_fd()], Some(LOOK));
    }
    tracing::info!(segment = segment.name(), event = "workers_gone", "the last worker has ended");
    Ok(())
}

/// Waits for orphans, and logs if the standby has ended.
fn look_after_children(
    segment: Segment,
    child: Option<&Child>,
    standby: &mut Option<StandbyProcess>,
) {
    // Errors are ignored: the next call tries again.
    let _ = children::reap_orphans(child.map(Child::pid));
    if standby.as_mut().is_some_and(StandbyProcess::has_gone) {
        tracing::warn!(
            segment = segment.name(),
            event = "no_standby",
            "the standby has ended: if this process is killed, its workers are not watched any more"
        );
    }
}
