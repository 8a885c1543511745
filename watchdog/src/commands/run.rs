//! `hangwatch run`: the watchdog of a segment, alone or around a command.

mod check;
mod published;
mod reload;

use std::env;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hangwatch::sys::host;
use hangwatch::{PTRACER_VARIABLE, SEGMENT_VARIABLE, Segment};
use hangwatch_core::lane::TimerSignal;
use hangwatch_core::policy::{Policy, Shadow};
use hangwatch_core::time::duration_ns;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::segments::{self, Origin, Wanted};
use super::{Failure, OneLine, complain};
use crate::child::{Child, Event, Until};
use crate::cli::config::{self, Setting};
use crate::cli::value::ReapSignal;
use crate::cli::{Listen, Reap, Run};
use crate::exit::Exit;
use crate::hook::Hooks;
use crate::inherit::Inheritance;
use crate::listen::{Bound, ListenError, Listening, Subject, Tally};
use crate::logging;
use crate::notify::{self, Notifier};
use crate::relay::{PASSED_ON, Relay};
use crate::server::events::emit;
use crate::server::{Ended, ErrorFiles, Holds, OnPanic, Server, ServerOptions, Standby, State};
use crate::start::{Bond, Terms};

use published::Published;

/// How often it is looked whether the server still serves.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn perform(options: Run) -> Result<Exit, Failure> {
    if options.settings.check {
        return check::perform(&options);
    }
    logging::init(options.log.format, tracing::Level::INFO)?;
    if options.reap.grace_is_in_vain() {
        tracing::warn!(
            "--grace delays the KILL after a gentler signal, and --signal KILL sends none: only \
             workers whose timers ask for a signal of their own get it"
        );
    }
    // Before a segment is made: what is wrong with the file is said at once.
    let deadlines = options.deadlines.as_deref().map(Published::read).transpose()?;
    if options.command.is_empty() { alone(options, deadlines) } else { around(&options, deadlines) }
}

/// What a reap's options come to.
pub(super) fn policy(reap: &Reap, signal: ReapSignal) -> Policy {
    Policy {
        signal: signal.number().map_or(TimerSignal::NotifyOnly, TimerSignal::Signal),
        grace_ns: duration_ns(reap.grace),
        ..Policy::default()
    }
}

/// What is done about an expired timer.
fn whole_policy(options: &Run) -> Policy {
    let cascade = options.cascade.asked().unwrap_or_default();
    let policy = policy(&options.reap, options.reap_signal());
    let (max_reaps, warn_at) = (options.max_reaps, options.warn_at);
    Policy { max_reaps, warn_at, shadow: shadow(options), cascade, ..policy }
}

fn holds(options: &Run) -> Holds {
    Holds {
        stopped: options.holds.stopped.into(),
        traced: options.holds.traced.into(),
        frozen: options.holds.frozen.into(),
    }
}

fn server_options(options: &Run) -> ServerOptions {
    let (evidence, why_not_kept) = options.evidence.options();
    if let Some(error) = why_not_kept {
        tracing::warn!(event = "unkept", %error, "incidents are not kept");
    }
    ServerOptions {
        policy: whole_policy(options),
        standby: if options.standby { Standby::Wait } else { Standby::No },
        holds: holds(options),
        evidence,
        error_files: if options.no_error_files { ErrorFiles::Leave } else { ErrorFiles::Write },
        reach: options.further.reach.into(),
        protection: options.protection(),
        on_panic: OnPanic::Exit(Exit::Panicked.code()),
        ..ServerOptions::default()
    }
}

/// What only reports and has deadlines to go by looks for what it would have reaped.
fn shadow(options: &Run) -> Shadow {
    let reports = options.reap_signal() == ReapSignal::NotifyOnly;
    if reports && options.deadlines.is_some() { Shadow::On } else { Shadow::Off }
}

fn wanted(options: &Run) -> Wanted {
    Wanted {
        lanes: options.lanes,
        timers: options.timers,
        max_interval: options.max_interval,
        group: options.group,
    }
}

/// Serves until SIGTERM or SIGINT, and keeps the segment for a successor.
fn alone(mut options: Run, mut deadlines: Option<Published>) -> Result<Exit, Failure> {
    let name = Segment::name_or_environment(options.segment.as_deref())?;
    // Before the server: a signal that comes while it starts is not lost.
    let relay = Relay::install_only(&[Signal::TERM, Signal::INT, Signal::HUP])?;
    let voice = Voice::bind(&options)?;
    let (segment, origin) = segments::make_or_adopt(&name, wanted(&options))?;
    let (server, voice) = match voice.start(segment, &options) {
        Ok(started) => started,
        Err(error) => {
            if origin == Origin::Made {
                Segment::remove(&name)?;
            }
            return Err(error);
        }
    };
    loop {
        if let Some(deadlines) = &mut deadlines {
            deadlines.publish(&server);
        }
        if let State::Ended(ended) = server.health().state {
            server.stop();
            return Ok(if ended == Ended::Stopped { Exit::Ok } else { Exit::Failed });
        }
        while let Some(caught) = relay.next()? {
            if caught.signal != Signal::HUP {
                server.stop();
                return Ok(Exit::Ok);
            }
            reload::reload(&mut options, &mut deadlines, &server, voice.notifier.as_ref());
        }
        wait_for(&relay)?;
    }
}

