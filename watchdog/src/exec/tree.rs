//! A command with all its descendants, and their removal.
//!
//! [`Tree::spawn`] makes this process the subreaper of what it starts (prctl(2),
//! `PR_SET_CHILD_SUBREAPER`): a descendant whose parent ends becomes our child instead of
//! init's. So a double fork, `setsid` or a closed terminal lets nobody out of the tree,
//! and the tree is gone when none of our children belongs to it any more.
//!
//! Every signal goes through a pidfd, to a process of which `lineage` has proved, after
//! the pidfd was opened, that it descends from the command.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::lineage::{self, Identity, Stat};
use super::pause::Pause;
use super::removal::{Removal, Survival, Survivor};
use crate::child::{Child, Event, StartError, Step, Until};
use crate::evidence::children::{self, Kind};
use crate::relay::Relay;

/// Set in the environment of every command of a tree, to the identity of the hangwatch
/// that started it: `PID.START`.
pub const MARK: &str = "HANGWATCH_EXEC";

/// How long after the first SIGKILL [`Tree::kill_all`] goes on. A killed process is gone
/// within milliseconds unless the kernel holds it; a fork chain is outrun within a few
/// rounds.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Descriptors kept for the removal: it opens three at once, and other threads of this process may
/// snatch some.
const RESERVE: usize = 8;

/// A started command and whatever descends from it.
///
/// A drop ends nothing. This process stays a subreaper.
#[derive(Debug)]
pub struct Tree {
    root: Child,
    root_identity: Identity,
    status: Option<ExitStatus>,
    /// Children of this process that are not of the tree.
    others: HashSet<Identity>,
    /// Descendants of the command that were seen as such. Filled only while `others` has
    /// any: otherwise every child of ours is the command's.
    seen: HashSet<Identity>,
    /// `HANGWATCH_EXEC=...` of this tree.
    mark: String,
    /// Given up when they are needed.
    reserve: Vec<OwnedFd>,
}

/// A tree that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// This process cannot look after descendants.
    #[error("cannot look after descendants of a command: {what}")]
    Unable {
        /// What failed, and what to do.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The command itself.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Tree {
    /// Makes this process a subreaper and starts the command.
    ///
    /// Children that this process has already, and their descendants, are left alone
    /// for ever. A child started later, by whatever part of this process, must be named
    /// to [`Tree::leave_alone`], or it is taken for an orphan of the command.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read, or the command cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self, SpawnError> {
        let proc = |source| SpawnError::Unable { what: "reading /proc (is it mounted?)", source };
        let me = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(me)).map_err(|error| SpawnError::Unable {
            what: "becoming their subreaper (prctl)",
            source: error.into(),
        })?;
        let own = identity(me).map_err(proc)?;
        let others = lineage::own_children().map_err(proc)?.into_iter();
        let others = others.filter_map(|pid| identity(pid).ok()).collect();
        let value = format!("{}.{}", own.pid, own.start);
        let mark = format!("{MARK}={value}");
        let spare = |_| rustix::process::pidfd_open(me, PidfdFlags::empty());
        let reserve: Result<Vec<OwnedFd>, Errno> = (0..RESERVE).map(spare).collect();
        let reserve = reserve.map_err(|error| SpawnError::Unable {
            what: "too few open files are allowed to remove them (raise it with ulimit -n)",
            source: error.into(),
        })?;
        let root = Child::start(command.env(MARK, value))?;
        // Not reaped yet, so that it is there to be read, even if it has ended.
        let root_identity = identity(root.pid()).map_err(|error| {
            // Nobody will look after it: it must not run on.
            let _ = root.signal(Signal::KILL);
            proc(error)
        })?;
        let seen = HashSet::new();
        Ok(Self { root, root_identity, status: None, others, seen, mark, reserve })
    }

    /// The pid of the command itself.
    pub fn pid(&self) -> Pid {
        self.root.pid()
    }

    /// Declares a child of this process not to be of the tree. Call it before that child
    /// can leave an orphan.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read, or there is no such process.
    pub fn leave_alone(&mut self, child: Pid) -> io::Result<()> {
        self.others.insert(identity(child)?);
        Ok(())
    }

    /// Passes signals on to the command and reaps its orphans until the command ends, or
    /// until something else does. Descendants that outlive the command are left running.
    ///
    /// # Errors
    ///
    /// The wait fails.
    pub fn wait(&mut self, relay: &Relay, until: Until<'_>) -> io::Result<Event> {
        loop {
            if let Some(status) = self.status {
                return Ok(Event::Ended(status));
            }
            match self.root.step(relay, until)? {
                // Who cannot be reaped now is at the next change, or at the removal.
                Step::ChildChanged => drop(self.reap_dead()),
                Step::Event(event) => {
                    if let Event::Ended(status) = event {
                        self.status = Some(status);
                    }
                    return Ok(event);
                }
            }
        }
    }

    /// Holds living processes of the tree, so many at most, each by its pid and a pidfd: the command
    /// first, then those without children, in whom the work is done. And how many more there are.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read or no descriptor can be had.
    pub(super) fn hold(&mut self, most: usize) -> io::Result<(Vec<(Pid, OwnedFd)>, usize)> {
        let mut members = self.members()?;
        let parents: HashSet<Pid> = members.iter().filter_map(|member| member.parent).collect();
        members.sort_by_key(|member| {
            (member.identity != self.root_identity, parents.contains(&member.identity.pid))
        });
        let mut held = Vec::new();
        for member in members.iter().take(most) {
            held.extend(self.handle_on(member)?.map(|pidfd| (member.identity.pid, pidfd)));
        }
        Ok((held, members.len().saturating_sub(most)))
    }

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
            let members = self.stop(end)?;
            for member in &members {
                match self.send(member, Signal::KILL)? {
                    Sent::Yes => drop(signalled.insert(member.identity)),
                    Sent::Refused => drop(refused.insert(member.identity)),
                    Sent::NotOurs => {}
                }
            }
            let none_left =
                members.is_empty() && self.reap_dead()?.is_empty() && !children::is_any_starting();
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

    /// The living processes of the tree, after those that are dead and ours have been
    /// reaped.
    fn members(&mut self) -> io::Result<Vec<Stat>> {
        let roots = self.reap_dead()?;
        let members = lineage::living_descendants(&roots)?;
        if !self.others.is_empty() {
            self.seen.extend(members.iter().map(|member| member.identity));
        }
        Ok(members)
    }

    /// Reaps the children of ours that are of the tree and dead, and returns the rest of
    /// those of the tree.
    fn reap_dead(&mut self) -> io::Result<Vec<Pid>> {
        let mut left = Vec::new();
        for pid in lineage::own_children()? {
            let Some(stat) = Stat::read(pid)? else { continue };
            if stat.identity == self.root_identity {
                self.status = self.root.try_wait()?;
                if self.status.is_none() {
                    left.push(pid);
                }
            } else if self.is_of_tree(stat.identity) && !(stat.is_dead() && reap(pid)?) {
                left.push(pid);
            }
        }
        Ok(left)
    }

    /// Whether a child of this process is of the tree.
    ///
    /// An orphan's origin is nowhere written down. While this process has no other
    /// children but helpers, each must be the command's; otherwise, and as long as a helper
    /// is being started, only one that was seen below the command before, or bears the mark
    /// in its environment, is taken for it.
    fn is_of_tree(&self, child: Identity) -> bool {
        if child == self.root_identity {
            return true;
        }
        if self.others.contains(&child) || child.start < self.root_identity.start {
            return false;
        }
        let kind = children::kind_of(child);
        if kind == Kind::Helper {
            return false;
        }
        (self.others.is_empty() && kind == Kind::Other)
            || self.seen.contains(&child)
            || lineage::has_in_environment(child.pid, &self.mark)
    }

    /// A pidfd of a process, which is of the tree if it is alive; `None` if it is gone, or has turned
    /// out not to be of the tree.
    fn handle_on(&self, process: &Stat) -> io::Result<Option<OwnedFd>> {
        let pid = process.identity.pid;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            pidfd => pidfd?,
        };
        let Some(branch) = lineage::branch(pid)? else { return Ok(None) };
        let ours = Stat::read(branch)?.is_some_and(|stat| self.is_of_tree(stat.identity));
        Ok(ours.then_some(pidfd))
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

