//! The wait between two looks at a tree of processes.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::PidfdFlags;

use hangwatch_core::wire::time::{Nanos, duration_ns};

use crate::lineage::Stat;
use crate::relay::Relay;
use crate::running_time::RunningTime;

/// Waits between two looks at the tree: until a process of it ends, and a little longer
/// each time, for the deaths that this process cannot see.
pub(super) struct Pause {
    next: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(1);
    const LONGEST: Duration = Duration::from_millis(50);
    /// How many are watched at once, out of regard for the limit on descriptors.
    const WATCHED: usize = 16;

    pub(super) fn new() -> Self {
        Self { next: Self::FIRST }
    }

    /// Waits at most until `clock` reaches `end`, and returns whether that is still ahead. A signal
    /// that the relay catches ends the wait, too.
    pub(super) fn until_change(
        &mut self,
        members: &[Stat],
        relay: Option<&Relay>,
        clock: &mut RunningTime,
        end: Nanos,
    ) -> io::Result<bool> {
        let now = clock.now();
        if now >= end {
            return Ok(false);
        }
        let pidfds: Vec<_> = members
            .iter()
            .take(Self::WATCHED)
            .filter_map(|m| rustix::process::pidfd_open(m.identity.pid, PidfdFlags::empty()).ok())
            .collect();
        let mut polled: Vec<_> =
            pidfds.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
        polled.extend(relay.map(|relay| PollFd::new(relay, PollFlags::IN)));
        let until = end.min(now.plus(duration_ns(self.next)));
        let sleep = clock.sleep_towards(until).saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(sleep).map_err(io::Error::other)?;
        self.next = (self.next * 2).min(Self::LONGEST);
        let polled = rustix::event::poll(&mut polled, Some(&timeout));
        clock.wake();
        match polled {
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
