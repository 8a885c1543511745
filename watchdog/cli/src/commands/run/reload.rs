//! SIGHUP: reads the settings again, without a change to any timer.
//!
//! A thread and a helper process read the files, so that a disk that hangs delays only the new settings,
//! and not SIGTERM. Policies for expired timers change between two ticks. Settings of the segment, threads
//! and sockets need a restart; the log names them.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::published::Published;
use super::{holds, whole_policy};
use crate::cli::Run;
use crate::cli::config::{self, Origins, Problems, REREAD, Setting, Variables};
use crate::commands::OneLine;
use crate::deadlines::Deadlines;
use crate::program::own_program;
use hangwatch_process::reading;
use hangwatch_server::Server;
use hangwatch_server::notify::Notifier;

/// How long reading may take before the log reports it.
const SLOW: Duration = Duration::from_secs(2);
/// How often to check for the result, until reading is slow.
const SOON: Duration = Duration::from_millis(10);

/// The contents of the files.
struct Read {
    /// `None` if there is no settings file.
    settings: Option<Result<Run, Problems>>,
    deadlines: Option<(PathBuf, Result<Deadlines, String>)>,
}

/// A running read of the files.
struct Reading {
    read: Receiver<Read>,
    since: Instant,
    is_said: bool,
}

/// Reads the settings again on request.
#[derive(Default)]
pub(super) struct Reload {
    reading: Option<Reading>,
    /// Requested during a read, which may have read the old contents.
    is_asked_again: bool,
}

impl Reload {
    /// Starts to read the settings and the deadlines again.
    pub(super) fn ask(&mut self, options: &Run, server: &Server, notifier: Option<&Notifier>) {
        if self.reading.is_some() {
            self.is_asked_again = true;
            return;
        }
        notifier.inspect(|notifier| notifier.reloading());
        let (sender, read) = channel();
        let (origins, deadlines) = (options.origins.clone(), options.deadlines.clone());
        let named = thread::Builder::new().name("hangwatch-settings".to_owned());
        // Never joined: its helper process may hang with the disk.
        let started = named.spawn(move || {
            let _ = sender.send(read_again(&origins, deadlines)); // the receiver is gone at the end of `run`
        });
        match started {
            Ok(_) => {
                self.reading = Some(Reading { read, since: Instant::now(), is_said: false });
            }
            Err(error) => {
                let (segment, text) = (server.segment().name(), "the old settings stay in force");
                tracing::error!(segment, event = "reload_failed", problems = %error, "{text}");
                notifier.inspect(|notifier| notifier.reloaded());
            }
        }
    }

    /// How long to wait until the next call of [`Reload::look`].
    pub(super) fn pause(&self, usual: Duration) -> Duration {
        match &self.reading {
            Some(reading) if reading.since.elapsed() < SLOW => SOON,
            _ => usual,
        }
    }

    /// Applies what has been read, if reading is done, and updates `options`.
    ///
    /// If a file has an error, logs it and keeps the old values of that file.
    pub(super) fn look(
        &mut self,
        options: &mut Run,
        deadlines: &mut Option<Published>,
        server: &Server,
        notifier: Option<&Notifier>,
    ) {
        let Some(reading) = &mut self.reading else { return };
        let segment = server.segment().name();
        match reading.read.try_recv() {
            Ok(read) => follow(read, options, deadlines, server),
            Err(TryRecvError::Empty) => {
                if reading.since.elapsed() > SLOW && !std::mem::replace(&mut reading.is_said, true)
                {
                    let text = "reading the settings takes long, perhaps the disk hangs: the old \
                                settings stay in force until it answers";
                    tracing::warn!(segment, event = "reload_slow", "{text}");
                }
                return;
            }
            Err(TryRecvError::Disconnected) => {
                let (problems, text) = ("a bug in hangwatch", "the old settings stay in force");
                tracing::error!(segment, event = "reload_failed", problems, "{text}");
            }
        }
        self.reading = None;
        notifier.inspect(|notifier| notifier.reloaded());
        if std::mem::take(&mut self.is_asked_again) {
            self.ask(options, server, notifier);
        }
    }
}

/// Reads the settings and the deadlines file that they name. May block.
fn read_again(origins: &Origins, deadlines: Option<PathBuf>) -> Read {
    let program = own_program();
    let settings = origins.file.as_deref().map(|file| {
        let variables = Variables::of_process();
        match reading::read_apart(&program, file, config::FILE_BYTES) {
            Ok(contents) => {
                config::reread(origins, &variables.with_file(file.to_owned(), contents))
            }
            Err(error) => Err(Problems::of_file(file, &error)),
        }
    });
    let named = match &settings {
        Some(Ok(again)) => again.deadlines.clone(),
        Some(Err(_)) | None => deadlines,
    };
    let deadlines = named.map(|path| {
        let read = read_deadlines(&program, &path);
        (path, read)
    });
    Read { settings, deadlines }
}

fn read_deadlines(program: &Path, path: &Path) -> Result<Deadlines, String> {
    let contents = reading::read_apart(program, path, Deadlines::MOST_BYTES);
    Deadlines::of(path, contents.map(|contents| contents.text))
        .map_err(|error| OneLine(&error).to_string())
}

fn follow(read: Read, options: &mut Run, deadlines: &mut Option<Published>, server: &Server) {
    let segment = server.segment().name();
    match read.settings {
        Some(Ok(again)) => follow_settings(&again, options, server),
        Some(Err(problems)) => {
            let problems = problems.to_string();
            let text = "the old settings stay in force";
            tracing::error!(segment, event = "reload_failed", problems, "{text}");
        }
        None => {
            let text = "no settings to read again: there is no settings file (--config)";
            tracing::info!(segment, event = "reloaded", "{text}");
        }
    }
    if let Some((path, read)) = read.deadlines {
        // Without a file so far, this is the first.
        deadlines.get_or_insert_with(Published::nothing).renew(&path, read, server);
    }
}

fn follow_settings(again: &Run, options: &mut Run, server: &Server) {
    let segment = server.segment().name();
    let changed = note_changes(segment, options, again);
    (options.reap, options.notify_only) = (again.reap, again.notify_only);
    (options.max_reaps, options.warn_at) = (again.max_reaps, again.warn_at);
    (options.holds, options.cascade) = (again.holds, again.cascade);
    options.deadlines.clone_from(&again.deadlines);
    server.set_policy(whole_policy(options));
    server.set_holds(holds(options));
    let file = options.origins.file.as_deref().unwrap_or(Path::new("")).display();
    tracing::info!(segment, event = "reloaded", %file, changed, "settings read again");
}

/// The names of changed settings. Logs each changed setting that needs a restart.
fn note_changes(segment: &str, options: &mut Run, again: &Run) -> String {
    let mut changed = Vec::new();
    for (was, is) in options.origins.settings.iter_mut().zip(&again.origins.settings) {
        let Setting { name, value, .. } = is;
        if was.value == *value {
            continue;
        }
        if REREAD.contains(&name.as_str()) {
            changed.push(name.as_str());
            *was = is.clone();
        } else {
            let (was, is) = (was.value.as_deref(), value.as_deref());
            let text = "a setting has changed, but needs a restart to take effect";
            tracing::warn!(segment, event = "reload_partly", setting = name, was, is, "{text}");
        }
    }
    changed.join(" ")
}
