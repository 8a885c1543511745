//! A command with all its descendants, and their removal.
//!
//! [`Tree::spawn`] makes this process the subreaper of what it starts (prctl(2),
//! `PR_SET_CHILD_SUBREAPER`): a descendant whose parent ends becomes our child instead of
//! init's. So a double fork, `setsid` or a closed terminal lets nobody out of the tree,
//! and the tree is gone when none of our children belongs to it any more. `kill` removes it.
//!
//! Every signal goes through a pidfd, to a process of which `lineage` has proved, after
//! the pidfd was opened, that it descends from the command.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, getrlimit, setrlimit,
};

use crate::child::{self, Child, Event, StartError, Step, Until};
use crate::children::{self, Kind};
use crate::lineage::{self, Identity, Line, Stat};
use crate::relay::{Caught, Relay, Sender};
use crate::start::Terms;
use crate::tree::guard::Guard;
use hangwatch_text::plain;

pub use self::kill::KILL_LIMIT;

mod guard;
mod kill;
pub mod pause;
pub mod removal;

/// Set in the environment of every command of a tree, to the identity of the hangwatch
/// that started it: `PID.START`.
pub const MARK: &str = "HANGWATCH_EXEC";

/// Descriptors kept for the removal: it opens three at once, and other threads of this process may
/// snatch some.
const RESERVE: usize = 8;

/// Lists of the children of this process in one look at the tree, at most.
const LISTS: usize = 64;

/// Looks at a tree that a signal is to reach as a whole, at most.
const LOOKS: usize = 8;

/// A started command and whatever descends from it.
///
/// A drop ends nothing. This process stays a subreaper.
#[derive(Debug)]
pub struct Tree {
    root: Child,
    /// Nothing of the tree was started before this, in clock ticks after boot.
    began: u64,
    status: Option<ExitStatus>,
    /// Children of this process that are not of the tree.
    others: HashSet<Identity>,
    /// Descendants of the command that were seen as such. Filled only while `others` has
    /// any: otherwise every child of ours is the command's.
    seen: HashSet<Identity>,
    /// Living processes that were proved to be of the tree: they stay so, whoever their parents are by then.
    proved: HashSet<Identity>,
    /// The numbers of the signals that arrived for it.
    arrived: HashSet<i32>,
    /// Whether a process sent a signal that tells it to end.
    is_told_to_end: bool,
    /// `HANGWATCH_EXEC=...` of this tree.
    mark: String,
    /// The soft limit by which descendants of the command are told from those of children that this
    /// process had before; `None` where it had none. See [`LimitMark`].
    limit: Option<u64>,
    /// Given up when they are needed.
    reserve: Vec<OwnedFd>,
    /// Knows whom this process stops; `None` after a removal.
    guard: Option<Guard>,
}

/// What a wait for the rest of a tree ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// None of it lives.
    Gone,
    /// It is told to end once more.
    ToldToEnd,
    /// The instant to wait until has passed.
    TimedOut,
}

