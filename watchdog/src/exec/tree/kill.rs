//! The removal of a tree: asks its processes to end, then stops and kills them until none is left.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::Tree;
use crate::children;
use crate::exec::lineage::{self, Identity, Stat};
use crate::exec::pause::Pause;
use crate::exec::removal::{Removal, Survival, Survivor};
use crate::relay::Relay;

/// How long after the first SIGKILL [`Tree::kill_all`] goes on. A killed process is gone
/// within milliseconds unless the kernel holds it; a fork chain is outrun within a few
/// rounds.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);

impl Tree {
    /// Removes the command and all its descendants, and reaps them.
    ///
    /// Unless `signal` is KILL, every process of the tree gets it once, followed by CONT,
    /// and `grace` to end. Then whoever is left is stopped, and found again until nobody
    /// new is there, since a stopped process cannot fork; then killed; and all of it again
    /// while anyone lives. Gives up [`KILL_LIMIT`] after the grace.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read or no descriptor can be had; then at least the command itself was
    /// killed. Processes that cannot be removed are no error, but the result's survivors.
    pub fn kill_all(&mut self, signal: Signal, grace: Duration) -> io::Result<Removal> {
        self.remove(signal, grace, None)
    }

    /// As [`Tree::kill_all`]; during the grace, signals are passed on to the command. Where the command
    /// itself has ended by then, one that would end it ends the grace instead.
    ///
    /// # Errors
    ///
    /// As [`Tree::kill_all`].
    pub fn kill_all_relaying(
        &mut self,
        signal: Signal,
        grace: Duration,
        relay: &Relay,
    ) -> io::Result<Removal> {
        self.remove(signal, grace, Some(relay))
    }

    fn remove(
        &mut self,
        signal: Signal,
        grace: Duration,
        relay: Option<&Relay>,
    ) -> io::Result<Removal> {
        self.reserve.clear();
        let removed = self.ask_and_kill(signal, grace, relay);
        removed.inspect_err(|_| drop(self.root.signal(Signal::KILL)))
    }

    fn ask_and_kill(
        &mut self,
        signal: Signal,
        grace: Duration,
        relay: Option<&Relay>,
    ) -> io::Result<Removal> {
        let mut signalled = HashSet::new();
        if signal != Signal::KILL {
            self.ask(signal, grace, relay, &mut signalled)?;
        }
        let refused = self.kill(&mut signalled)?;
        let survivors = self.survivors(&refused)?;
        Ok(Removal { status: self.status, signalled: signalled.len(), survivors })
    }

    fn ask(
        &mut self,
        signal: Signal,
        grace: Duration,
        relay: Option<&Relay>,
        signalled: &mut HashSet<Identity>,
    ) -> io::Result<()> {
        let mut asked = HashSet::new();
        let end = Instant::now().checked_add(grace);
        let mut pause = Pause::new();
        loop {
            let members = self.members()?;
            for member in &members {
                if asked.insert(member.identity) && self.send(member, signal)? == Sent::Yes {
                    signalled.insert(member.identity);
                    // A stopped process acts on nothing else than CONT and KILL.
                    self.send(member, Signal::CONT)?;
                }
            }
            if members.is_empty() || !pause.until_change(&members, relay, end)? {
                return Ok(());
            }
            if let Some(relay) = relay
                && self.pass_on_in_grace(relay)? == Grace::Over
            {
                return Ok(());
            }
        }
    }

    /// Passes on what has arrived.
    fn pass_on_in_grace(&mut self, relay: &Relay) -> io::Result<Grace> {
        while let Some(caught) = relay.next()? {
            let ends = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
            if self.status.is_none() {
                // Dead, it would take the signal with it.
                self.status = self.root.try_wait()?;
            }
            if self.status.is_none() {
                self.root.pass_on(caught);
            } else if ends.contains(&caught.signal) {
                return Ok(Grace::Over);
            }
        }
        Ok(Grace::GoesOn)
    }

    /// Returns those that the kernel did not let us signal.
    fn kill(&mut self, signalled: &mut HashSet<Identity>) -> io::Result<HashSet<Identity>> {
        let end = Instant::now() + KILL_LIMIT;
        let mut refused = HashSet::new();
        let mut pause = Pause::new();
        loop {
            let starts = children::starts();
            let members = self.stop(end)?;
            for member in &members {
                match self.send(member, Signal::KILL)? {
                    Sent::Yes => drop(signalled.insert(member.identity)),
                    Sent::Refused => drop(refused.insert(member.identity)),
                    Sent::NotOurs => {}
                }
            }
            // Who could not be told from a helper that was being started meanwhile is not among them.
            let is_any_left = !members.is_empty() || !self.reap_dead()?.is_empty();
            let none_left = !is_any_left && starts.is_some() && children::starts() == starts;
            if none_left || !pause.until_change(&members, None, Some(end))? {
                return Ok(refused);
            }
        }
    }

    /// Stops every process of the tree, so that none can fork, and returns them.
    ///
    /// A fork that is under way when the stop arrives is completed first. So the stop is
    /// over when a look finds nobody new and everybody stopped; but a process in an
    /// uninterruptible sleep never shows that, and is not waited for.
    fn stop(&mut self, end: Instant) -> io::Result<Vec<Stat>> {
        let mut stopped = HashSet::new();
        let mut patience = 20_u32;
        loop {
            let members = self.members()?;
            let mut found_new = false;
            for member in &members {
                if stopped.insert(member.identity) {
                    found_new |= self.send(member, Signal::STOP)? == Sent::Yes;
                }
            }
            if !found_new {
                patience -= 1;
                let all_stopped = members.iter().all(|member| matches!(member.state, 'T' | 't'));
                if all_stopped || patience == 0 {
                    return Ok(members);
                }
                std::thread::yield_now();
            }
            if Instant::now() >= end {
                return Ok(members);
            }
        }
    }

    fn send(&self, to: &Stat, signal: Signal) -> io::Result<Sent> {
        let Some(pidfd) = self.handle_on(to)? else { return Ok(Sent::NotOurs) };
        match rustix::process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) => Ok(Sent::Yes),
            Err(Errno::SRCH) => Ok(Sent::NotOurs),
            Err(Errno::PERM) => Ok(Sent::Refused),
            Err(error) => Err(error.into()),
        }
    }

    fn survivors(&mut self, refused: &HashSet<Identity>) -> io::Result<Vec<Survivor>> {
        let survivor = |stat: Stat| Survivor {
            pid: stat.identity.pid,
            command: lineage::command_name(stat.identity.pid).unwrap_or_default(),
            state: stat.state,
            why: if refused.contains(&stat.identity) {
                Survival::NotPermitted
            } else {
                Survival::Unkillable { wait_channel: lineage::wait_channel(stat.identity.pid) }
            },
        };
        Ok(self.members()?.into_iter().map(survivor).collect())
    }
}

/// Whether the tree has time left to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grace {
    GoesOn,
    Over,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    /// The process is gone, or has turned out not to be of the tree.
    NotOurs,
    /// The kernel does not permit it.
    Refused,
}