fn identity(pid: Pid) -> io::Result<Identity> {
    match Stat::read(pid)? {
        Some(stat) => Ok(stat.identity),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no process {pid} in /proc"))),
    }
}

/// Reaps a dead child and returns whether that worked.
fn reap(pid: Pid) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match rustix::process::waitid(WaitId::Pid(pid), options) {
        Ok(status) => Ok(status.is_some()),
        // Somebody else was faster.
        Err(Errno::CHILD) => Ok(true),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(tree: &Tree) {
        tree.root.signal(Signal::KILL).unwrap();
        while !reap(tree.pid()).unwrap() {
            std::thread::yield_now();
        }
    }

    /// Signals nobody: tests beside it have children of this process, too.
    #[test]
    fn a_helper_is_none_of_the_tree_from_its_start_on() {
        let tree = Tree::spawn(Command::new("sleep").arg("1000")).unwrap();
        let (_, value) = tree.mark.split_once('=').unwrap();
        let starting = children::starting();
        // Even the mark, by which else it would be taken for an orphan of the command, says nothing.
        let mut helper = Command::new("sleep").arg("1000").env(MARK, value).spawn().unwrap();
        let helper_identity = identity(Pid::from_child(&helper)).unwrap();
        // (Its environment is there a moment after it has been started.)
        while !tree.is_of_tree(helper_identity) {
            std::thread::yield_now();
        }
        starting.has_begun(helper.id());
        let is_of_tree = tree.is_of_tree(helper_identity);
        helper.kill().unwrap();
        helper.wait().unwrap();
        children::ended(helper.id());
        end(&tree);
        assert!(!is_of_tree);
    }

    #[test]
    fn while_a_helper_is_started_an_unknown_child_is_left_alone() {
        let tree = Tree::spawn(Command::new("sleep").arg("1000")).unwrap();
        let starting = children::starting();
        let mut child = Command::new("sleep").arg("1000").env_clear().spawn().unwrap();
        let is_of_tree = tree.is_of_tree(identity(Pid::from_child(&child)).unwrap());
        drop(starting);
        child.kill().unwrap();
        child.wait().unwrap();
        end(&tree);
        assert!(!is_of_tree);
    }
}
