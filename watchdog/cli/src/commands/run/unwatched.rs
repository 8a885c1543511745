//! The warning of `run -- CMD` if no worker attaches: without deadlines nothing is watched.

use std::time::{Duration, Instant};

use hangwatch::Segment;

use crate::cli::Run;

/// How long a command may run without a worker before the warning.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a worker has attached, and whether the warning was given.
pub(super) struct Unwatched {
    since: Instant,
    is_said: bool,
}

impl Unwatched {
    /// Call it when the command starts.
    pub(super) fn new(now: Instant) -> Unwatched {
        Unwatched { since: now, is_said: false }
    }

    /// Warns once if no worker has attached in time.
    pub(super) fn look(&mut self, segment: Segment, options: &Run, now: Instant) {
        let is_watched = segment.words().lanes_used() > 0;
        if self.is_to_be_said(is_watched, now) {
            let seconds = PATIENCE.as_secs();
            warn(
                segment,
                options,
                &format!("nothing is watched: no worker has attached within {seconds} s"),
            );
        }
    }

    fn is_to_be_said(&mut self, is_watched: bool, now: Instant) -> bool {
        let is_due = now.saturating_duration_since(self.since) >= PATIENCE;
        // Workers that have ended may come back.
        let is_to_be_said = is_due && !is_watched && !self.is_said;
        self.is_said |= is_to_be_said || is_watched;
        is_to_be_said
    }
}

/// Warns at the command's end, if no worker ever attached.
pub(super) fn say_at_end(segment: Segment, options: &Run) {
    if segment.words().lanes_used() == 0 {
        warn(segment, options, "nothing was watched: no worker has attached");
    }
}

fn warn(segment: Segment, options: &Run, what: &str) {
    tracing::warn!(segment = segment.name(), event = "unwatched", "{what}; {}", remedy(options));
}

fn remedy(options: &Run) -> &'static str {
    if options.automatic.asked().is_some() {
        "--auto guards torch jobs after init_process_group, and needs the Python package hangwatch in \
         the command's interpreter (pip install)"
    } else {
        "for a torch job add --auto (`hangwatch run --auto -- CMD`); in other Python code add two lines: \
         `import hangwatch` and `with hangwatch.expires(30, \"step\"):`"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unwatched_command_is_warned_once() {
        let start = Instant::now();
        let later = start + PATIENCE;
        let mut unwatched = Unwatched::new(start);
        assert!(!unwatched.is_to_be_said(false, start));
        assert!(unwatched.is_to_be_said(false, later));
        assert!(!unwatched.is_to_be_said(false, later));
    }

    #[test]
    fn a_watched_command_is_not_warned() {
        let start = Instant::now();
        let mut unwatched = Unwatched::new(start);
        assert!(!unwatched.is_to_be_said(true, start));
        assert!(!unwatched.is_to_be_said(false, start + PATIENCE));
    }
}
