//! A worker's kin: the processes that are removed with it, so that they hold nothing it held.
//!
//! Who they are is decided while the worker lives: its descendants ([`Reach::Tree`]), those of the
//! process group it leads ([`Reach::Group`]), those of a cgroup of its own ([`Reach::Cgroup`]). Each is
//! held by a pidfd from the moment it was proved to belong to the worker, so that whatever becomes of
//! pids and parents later, no other process is signalled. `Kin::list` may be called again and again,
//! to take in who was forked meanwhile; `Kin::kill` ends them.
//!
//! `Apart` is never signalled: other workers, with what descends from them, which have deadlines of
//! their own; the watchdog and all above it.

mod cgroup;

use std::collections::{HashMap, HashSet};
use std::io;

use hangwatch::sys::pidfd::{OpenPidfdError, Pidfd, SignalError, Signalled};
use rustix::process::{Pid, Signal};

use crate::exec::lineage::{self, Identity, Stat};

/// Who is reaped with a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nobody.
    #[default]
    Process,
    /// Its descendants.
    Tree,
    /// Its descendants, and the process group that it leads.
    Group,
    /// Its descendants, and the cgroup of its own that it is in.
    Cgroup,
}

impl Reach {
    /// Its name on the command line and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Reach::Process => "process",
            Reach::Tree => "tree",
            Reach::Group => "group",
            Reach::Cgroup => "cgroup",
        }
    }
}

/// Processes that are nobody's kin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Apart {
    /// Other workers: they and their descendants.
    pub(crate) workers: HashSet<Pid>,
    /// The watchdog and those above it.
    pub(crate) own_line: HashSet<Pid>,
}

impl Apart {
    fn has(&self, pid: Pid) -> bool {
        pid == Pid::INIT || self.workers.contains(&pid) || self.own_line.contains(&pid)
    }
}

/// One of them.
struct Member {
    pidfd: Pidfd,
    sent: Sent,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    Kill,
    /// The kernel does not permit it.
    Refused,
}

/// The kin of one worker.
pub(crate) struct Kin {
    root: Pid,
    reach: Reach,
    /// As far as it reaches after all, and why no farther.
    fallback: Option<String>,
    cgroup: Option<cgroup::Own>,
    members: HashMap<Identity, Member>,
    /// Other workers that were found among them.
    spared: HashSet<Pid>,
    /// Who could not be held, for want of descriptors.
    is_any_not_held: bool,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many were signalled.
    pub signalled: usize,
    /// Other workers that were found among them, and spared.
    pub spared: Vec<u32>,
    /// Those that live: pid and name.
    pub survivors: Vec<String>,
    /// Why it did not reach as far as it was to.
    pub fallback: Option<String>,
}

impl Kin {
    pub(crate) fn new(root: Pid, reach: Reach) -> Kin {
        let (members, spared) = (HashMap::new(), HashSet::new());
        Kin { root, reach, fallback: None, cgroup: None, members, spared, is_any_not_held: false }
    }

    /// Takes in who belongs to the worker now. `worker` is the handle on it: once it is dead, only
    /// descendants of those known already are found.
    ///
    /// # Errors
    /// Where `/proc` refuses; those that were found before are kept.
    pub(crate) fn list(&mut self, worker: &Pidfd, apart: &Apart) -> io::Result<()> {
        self.list_below(worker, apart)?;
        if worker.is_dead() {
            return Ok(());
        }
        match self.reach {
            Reach::Process | Reach::Tree => Ok(()),
            Reach::Group => self.list_group(worker, apart),
            Reach::Cgroup => {
                let own = cgroup::own(self.root, |pid| self.is_known(pid), apart)?;
                // Dead by now, what was read may be of another process.
                if !worker.is_dead() {
                    match own {
                        Ok(own) => (self.cgroup, self.fallback) = (Some(own), None),
                        Err(why) => (self.cgroup, self.fallback) = (None, Some(why)),
                    }
                }
                Ok(())
            }
        }
    }

    fn list_below(&mut self, worker: &Pidfd, apart: &Apart) -> io::Result<()> {
        let mut roots: Vec<Pid> = self.living().map(|identity| identity.pid).collect();
        if !worker.is_dead() {
            roots.push(self.root);
        }
        for root in roots {
            let below = lineage::living_below(root, |pid| self.is_apart(pid, apart))?;
            let held = self.hold(&below, |pid| lineage::is_below(pid, root))?;
            // Asked last: a root that is dead by now may have lost its pid while its line was read.
            let is_worker_alive = root == self.root && !worker.is_dead();
            if is_worker_alive || self.is_known(root) {
                self.members.extend(held);
            }
        }
        self.spared.extend(self.workers_below(worker, apart)?);
        Ok(())
    }

    /// Other workers below this one, for the log.
    fn workers_below(&self, worker: &Pidfd, apart: &Apart) -> io::Result<Vec<Pid>> {
        let mut found = Vec::new();
        for &other in apart.workers.iter().filter(|other| **other != self.root) {
            if !worker.is_dead() && lineage::is_below(other, self.root)? {
                found.push(other);
            }
        }
        Ok(found)
    }

