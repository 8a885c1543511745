//! Finds what `run` still has to watch: the workers of a segment, and the processes that start workers.
//!
//! A process that starts workers, such as an agent, may have none for a moment: `run` waits for it, too. It
//! is the parent of a worker and has the segment's name in its environment. This module never signals.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use hangwatch::{SEGMENT_VARIABLE, Segment};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::segments;
use super::standby::is_readable;
use hangwatch_process::lineage::{self, Stat};

/// The most parents to wait for.
const MAKERS: usize = 64;

/// The processes that a watchdog waits for before it ends.
pub(super) struct Left {
    segment: Segment,
    /// The variable that a process of the job has in its environment.
    assignment: String,
    makers: BTreeMap<i32, OwnedFd>,
}

impl Left {
    pub(super) fn new(segment: Segment) -> Left {
        let assignment = format!("{SEGMENT_VARIABLE}={}", segment.name());
        Left { segment, assignment, makers: BTreeMap::new() }
    }

    /// Whether all workers, and all processes that were seen to start one, have ended.
    pub(super) fn is_over(&mut self) -> bool {
        self.makers.retain(|_, maker| !is_readable(maker.as_fd()));
        let workers = segments::workers(self.segment);
        for worker in &workers {
            self.note_maker_of(*worker);
        }
        workers.is_empty() && self.makers.is_empty()
    }

    fn note_maker_of(&mut self, worker: u32) {
        let parent_of = |pid| Stat::read(pid).ok().flatten().and_then(|stat| stat.parent);
        let Some(worker) = i32::try_from(worker).ok().and_then(Pid::from_raw) else { return };
        let Some(parent) = parent_of(worker) else { return };
        let is_known = self.makers.contains_key(&parent.as_raw_pid());
        if is_known || self.makers.len() >= MAKERS || parent == rustix::process::getpid() {
            return;
        }
        let Ok(maker) = pidfd_open(parent, PidfdFlags::empty()) else { return };
        if lineage::has_in_environment(parent, &self.assignment)
            && parent_of(worker) == Some(parent)
        {
            self.makers.insert(parent.as_raw_pid(), maker);
        }
    }
}

/// Workers, as the log names them.
pub(super) struct Workers(pub(super) BTreeSet<u32>);

impl Workers {
    pub(super) fn of(segment: Segment) -> Workers {
        Workers(segments::workers(segment))
    }

    /// Their number.
    pub(super) fn count(&self) -> String {
        match self.0.len() {
            1 => "1 worker".to_owned(),
            count => format!("{count} workers"),
        }
    }

    /// The first of their pids.
    pub(super) fn list(&self) -> String {
        const SHOWN: usize = 8;
        let mut text = String::new();
        for (place, pid) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            let _ = write!(text, "{comma}{pid}");
        }
        if self.0.len() > SHOWN {
            let _ = write!(text, " and {} more", self.0.len() - SHOWN);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_workers_are_shortened() {
        let workers = |pids: std::ops::Range<u32>| Workers(pids.collect());
        assert_eq!(workers(7..8).count(), "1 worker");
        assert_eq!(
            (workers(1..3).count(), workers(1..3).list()),
            ("2 workers".into(), "1, 2".into())
        );
        assert_eq!(workers(1..12).list(), "1, 2, 3, 4, 5, 6, 7, 8 and 3 more");
    }
}
