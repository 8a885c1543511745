//! `hangwatch run`: the watchdog of a segment, on its own or around a command.

mod around;
mod check;
mod left;
mod published;
mod reload;
mod standby;
mod unwatched;

use std::sync::Arc;
use std::time::Duration;

use hangwatch::Segment;
use hangwatch::sys::host;
use hangwatch_core::watchdog::policy::{Policy, Shadow};
use hangwatch_core::wire::lane::TimerSignal;
use hangwatch_core::wire::time::duration_ns;
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::segments::{self, Origin, Wanted};
use super::{Failure, complain};
use crate::cli::value::ReapSignal;
use crate::cli::{Listen, Reap, Run};
use crate::exit::Exit;
use hangwatch_http::listen::{Bound, ListenError, Listening, Subject, Tally};
use hangwatch_process::children;
use hangwatch_process::inherit::Inheritance;
use hangwatch_process::relay::{Caught, PASSED_ON, Relay};
use hangwatch_process::signals;
use hangwatch_server::events::emit;
use hangwatch_server::hook::Hooks;
use hangwatch_server::notify::Notifier;
use hangwatch_server::{Ended, ErrorFiles, Holds, OnPanic, Server, ServerOptions, Standby, State};

use published::Published;

/// How often `run` checks that the server still runs.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn perform(options: Run) -> Result<Exit, Failure> {
    if options.settings.check {
        return check::perform(&options);
    }
    hangwatch_log::init(options.log.format, tracing::Level::INFO)?;
    // A typo in a variable must not silently disable a limit.
    options.origins.misspelt().for_each(|text| tracing::warn!("{text}"));
    if options.reap.grace_is_in_vain() {
        tracing::warn!(
            "--grace has no effect with --signal KILL, except for timers that name another first \
             signal; add --signal TERM"
        );
    }
    if options.automatic.is_in_vain() {
        tracing::warn!(
            "--auto-alone is not shorter than --auto-together: ranks that wait for the one that hangs may \
             be killed before it"
        );
    }
    // Read before a segment is created, so that errors in the file are reported at once.
    let deadlines = options.deadlines.as_deref().map(Published::read).transpose()?;
    if options.command.is_empty() {
        alone(options, deadlines)
    } else {
        around::perform(&options, deadlines)
    }
}

/// The policy of the options for signals.
pub(super) fn policy(reap: &Reap, signal: ReapSignal) -> Policy {
    Policy {
        signal: signal.number().map_or(TimerSignal::NotifyOnly, TimerSignal::Signal),
        grace_ns: duration_ns(reap.grace),
        ..Policy::default()
    }
}

/// The policy of all options.
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

fn server_options(options: &Run, standby: Standby) -> ServerOptions {
    let (evidence, why_not_kept) = options.evidence.options();
    if let Some(error) = why_not_kept {
        tracing::warn!(event = "unkept", %error, "incidents are not stored");
    }
    ServerOptions {
        policy: whole_policy(options),
        standby,
        holds: holds(options),
        evidence,
        error_files: if options.no_error_files { ErrorFiles::Leave } else { ErrorFiles::Write },
        reach: options.reach().into(),
        protection: options.protection(),
        on_panic: OnPanic::Exit(Exit::Panicked.code()),
        ..ServerOptions::default()
    }
}

/// Shadow mode is on with `--notify-only` and `--deadlines`.
fn shadow(options: &Run) -> Shadow {
    let reports = options.reap_signal() == ReapSignal::NotifyOnly;
    if reports && options.deadlines.is_some() { Shadow::On } else { Shadow::Off }
}

fn wanted(options: &Run) -> Wanted {
    Wanted {
        lanes: options.lanes,
        timers: options.timers,
        scopes: options.scopes,
        max_interval: options.max_interval,
        group: options.group,
    }
}