    fn list_group(&mut self, worker: &Pidfd, apart: &Apart) -> io::Result<()> {
        let group = Stat::read(self.root)?.and_then(|stat| stat.group);
        if group != Some(self.root) {
            self.fallback = Some(match group {
                Some(leader) => format!("its process group is led by process {leader}"),
                None => "its process group is led from another PID namespace".to_owned(),
            });
            return Ok(());
        }
        let leader = self.root;
        let mut members = lineage::members_of_group(leader)?;
        members
            .retain(|stat| stat.identity.pid != leader && !self.is_apart(stat.identity.pid, apart));
        let is_member = |pid| Ok(Stat::read(pid)?.is_some_and(|stat| stat.group == Some(leader)));
        let held = self.hold(&members, is_member)?;
        // A group keeps its number from others as long as it has members, and these are alive.
        if !worker.is_dead() {
            self.members.extend(held);
        }
        Ok(())
    }

    fn is_apart(&self, pid: Pid, apart: &Apart) -> bool {
        pid != self.root && apart.has(pid)
    }

    /// Holds those that are new, as far as each belongs here once it is held.
    fn hold(
        &mut self,
        found: &[Stat],
        belongs: impl Fn(Pid) -> io::Result<bool>,
    ) -> io::Result<Vec<(Identity, Member)>> {
        let mut held = Vec::new();
        for stat in found.iter().filter(|stat| !self.members.contains_key(&stat.identity)) {
            let pid = stat.identity.pid;
            let pidfd = match Pidfd::open(pid) {
                Ok(pidfd) => pidfd,
                Err(OpenPidfdError::Gone { .. }) => continue,
                Err(OpenPidfdError::NoDescriptors { .. }) => {
                    self.is_any_not_held = true;
                    continue;
                }
                Err(OpenPidfdError::Io { source, .. }) => return Err(source),
            };
            let is_same = Stat::read(pid)?.is_some_and(|now| now.identity == stat.identity);
            // Asked last: alive, it had its pid while all the rest was read.
            if is_same && belongs(pid)? && !pidfd.is_dead() {
                held.push((stat.identity, Member { pidfd, sent: Sent::Nothing }));
            }
        }
        Ok(held)
    }

    fn living(&self) -> impl Iterator<Item = Identity> {
        let living = self.members.iter().filter(|(_, member)| !member.pidfd.is_dead());
        living.map(|(identity, _)| *identity)
    }

    fn is_known(&self, pid: Pid) -> bool {
        self.living().any(|identity| identity.pid == pid)
    }

    /// Sends SIGKILL to all that have not had it, and to who was forked meanwhile. Whether anything
    /// was sent.
    pub(crate) fn kill(&mut self, worker: &Pidfd, apart: &Apart) -> bool {
        if let Some(own) = self.cgroup.take()
            && let Err(why) = own.kill(|pid| pid == self.root || self.is_known(pid))
        {
            self.fallback = Some(why);
        }
        // Listed before the kill: an orphan is nobody's descendant any more.
        let _ = self.list_below(worker, apart);
        let mut is_any_sent = false;
        let turned: Vec<Pid> = self.turned_worker(apart).collect();
        for (identity, member) in &mut self.members {
            let is_below_worker = || {
                turned.iter().any(|&worker| lineage::is_below(identity.pid, worker).unwrap_or(true))
            };
            let is_apart = apart.has(identity.pid) || is_below_worker();
            if member.sent == Sent::Nothing && !is_apart {
                member.sent = match member.pidfd.signal(Signal::KILL) {
                    Ok(Signalled::Sent | Signalled::Gone) => Sent::Kill,
                    Err(SignalError::Denied { .. } | SignalError::Io { .. }) => Sent::Refused,
                };
                is_any_sent = true;
            }
        }
        is_any_sent
    }

    /// Those that have attached since they were found.
    fn turned_worker(&self, apart: &Apart) -> impl Iterator<Item = Pid> {
        self.living().map(|identity| identity.pid).filter(|pid| apart.workers.contains(pid))
    }

    /// Whether all that were signalled are dead.
    pub(crate) fn are_dead(&self) -> bool {
        self.members.values().all(|member| member.sent != Sent::Kill || member.pidfd.is_dead())
    }

    /// What became of them.
    pub(crate) fn removed(&self) -> Removed {
        let survivor = |(identity, member): (&Identity, &Member)| {
            let pid = identity.pid;
            let name = lineage::command_name(pid).unwrap_or_default();
            let why = if member.sent == Sent::Refused { ", may not be signalled" } else { "" };
            let is_survivor = member.sent != Sent::Nothing && !member.pidfd.is_dead();
            is_survivor.then(|| format!("{pid} ({name}{why})"))
        };
        let signalled = self.members.values().filter(|member| member.sent == Sent::Kill).count();
        let spared = self.spared.iter().map(|pid| pid.as_raw_pid().unsigned_abs()).collect();
        let mut survivors: Vec<String> = self.members.iter().filter_map(survivor).collect();
        if self.is_any_not_held {
            survivors.push("and others, for want of descriptors (ulimit -n)".to_owned());
        }
        Removed { signalled, spared, survivors, fallback: self.fallback.clone() }
    }
}
