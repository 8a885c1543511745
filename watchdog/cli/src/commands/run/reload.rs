//! SIGHUP: the settings are read again, while every timer stays as it is.
//!
//! [`Reload`] is the one place where that happens. The files are read on a thread and by a process of
//! their own: a disk that hangs delays nothing but the new settings, and above all not SIGTERM. What is
//! done about expired timers changes between two ticks; what the segment, the threads and the sockets
//! were made with does not, and is named.

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

/// How long a file may take to be read before the log speaks of it.
const SLOW: Duration = Duration::from_secs(2);
/// How often it is looked whether it is read; once it is slow, no more often than anything else.
const SOON: Duration = Duration::from_millis(10);

/// What was read.
struct Read {
    /// `None` where the settings are not from a file.
    settings: Option<Result<Run, Problems>>,
    deadlines: Option<(PathBuf, Result<Deadlines, String>)>,
}

/// A reading under way.
struct Reading {
    read: Receiver<Read>,
    since: Instant,
    is_said: bool,
}

/// Reads the settings again when it is asked to.
#[derive(Default)]
pub(super) struct Reload {
    reading: Option<Reading>,
    /// Asked for while a reading was under way, which may have read what was there before.
    is_asked_again: bool,
}

impl Reload {
    /// Begins to read the settings and the deadlines again.
    pub(super) fn ask(&mut self, options: &Run, server: &Server, notifier: Option<&Notifier>) {
        if self.reading.is_some() {
            self.is_asked_again = true;
            return;
        }
        notifier.inspect(|notifier| notifier.reloading());
        let (sender, read) = channel();
        let (origins, deadlines) = (options.origins.clone(), options.deadlines.clone());
        let named = thread::Builder::new().name("hangwatch-settings".to_owned());
        // Never joined: the process that it waits for may be stuck with a disk.
        let started = named.spawn(move || {
            let _ = sender.send(read_again(&origins, deadlines)); // nobody waits at the end
        });
        match started {
            Ok(_) => {
                self.reading = Some(Reading { read, since: Instant::now(), is_said: false });
            }
            Err(error) => {
                let (segment, text) = (server.segment().name(), "the settings stay as they were");
                tracing::error!(segment, event = "reload_failed", problems = %error, "{text}");
                notifier.inspect(|notifier| notifier.reloaded());
            }
        }
    }

    /// How soon [`Reload::look`] is to be called again, where that is sooner than usual.
    pub(super) fn pause(&self, usual: Duration) -> Duration {
        match &self.reading {
            Some(reading) if reading.since.elapsed() < SLOW => SOON,
            _ => usual,
        }
    }

    /// Has the server follow what has been read, if it has; `options` is what it follows then. What is
    /// wrong with a file is said, and all stays as that file said it before.
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
                    let text = "the disk of the settings does not answer: they stay as they were \
                                until it does";
                    tracing::warn!(segment, event = "reload_slow", "{text}");
                }
                return;
            }
            Err(TryRecvError::Disconnected) => {
                let (problems, text) = ("a bug in hangwatch", "the settings stay as they were");
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

/// Reads the settings, and the deadlines file that they name: as long as that takes.
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
            let text = "the settings stay as they were";
            tracing::error!(segment, event = "reload_failed", problems, "{text}");
        }
        None => {
            let text = "no settings to read again: they are not from a file (--config)";
            tracing::info!(segment, event = "reloaded", "{text}");
        }
    }
    if let Some((path, read)) = read.deadlines {
        // Without any so far: as one whose file is still to be read.
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

/// Which settings have changed that can; the others are named in the log, each time again.
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
            let text = "a setting has changed that takes a restart";
            tracing::warn!(segment, event = "reload_partly", setting = name, was, is, "{text}");
        }
    }
    changed.join(" ")
}