fn wait_for(relay: &Relay) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let timeout = rustix::event::Timespec::try_from(LOOK)?;
    let mut polled = [PollFd::from_borrowed_fd(relay.as_fd(), PollFlags::IN)];
    match rustix::event::poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Runs a command under a watchdog of its own, and ends as it does.
fn around(options: &Run, deadlines: Option<Published>) -> Result<Exit, Failure> {
    let relay = Relay::install(&PASSED_ON)?;
    let voice = Voice::bind(options)?;
    let (segment, origin) = match &options.segment {
        Some(name) => segments::make_or_adopt(name, wanted(options))?,
        None => (segments::make_own("run", wanted(options))?, Origin::Made),
    };
    let name = segment.name();
    let _cleared = Removed { name, origin };
    let inheritance = Inheritance::of_this_process();
    let (server, _voice) = voice.start(segment, options)?;
    if let Some(mut deadlines) = deadlines {
        deadlines.publish(&server); // before anybody could ask for them
    }
    let mut command = process::Command::new(&options.command[0]);
    // What was meant for this watchdog is not for one that the command may start.
    for Setting { name, .. } in &options.origins.settings {
        command.env_remove(config::variable_of(name));
    }
    command.env_remove(config::CONFIG_VARIABLE);
    command.args(&options.command[1..]).env(SEGMENT_VARIABLE, name);
    // As its ancestor this process may trace it anyway; its helpers may not, unless they are allowed.
    if env::var_os(PTRACER_VARIABLE).is_none() {
        command.env(PTRACER_VARIABLE, "watchdog");
    }
    // The manager is told of the watchdog, by the watchdog.
    for variable in notify::VARIABLES {
        command.env_remove(variable);
    }
    let terms = Terms { inheritance: Some(inheritance), bond: Bond::Loose };
    let mut child = match Child::start_on(&mut command, &terms) {
        Ok(child) => child,
        Err(error) => {
            server.stop();
            complain(&OneLine(&error));
            return Ok(error.exit());
        }
    };
    let mut serving = true;
    loop {
        let until = Until { instant: Some(Instant::now() + LOOK), wake: None };
        match child.wait(&relay, until)? {
            Event::Ended(status) => {
                server.stop();
                if let Some(error) = child.start_error() {
                    complain(&OneLine(&error));
                    return Ok(error.exit());
                }
                return Ok(status.into());
            }
            Event::Woken | Event::TimedOut => {}
        }
        if serving && matches!(server.health().state, State::Ended(_)) {
            // Said by the server's last event; the command is let finish, unwatched.
            tracing::error!(segment = name, "the command goes on, but nobody watches it any more");
            serving = false;
        }
    }
}

/// How a server is heard of: its log, the service manager, and a listener where one is asked for.
struct Voice(Option<Bound>);

impl Voice {
    /// Binds the listener, before anything is served or made.
    fn bind(options: &Run) -> Result<Voice, ListenError> {
        let Listen { listen: Some(address), .. } = &options.listen else { return Ok(Voice(None)) };
        Bound::new(address, options.listen.audience(), options.group)
            .map(|bound| Voice(Some(bound)))
    }

    /// Starts the server, and tells of it from the first event on.
    fn start(self, segment: Segment, options: &Run) -> Result<(Server, Heard), Failure> {
        let hooks = hooks(options)?;
        let Voice(Some(bound)) = self else {
            let server = Server::start(segment, server_options(options), move |event| {
                hooks.iter().for_each(|hooks| hooks.hear(&event));
                emit(&event);
            })?;
            let notifier = Notifier::start(server.vitals())?;
            return Ok((server, Heard { _listening: None, notifier }));
        };
        let tally = Arc::<Tally>::default();
        let counted = Arc::clone(&tally);
        let server = Server::start(segment, server_options(options), move |event| {
            counted.note(&event);
            hooks.iter().for_each(|hooks| hooks.hear(&event));
            emit(&event);
        })?;
        let host = options.listen.host.clone().unwrap_or_else(host::name);
        let listening = bound.serve(Subject { vitals: server.vitals(), tally, host })?;
        let (segment, address) = (segment.name(), listening.address());
        tracing::info!(segment, event = "listening", %address, "listening");
        let notifier = Notifier::start(server.vitals())?;
        Ok((server, Heard { _listening: Some(listening), notifier }))
    }
}

/// What is run for each expiry, before the watchdog has taken anything for itself that a command would
/// inherit.
fn hooks(options: &Run) -> Result<Option<Hooks>, Failure> {
    let start = |hook| Hooks::start(hook, Inheritance::of_this_process());
    Ok(options.hook.options(&options.evidence).map(start).transpose()?)
}

/// What tells of a server while it runs.
struct Heard {
    _listening: Option<Listening>,
    notifier: Option<Notifier>,
}

/// Removes a segment this process made, at whatever end.
pub(super) struct Removed<'n> {
    pub(super) name: &'n str,
    pub(super) origin: Origin,
}

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        if self.origin == Origin::Made
            && let Err(error) = Segment::remove(self.name)
        {
            complain(&error);
        }
    }
}