/// What tells a command, and all that it has started, to end.
const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

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
        Self::spawn_on(command, &Terms::default())
    }

    /// As [`Tree::spawn`], on these terms.
    ///
    /// # Errors
    /// As [`Tree::spawn`].
    pub fn spawn_on(command: &mut Command, terms: &Terms) -> Result<Self, SpawnError> {
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
        // Before there is a command that could take all processes.
        let guard = Guard::start().map_err(|source| SpawnError::Unable {
            what: "no process can be had that guards them (check the limit on processes)",
            source,
        })?;
        let others: HashSet<Identity> = others;
        let limit = if others.is_empty() { None } else { LimitMark::set(own.pid) };
        let root = Child::start_on(command.env(MARK, value), terms)?;
        let limit = limit.map(|mark| mark.value);
        Ok(Self {
            root,
            began: own.start,
            status: None,
            others,
            seen: HashSet::new(),
            proved: HashSet::new(),
            arrived: HashSet::new(),
            is_told_to_end: false,
            mark,
            limit,
            reserve,
            guard: Some(guard),
        })
    }

    /// The pid of the command itself.
    pub fn pid(&self) -> Pid {
        self.root.pid()
    }

    /// Why the command was never executed, once it has ended; `None` if it was. Ask once.
    pub fn start_error(&self) -> Option<StartError> {
        self.root.start_error()
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

    /// Passes signals on and reaps the command's orphans until the command ends, or
    /// until something else does. Descendants that outlive the command are left running.
    ///
    /// INT, TERM, HUP and QUIT go to every process of the tree, every other signal to the command alone.
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
                Step::Signal(caught) if caught.signal == Signal::CHILD => drop(self.reap_dead()),
                Step::Signal(caught) => self.pass_on(caught),
                Step::Event(event) => {
                    if let Event::Ended(status) = event {
                        self.status = Some(status);
                    }
                    return Ok(event);
                }
            }
        }
    }

    /// Passes a signal on, as [`Tree::wait`] says. What cannot be signalled is logged.
    fn pass_on(&mut self, caught: Caught) {
        if ENDS.contains(&caught.signal)
            && let Err(error) = self.pass_on_below(caught)
        {
            tracing::warn!(signal = ?caught.signal, %error,
                "cannot pass a signal on to what the command has started");
        }
        self.arrived.insert(caught.signal.as_raw());
        self.is_told_to_end |= caught.sender == Sender::Process && ENDS.contains(&caught.signal);
        self.root.pass_on(caught);
    }

    fn pass_on_below(&mut self, caught: Caught) -> io::Result<()> {
        for (pid, kind) in self.unseen()? {
            if kind == Kind::Other && !self.is_root(pid) {
                Self::send_unseen(pid, caught.signal)?;
            }
        }
        for member in self.all_members()? {
            let pid = member.identity.pid;
            if !self.is_root(pid)
                && child::is_for(caught, pid)
                && let Some(pidfd) = self.handle_on(&member)?
                && let Err(error) = rustix::process::pidfd_send_signal(&pidfd, caught.signal)
                && error != Errno::SRCH
            {
                let pid = pid.as_raw_nonzero();
                tracing::warn!(pid, signal = ?caught.signal, %error, "cannot pass a signal on");
            }
        }
        Ok(())
    }

    /// Whether the command has ended because it was told to, or of a signal that this process got: then
    /// what it leaves behind is not left on purpose.
    pub fn ended_as_told(&self) -> bool {
        let died_of = self.status.and_then(|status| status.signal());
        let is_told =
            self.is_told_to_end || died_of.is_some_and(|number| self.arrived.contains(&number));
        self.has_ended() && is_told
    }

    /// Whether the command itself has ended, as far as this process has looked.
    pub fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// Waits for what a command that has ended has left, until none of it lives, an INT, TERM, HUP or QUIT
    /// arrives, or `until`.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read, or the wait fails.
    pub fn wait_for_rest(&mut self, relay: &Relay, until: Instant) -> io::Result<Rest> {
        loop {
            // Each of them is below a child of this process, or is one; a list of all may miss one whose
            // parent ends meanwhile. The last of them to end is a child of this process: SIGCHLD tells.
            if self.reap_dead()?.is_empty() {
                return Ok(Rest::Gone);
            }
            while let Some(caught) = relay.next()? {
                if ENDS.contains(&caught.signal) {
                    return Ok(Rest::ToldToEnd);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Rest::TimedOut);
            }
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(relay, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The living processes of the tree, by pid and name.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn names(&mut self) -> io::Result<Vec<String>> {
        let name = |pid| lineage::command_name(pid).unwrap_or_default();
        let named = |member: &Stat| {
            let pid = member.identity.pid;
            format!("{pid} ({})", plain(&name(pid)))
        };
        Ok(self.members()?.iter().map(named).collect())
    }

    /// Holds living processes of the tree, so many at most, each by its pid and a pidfd: the command
    /// first, then those without children, in whom the work is done. And how many more there are.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read or no descriptor can be had.
    pub fn hold(&mut self, most: usize) -> io::Result<(Vec<(Pid, OwnedFd)>, usize)> {
        let mut members = self.members()?;
        let parents: HashSet<Pid> = members.iter().filter_map(|member| member.parent).collect();
        let is_root = |pid| self.is_root(pid);
        members.sort_by_key(|member| {
            (!is_root(member.identity.pid), parents.contains(&member.identity.pid))
        });
        let mut held = Vec::new();
        for member in members.iter().take(most) {
            held.extend(self.handle_on(member)?.map(|pidfd| (member.identity.pid, pidfd)));
        }
        Ok((held, members.len().saturating_sub(most)))
    }

    /// The living processes of the tree, after its dead children of this process have been reaped.
    ///
    /// Where a parent ends meanwhile, its children may be missing from the list of either parent. They are
    /// children of this process then, so these are listed again until none of them is new. Misses only
    /// what a descendant adopts that is a subreaper itself, or what outruns [`LISTS`] lists.
    fn members(&mut self) -> io::Result<Vec<Stat>> {
        let mut roots = self.reap_dead()?;
        let mut known: HashSet<Identity> = HashSet::new();
        let mut members = Vec::new();
        for _ in 0..LISTS {
            let found = lineage::living_descendants(&roots)?;
            members.extend(found.into_iter().filter(|member| known.insert(member.identity)));
            roots = self.new_children(&known)?;
            if roots.is_empty() {
                break;
            }
        }
        self.proved.retain(|process| known.contains(process));
        if !self.others.is_empty() {
            self.seen.extend(known);
        }
        Ok(members)
    }

    /// The living children of this process that are of the tree and not among those known.
    fn new_children(&self, known: &HashSet<Identity>) -> io::Result<Vec<Pid>> {
        let mut new = Vec::new();
        for pid in lineage::own_children()? {
            let stat = Stat::read(pid)?.filter(|stat| {
                let identity = stat.identity;
                !stat.is_dead() && !known.contains(&identity) && self.is_of_tree(identity)
            });
            new.extend(stat.map(|stat| stat.identity.pid));
        }
        Ok(new)
    }

    /// As [`Tree::members`], and misses none that was there when this began.
    ///
    /// One that a look missed is found by the next one. Only processes that start meanwhile keep this
    /// going, and [`LOOKS`] looks are enough for the others.
    fn all_members(&mut self) -> io::Result<Vec<Stat>> {
        let mut all = self.members()?;
        let mut known: HashSet<Identity> = all.iter().map(|member| member.identity).collect();
        for _ in 1..LOOKS {
            let before = all.len();
            all.extend(self.members()?.into_iter().filter(|member| known.insert(member.identity)));
            if all.len() == before {
                break;
            }
        }
        Ok(all)
    }

    /// Reaps the dead children of this process that are of the tree, and returns the living ones.
    ///
    /// None are left only if the whole tree is gone: each process of it is below a living child of this
    /// process, or is one. A child that ends after the children were listed passes its own children on to
    /// this process, which are not in that list. So an empty result is of a list without a dead child.
    fn reap_dead(&mut self) -> io::Result<Vec<Pid>> {
        loop {
            let (mut left, mut is_any_dead) = (Vec::new(), false);
            for pid in lineage::own_children()? {
                if self.is_root(pid) {
                    self.status = self.root.try_wait()?;
                    is_any_dead |= self.status.is_some();
                    left.extend(self.status.is_none().then_some(pid));
                    continue;
                }
                let stat = Stat::read(pid)?;
                let (is_ours, is_dead) = match stat {
                    Some(stat) => (self.is_of_tree(stat.identity), stat.is_dead()),
                    None => (self.is_unseen_of_tree(pid), is_dead_child(pid)?),
                };
                if is_ours {
                    let is_reaped = is_dead && reap(pid)?;
                    is_any_dead |= is_reaped;
                    left.extend((!is_reaped).then_some(pid));
                }
            }
            if !left.is_empty() || !is_any_dead {
                return Ok(left);
            }
        }
    }

    /// The living children of this process that are of the tree, or may be, and that `/proc` does not show
    /// to this user (mounted with `hidepid`, it hides a set-user-ID program). What is below them is not
    /// known before they end.
    fn unseen(&self) -> io::Result<Vec<(Pid, Kind)>> {
        let mut unseen = Vec::new();
        for pid in lineage::own_children()? {
            if Stat::read(pid)?.is_some() || is_dead_child(pid)? {
                continue;
            }
            let is_other = self.others.iter().any(|other| other.pid == pid);
            if self.is_unseen_of_tree(pid) {
                unseen.push((pid, Kind::Other));
            } else if !is_other && children::kind_of_pid(pid) != Kind::Helper {
                unseen.push((pid, Kind::Unsure));
            }
        }
        Ok(unseen)
    }

    /// Whether a living child of this process that `/proc` does not show is of the tree. It is known by its
    /// pid, which nobody else has as long as this process has not waited for it.
    fn is_unseen_of_tree(&self, child: Pid) -> bool {
        let is_any_other = || !self.others.is_empty();
        self.is_root(child) || !is_any_other() && children::kind_of_pid(child) == Kind::Other
    }

    /// Whether this is the command itself: it has its pid until it is waited for.
    fn is_root(&self, pid: Pid) -> bool {
        self.status.is_none() && pid == self.root.pid()
    }

    /// Whether a child of this process is of the tree.
    ///
    /// An orphan's origin is nowhere written down. While this process has no other
    /// children but helpers, each must be the command's; otherwise, and as long as a helper
    /// is being started, only one that was seen below the command before, or bears a mark,
    /// is taken for it.
    fn is_of_tree(&self, child: Identity) -> bool {
        if self.is_root(child.pid) {
            return true;
        }
        if self.others.contains(&child) || child.start < self.began {
            return false;
        }
        let kind = children::kind_of(child);
        if kind == Kind::Helper {
            return false;
        }
        (self.others.is_empty() && kind == Kind::Other)
            || self.seen.contains(&child)
            || self.proved.contains(&child)
            || lineage::has_in_environment(child.pid, &self.mark)
            || self
                .limit
                .is_some_and(|limit| lineage::message_queue_limit(child.pid) == Some(limit))
    }

    /// A pidfd of a process, which is of the tree if it is alive; `None` if it is gone, or has turned
    /// out not to be of the tree.
    ///
    /// A proof reads no further up than to the next process that is proved, so that in a list that has
    /// parents first each takes a few files, however deep the tree is.
    fn handle_on(&mut self, process: &Stat) -> io::Result<Option<OwnedFd>> {
        let pid = process.identity.pid;
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(None),
            pidfd => pidfd?,
        };
        let is_known = |process| self.proved.contains(&process);
        let ours = loop {
            match lineage::line_of(pid, is_known)? {
                Line::Known(line) => break line,
                Line::Ours(line) => match line.last() {
                    Some(&child) if self.is_of_tree(child) => break line,
                    _ => return Ok(None),
                },
                Line::Foreign => return Ok(None),
                // There are only so many above it that can end.
                Line::Changed => {}
            }
        };
        self.proved.extend(ours);
        Ok(Some(pidfd))
    }
}

/// A mark that a process cannot lose by `env -i`, a session of its own or closed descriptors: what it
/// inherits is the soft limit of bytes in POSIX message queues, a little below the one of this process.
/// The mark is of this process until this is dropped, so that the command is started with it.
struct LimitMark {
    before: Rlimit,
    value: u64,
}

impl LimitMark {
    /// `None` where the limit is too low to be lowered, or the kernel refuses.
    fn set(own: Pid) -> Option<LimitMark> {
        /// Different by process, so that a tree below a tree has another mark.
        const MARKS: u64 = 1 << 12;
        /// Instead of no limit.
        const HIGH: u64 = 1 << 40;
        let before = getrlimit(Resource::Msgqueue);
        let below = 1 + u64::from(own.as_raw_pid().unsigned_abs()) % MARKS;
        let value = before.current.unwrap_or(HIGH).checked_sub(below)?;
        let marked = Rlimit { current: Some(value), maximum: before.maximum };
        setrlimit(Resource::Msgqueue, marked).ok().map(|()| LimitMark { before, value })
    }
}

impl Drop for LimitMark {
    fn drop(&mut self) {
        // Up to the hard limit anybody may raise it again.
        let _ = setrlimit(Resource::Msgqueue, self.before);
    }
}

fn identity(pid: Pid) -> io::Result<Identity> {
    match Stat::read(pid)? {
        Some(stat) => Ok(stat.identity),
        None => Err(io::Error::new(io::ErrorKind::NotFound, format!("no process {pid} in /proc"))),
    }
}

/// Whether a child of this process is dead, or somebody else has waited for it. Asks the kernel and not
/// `/proc`.
fn is_dead_child(pid: Pid) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::Pid(pid), options) {
        Ok(status) => Ok(status.is_some()),
        Err(Errno::CHILD) => Ok(true),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
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
