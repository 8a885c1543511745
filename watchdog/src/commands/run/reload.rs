//! SIGHUP: the settings are read again, while every timer stays as it is.
//!
//! [`reload`] is the one place where that happens. What is done about expired timers changes between
//! two ticks; what the segment, the threads and the sockets were made with does not, and is named.

use super::published::Published;
use super::{holds, whole_policy};
use crate::cli::Run;
use crate::cli::config::{self, REREAD, Setting, Variables};
use crate::notify::Notifier;
use crate::server::Server;

/// Reads the settings and the deadlines again and has the server follow them; `options` is what it
/// follows then. What is wrong with a file is said, and all stays as that file said it before.
pub(super) fn reload(
    options: &mut Run,
    deadlines: &mut Option<Published>,
    server: &Server,
    notifier: Option<&Notifier>,
) {
    notifier.inspect(|notifier| notifier.reloading());
    reload_settings(options, server);
    if let Some(path) = &options.deadlines {
        // Without any so far: as one whose file is still to be read.
        deadlines.get_or_insert_with(Published::nothing).reread(path, server);
    }
    notifier.inspect(|notifier| notifier.reloaded());
}

fn reload_settings(options: &mut Run, server: &Server) {
    let segment = server.segment().name();
    let Some(file) = options.origins.file.clone() else {
        let text = "no settings to read again: they are not from a file (--config)";
        tracing::info!(segment, event = "reloaded", "{text}");
        return;
    };
    let again = match config::reread(options, &Variables::of_process()) {
        Ok(again) => again,
        Err(problems) => {
            let problems = problems.to_string();
            let text = "the settings stay as they were";
            tracing::error!(segment, event = "reload_failed", problems, "{text}");
            return;
        }
    };
    let changed = note_changes(segment, options, &again);
    (options.reap, options.notify_only) = (again.reap, again.notify_only);
    (options.max_reaps, options.warn_at) = (again.max_reaps, again.warn_at);
    (options.holds, options.cascade) = (again.holds, again.cascade);
    options.deadlines = again.deadlines;
    server.set_policy(whole_policy(options));
    server.set_holds(holds(options));
    let file = file.display();
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