/// Watches until SIGTERM or SIGINT, and keeps the segment for the next watchdog.
fn alone(mut options: Run, mut deadlines: Option<Published>) -> Result<Exit, Failure> {
    let name = Segment::name_or_environment(options.segment.as_deref())?;
    // Installed before the server starts, so that no signal is lost meanwhile.
    signals::accept(Signal::HUP); // SIGHUP reads the settings again, also under nohup
    let relay = Relay::install_only(&PASSED_ON)?;
    let outputs = Outputs::bind(&options)?;
    let (segment, origin) = segments::make_or_adopt(&name, wanted(&options))?;
    let standby = if options.standby { Standby::Wait } else { Standby::No };
    let (server, running) = match outputs.start(segment, &options, standby) {
        Ok(started) => started,
        Err(error) => {
            if origin == Origin::Made {
                Segment::remove(&name)?;
            }
            return Err(error);
        }
    };
    let mut reload = reload::Reload::default();
    loop {
        if let Some(deadlines) = &mut deadlines {
            deadlines.publish(&server);
        }
        if let State::Ended(ended) = server.health().state {
            server.stop();
            return Ok(exit_of(&ended));
        }
        while let Some(Caught { signal, .. }) = relay.next()? {
            if signal == Signal::WINCH {
                continue;
            }
            if signal != Signal::HUP {
                return Ok(end(server, signal));
            }
            reload.ask(&options, &server, running.notifier.as_ref());
        }
        reload.look(&mut options, &mut deadlines, &server, running.notifier.as_ref());
        // As PID 1 this process inherits the orphans of its namespace.
        let _ = children::reap_orphans(None);
        wait_for(&relay, reload.pause(LOOK))?;
    }
}

/// Shuts down because of a signal, and logs signals other than SIGTERM and SIGINT.
fn end(server: Server, signal: Signal) -> Exit {
    let is_request = [Signal::TERM, Signal::INT].contains(&signal);
    let number = signal.as_raw();
    if !is_request {
        let segment = server.segment().name();
        tracing::error!(segment, event = "signal", signal = number, "a signal ends the watchdog");
    }
    match server.stop().ended {
        Ended::Stopped if is_request => Exit::Ok,
        Ended::Stopped => Exit::Signal(u8::try_from(number).unwrap_or(u8::MAX)),
        ended => exit_of(&ended),
    }
}

fn exit_of(ended: &Ended) -> Exit {
    if *ended == Ended::Stopped { Exit::Ok } else { Exit::Failed }
}

fn wait_for(relay: &Relay, most: Duration) -> Result<(), Failure> {
    use std::os::fd::AsFd;
    let timeout = rustix::event::Timespec::try_from(most)?;
    let mut polled = [PollFd::from_borrowed_fd(relay.as_fd(), PollFlags::IN)];
    match rustix::event::poll(&mut polled, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The outputs of a server before its start: the HTTP listener, if there is one.
struct Outputs(Option<Bound>);

impl Outputs {
    /// Binds the listener before a segment is created.
    fn bind(options: &Run) -> Result<Outputs, ListenError> {
        let Listen { listen: Some(address), .. } = &options.listen else {
            return Ok(Outputs(None));
        };
        Bound::new(address, options.listen.audience(), options.group)
            .map(|bound| Outputs(Some(bound)))
    }

    /// Starts the server with its outputs: log, hook, service manager and HTTP.
    fn start(
        self,
        segment: Segment,
        options: &Run,
        standby: Standby,
    ) -> Result<(Server, Running), Failure> {
        let how = server_options(options, standby);
        let hooks = hooks(options)?;
        let Outputs(Some(bound)) = self else {
            let server = Server::start(segment, how, move |event| {
                hooks.iter().for_each(|hooks| hooks.on_event(&event));
                emit(&event);
            })?;
            let notifier = Notifier::start(server.vitals())?;
            return Ok((server, Running { _listening: None, notifier }));
        };
        let tally = Arc::<Tally>::default();
        let counted = Arc::clone(&tally);
        let server = Server::start(segment, how, move |event| {
            counted.note(&event);
            hooks.iter().for_each(|hooks| hooks.on_event(&event));
            emit(&event);
        })?;
        let host = options.listen.host.clone().unwrap_or_else(host::host_name);
        let listening = bound.serve(Subject { vitals: server.vitals(), tally, host })?;
        let (segment, address) = (segment.name(), listening.address());
        tracing::info!(segment, event = "listening", %address, "listening");
        let notifier = Notifier::start(server.vitals())?;
        Ok((server, Running { _listening: Some(listening), notifier }))
    }
}

/// Starts the hook runner, before the watchdog changes anything that commands would inherit.
fn hooks(options: &Run) -> Result<Option<Hooks>, Failure> {
    let start = |hook| Hooks::start(hook, Inheritance::of_this_process());
    Ok(options.hook.options(&options.evidence).map(start).transpose()?)
}

/// The outputs of a running server.
struct Running {
    _listening: Option<Listening>,
    notifier: Option<Notifier>,
}

/// Removes a segment that this process created, also on errors.
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
