//! `hangwatch status`: shows all lanes of a segment as a table or as JSON.

use std::fmt::Write;
use std::time::Duration;

use hangwatch::sys::lock::Holder;
use hangwatch::sys::name::SEGMENT_DIR;
use hangwatch::{Observation, OpenError, Segment, TimerView};
use hangwatch_core::wire::timer::TimerState;
use serde::Serialize;

use super::{Failure, complain, print, segments};
use crate::cli::{Observed, Status};
use crate::exit::Exit;
use hangwatch_http::state::{Commands, SegmentState};
pub(super) use hangwatch_text::brief;
use hangwatch_text::{plain_cell, to_json_pretty};

#[derive(Debug, thiserror::Error)]
#[error("cannot list the segments in {SEGMENT_DIR}: {source}; check that a tmpfs is mounted there")]
struct NoDirectory {
    source: std::io::Error,
}

pub(super) fn perform(options: &Status) -> Result<Exit, Failure> {
    show(&options.observed, |seen| json(seen.iter().map(SegmentState::of)), table)
}

/// Prints each segment as a table, or all as JSON.
pub(super) fn show(
    options: &Observed,
    json: impl Fn(&[Observation]) -> serde_json::Result<String>,
    table: impl Fn(&Observation) -> String,
) -> Result<Exit, Failure> {
    let (seen, exit) = observed(options.segment.as_deref())?;
    if options.json {
        print(&(json(&seen)? + "\n"))?;
    } else if seen.is_empty() && exit == Exit::Ok {
        print("no readable segment; `hangwatch run --segment NAME` creates one\n")?;
    } else {
        print(&seen.iter().map(table).collect::<Vec<_>>().join("\n"))?;
    }
    Ok(exit)
}

/// A list in JSON.
pub(super) fn json<T: Serialize>(items: impl Iterator<Item = T>) -> serde_json::Result<String> {
    to_json_pretty(&items.collect::<Vec<T>>())
}

/// Observes the segment of this name, or all that this user can read.
///
/// Errors are printed and make the exit code a failure.
pub(super) fn observed(segment: Option<&str>) -> Result<(Vec<Observation>, Exit), Failure> {
    let mut exit = Exit::Ok;
    let mut seen = Vec::new();
    let names = match segment {
        Some(name) => vec![name.to_owned()],
        None => Segment::list().map_err(|source| NoDirectory { source })?,
    };
    for name in &names {
        match Segment::observe(name) {
            Ok(observation) => seen.push(observation),
            // Without a name, segments that cannot be read are skipped.
            Err(error) if segment.is_none() && is_not_for_us(&error) => {}
            Err(error) => {
                complain(&error);
                exit = Exit::Failed;
            }
        }
    }
    Ok((seen, exit))
}

/// Whether the segment is another user's, or has been removed since it was listed.
fn is_not_for_us(error: &OpenError) -> bool {
    matches!(error, OpenError::File { source, .. } if segments::is_not_for_us(source))
}

/// One segment as a table of at most 80 columns.
pub(super) fn table(seen: &Observation) -> String {
    let mut text = String::new();
    let watchdog = match seen.watchdog.holder {
        Holder::Process(pid) => format!("watchdog {pid}"),
        Holder::Unseen | Holder::Description => "watchdog in another PID namespace".to_owned(),
        Holder::Free if seen.lanes.is_empty() => "no watchdog".to_owned(),
        Holder::Free => "NO WATCHDOG".to_owned(),
    };
    let brake = if seen.watchdog.limited { ", KILL LIMITER ENGAGED" } else { "" };
    let _ = writeln!(
        text,
        "segment {}: {watchdog}{brake}, {} of {} lanes in use",
        seen.segment,
        seen.lanes.len(),
        seen.lane_count
    );
    if seen.watchdog.holder == Holder::Free && !seen.lanes.is_empty() {
        let _ = writeln!(
            text,
            "  no deadline is enforced: start `hangwatch run --segment {}`",
            seen.segment
        );
    }
    if !seen.lanes.is_empty() {
        let _ = writeln!(
            text,
            "{:>5} {:>8} {:<15} {:>4}  {:<22} {:>7} {:>9}",
            "LANE", "PID", "COMMAND", "RANK", "SCOPE", "AGE", "LEFT"
        );
    }
    let mut commands = Commands::default();
    for lane in &seen.lanes {
        let command = commands.of(lane).unwrap_or_else(|| "-".to_owned());
        let command = shortened(&command, 15);
        let rank = lane.rank.map_or_else(|| "-".to_owned(), |rank| rank.to_string());
        let head = format!("{:>5} {:>8} {:<15} {rank:>4}", lane.lane, lane.pid, command);
        if lane.quarantined {
            let _ = writeln!(text, "{head}  (quarantined: inconsistent values)");
        } else if lane.timers.is_empty() {
            let _ = writeln!(text, "{head}  (no timer armed)");
        }
        // The innermost scope on the lane's line, the outer ones below it.
        for (depth, timer) in lane.timers.iter().enumerate() {
            let head = if depth == 0 { head.clone() } else { " ".repeat(head.len()) };
            let _ = writeln!(
                text,
                "{head}  {:<22} {:>7} {:>9}",
                shortened(&timer.scope, 22),
                brief(timer.age),
                left(timer)
            );
        }
    }
    text
}

fn left(timer: &TimerView) -> String {
    match (timer.state, timer.left_ns) {
        (TimerState::Condemned, _) => "expired".to_owned(),
        (TimerState::Reported, _) => "reported".to_owned(),
        (TimerState::Limited, _) => "braked".to_owned(),
        (_, None) => "paused".to_owned(),
        (_, Some(left)) if left < 0 => {
            format!("-{}", brief(Duration::from_nanos(left.unsigned_abs())))
        }
        (_, Some(left)) => brief(Duration::from_nanos(left.unsigned_abs())),
    }
}

/// A name without control characters; a long name is shortened to its end, which says more.
pub(super) fn shortened(name: &str, width: usize) -> String {
    plain_cell(name).end(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_and_control_characters_fit() {
        assert_eq!(shortened("forward", 7), "forward");
        assert_eq!(shortened("train.py#41", 5), "\u{2026}y#41");
        assert_eq!(shortened("a\u{1b}[2Jb\u{9b}\u{202e}", 10), "a?[2Jb??");
    }
}
