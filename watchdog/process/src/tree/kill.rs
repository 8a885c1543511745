//! The removal of a tree: asks its processes to end, then stops and kills them until none is left.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hangwatch::sys::{clock, crash};
use hangwatch_core::wire::time::{Nanos, duration_ns};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::{ENDS, Tree};
use crate::children::{self, Kind};
use crate::lineage::{self, Identity, Stat};
use crate::proc::State;
use crate::relay::Relay;
use crate::running_time::RunningTime;
use crate::tree::guard::{Guard, Then};
use crate::tree::pause::Pause;
use crate::tree::removal::{Removal, Survival, Survivor};

/// How long each process is waited for after its first SIGKILL. A killed process is gone
/// within milliseconds unless the kernel holds it. [`Tree::kill_all`] goes on for as long as new ones
/// appear.
pub const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long a stop waits for processes that run but have not stopped. One that is never scheduled may
/// fork behind the stop: at the removal it is found again, at the request to end it gets no signal.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// Looks in a row that find nobody new and everybody stopped, after which a stop is over.
const QUIET_LOOKS: u32 = 2;

impl Tree {
    /// Removes the command and all its descendants, and reaps them.
    ///
    /// Unless `signal` is KILL, every process of the tree gets it once, followed by CONT,
    /// and `grace` to end. What they start in the grace, to clean up, gets no signal. Then whoever is left
    /// is stopped, and found again until nobody
    /// new is there, since a stopped process cannot fork; then killed; and all of it again
    /// while anyone lives, new ones for as long as they appear. A process is given up [`KILL_LIMIT`] after
    /// its first SIGKILL. Time in which this process stood still does not count.
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
        if self.guard.is_none() {
            self.guard = Some(Guard::start()?);
        }
        let removed = self.ask_and_kill(signal, grace, relay);
        match self.guard.take() {
            Some(mut guard) if removed.is_ok() => guard.clear(),
            _ => {} // dropped, it continues or kills those that are stopped
        }
        removed.inspect_err(|_| drop(self.root.signal(Signal::KILL)))
    }

    fn ask_and_kill(
        &mut self,
        signal: Signal,
        grace: Duration,
        relay: Option<&Relay>,
    ) -> io::Result<Removal> {
        let mut signalled = Sendings::default();
        if signal != Signal::KILL {
            self.ask(signal, grace, relay, &mut signalled)?;
        }
        let (refused, refused_unseen) = self.kill(&mut signalled)?;
        let mut survivors = self.survivors(&refused)?;
        survivors.extend(self.unseen_survivors(&refused_unseen)?);
        let Sendings { to, unseen, first_at: signalled_at, killed_at } = signalled;
        let (status, signalled) = (self.status, to.len() + unseen.len());
        Ok(Removal { status, signalled, signalled_at, killed_at, survivors })
    }

    fn ask(
        &mut self,
        signal: Signal,
        grace: Duration,
        relay: Option<&Relay>,
        signalled: &mut Sendings,
    ) -> io::Result<()> {
        self.ask_each(signal, signalled)?;
        let mut clock = RunningTime::new();
        let end = clock.now().plus(duration_ns(grace));
        let mut pause = Pause::new();
        loop {
            let members = self.members()?;
            let is_empty = members.is_empty() && self.reap_dead()?.is_empty();
            if is_empty || !pause.until_change(&members, relay, &mut clock, end)? {
                return Ok(());
            }
            if let Some(relay) = relay
                && self.pass_on_in_grace(relay)? == Grace::Over
            {
                return Ok(());
            }
        }
    }

    /// Signals each process that is there, once. They are stopped meanwhile: one that forks before its
    /// signal arrives would leave a child without, and what is started after it, to clean up, must have
    /// none.
    fn ask_each(&mut self, signal: Signal, signalled: &mut Sendings) -> io::Result<()> {
        self.on_death(Then::Continue);
        let members = self.stop();
        crash::point("tree-stopped");
        let found = members.as_ref().map_or(&[][..], |members| &members[..]);
        let mut failed = None;
        for member in found {
            match self.send(member, signal) {
                Ok(Sent::Yes) => signalled.note(member.identity),
                Ok(_) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Err(error) = self.ask_unseen(signal, signalled) {
            failed = Some(error);
        }
        // Whatever failed. A stopped process acts on nothing else than CONT and KILL.
        for member in found {
            if let Err(error) = self.send(member, Signal::CONT) {
                failed = Some(error);
            }
        }
        members?;
        failed.map_or(Ok(()), Err)?;
        if let Some(guard) = &mut self.guard {
            guard.clear();
        }
        Ok(())
    }

    /// Signals each child that `/proc` does not show. It is not stopped for that: nobody could see it stop.
    fn ask_unseen(&mut self, signal: Signal, signalled: &mut Sendings) -> io::Result<()> {
        for (pid, kind) in self.unseen()? {
            if kind == Kind::Other && Self::send_unseen(pid, signal)? == Sent::Yes {
                signalled.note_unseen(pid);
            }
        }
        Ok(())
    }

    /// Passes on what has arrived.
    fn pass_on_in_grace(&mut self, relay: &Relay) -> io::Result<Grace> {
        while let Some(caught) = relay.next()? {
            if self.status.is_none() {
                // Dead, it would take the signal with it.
                self.status = self.root.try_wait()?;
            }
            if self.status.is_none() {
                self.root.pass_on(caught);
            } else if ENDS.contains(&caught.signal) {
                return Ok(Grace::Over);
            }
        }
        Ok(Grace::GoesOn)
    }

    /// Returns those that the kernel did not let us signal.
    fn kill(&mut self, signalled: &mut Sendings) -> io::Result<(HashSet<Identity>, HashSet<Pid>)> {
        let (mut refused, mut refused_unseen) = (HashSet::new(), HashSet::new());
        let mut first_tried = HashMap::new();
        let mut clock = RunningTime::new();
        let mut pause = Pause::new();
        let (begun, limit_ns) = (clock.now(), duration_ns(KILL_LIMIT));
        let mut is_told = false;
        self.on_death(Then::Kill);
        loop {
            let starts = children::starts();
            let members = self.stop()?;
            let now = clock.now();
            for member in &members {
                first_tried.entry(member.identity).or_insert(now);
                match self.send(member, Signal::KILL)? {
                    Sent::Yes => signalled.note_kill(member.identity),
                    Sent::Refused => drop(refused.insert(member.identity)),
                    Sent::NotOurs => {}
                }
            }
            for (pid, kind) in self.unseen()? {
                if kind == Kind::Other {
                    match Self::send_unseen(pid, Signal::KILL)? {
                        Sent::Yes => signalled.note_unseen_kill(pid),
                        Sent::Refused => drop(refused_unseen.insert(pid)),
                        Sent::NotOurs => {}
                    }
                }
            }
            // Who could not be told from a helper that was being started meanwhile is not among them.
            let is_any_left = !members.is_empty() || !self.reap_dead()?.is_empty();
            if !is_any_left && starts.is_some() && children::starts() == starts {
                return Ok((refused, refused_unseen));
            }
            let is_over = |since: Nanos| now.since(since) >= limit_ns;
            let had_time = |member: &Stat| {
                first_tried.get(&member.identity).is_some_and(|&since| is_over(since))
            };
            if is_over(begun) && members.iter().all(had_time) {
                return Ok((refused, refused_unseen));
            }
            if now.since(begun) >= 2 * limit_ns && !std::mem::replace(&mut is_told, true) {
                tracing::warn!(
                    processes = members.len(),
                    "the command is being removed, but it starts new processes all the time"
                );
            }
            pause.until_change(&members, None, &mut clock, Nanos::NEVER)?;
        }
    }

    /// Stops every process of the tree, so that none can fork, and returns them.
    ///
    /// A fork that is under way when the stop arrives is completed first, and a look may miss a process
    /// whose parent ends meanwhile. So the stop is over when [`QUIET_LOOKS`] looks in a row find nobody
    /// new and everybody stopped; but a process in an uninterruptible sleep never shows that, and is not
    /// waited for for long.
    fn stop(&mut self) -> io::Result<Vec<Stat>> {
        let end = Instant::now() + STOP_LIMIT;
        let mut sent = HashMap::new();
        let (mut patience, mut quiet_looks) = (20_u32, 0);
        loop {
            let members = self.members()?;
            let mut found_new = false;
            for member in &members {
                if let Entry::Vacant(new) = sent.entry(member.identity) {
                    let this = self.send_stop(member)?;
                    crash::point("tree-stopping");
                    found_new |= this == Sent::Yes;
                    new.insert(this);
                }
            }
            if found_new {
                quiet_looks = 0;
            } else {
                let mut awaited = members.iter().filter(|member| {
                    !matches!(member.state, State::Stopped | State::Traced)
                        && sent.get(&member.identity) == Some(&Sent::Yes)
                });
                match awaited.next() {
                    None => {
                        quiet_looks += 1;
                        if quiet_looks >= QUIET_LOOKS {
                            return Ok(members);
                        }
                        continue;
                    }
                    Some(first)
                        if first.state == State::Uninterruptible
                            && awaited.all(|it| it.state == State::Uninterruptible) =>
                    {
                        patience -= 1;
                    }
                    Some(_) => {}
                }
                if patience == 0 || Instant::now() >= end {
                    return Ok(members);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Sends SIGSTOP to a process that the guard knows by then.
    fn send_stop(&mut self, to: &Stat) -> io::Result<Sent> {
        let Some(pidfd) = self.handle_on(to)? else { return Ok(Sent::NotOurs) };
        let is_known = self.guard.as_mut().is_some_and(|guard| guard.register(to.identity));
        if is_known { send(&pidfd, Signal::STOP) } else { Ok(Sent::NotOurs) }
    }

    /// What becomes of stopped processes if this process is killed.
    fn on_death(&self, then: Then) {
        if let Some(guard) = &self.guard {
            guard.set(then);
        }
    }

    fn send(&mut self, to: &Stat, signal: Signal) -> io::Result<Sent> {
        self.handle_on(to)?.map_or(Ok(Sent::NotOurs), |pidfd| send(&pidfd, signal))
    }

    /// Sends a signal to a child of this process that `/proc` does not show. It has its pid until this
    /// process waits for it.
    pub(super) fn send_unseen(to: Pid, signal: Signal) -> io::Result<Sent> {
        match pidfd_open(to, PidfdFlags::empty()) {
            Ok(pidfd) => send(&pidfd, signal),
            Err(Errno::SRCH) => Ok(Sent::NotOurs),
            Err(error) => Err(error.into()),
        }
    }

    fn survivors(&mut self, refused: &HashSet<Identity>) -> io::Result<Vec<Survivor>> {
        let survivor = |stat: Stat| Survivor {
            pid: stat.identity.pid,
            command: lineage::command_name(stat.identity.pid).unwrap_or_default(),
            state: stat.state.letter(),
            why: if refused.contains(&stat.identity) {
                Survival::NotPermitted
            } else {
                Survival::Unkillable { wait_channel: lineage::wait_channel(stat.identity.pid) }
            },
        };
        let survivors = self.members()?.into_iter().map(survivor);
        let unsure = self
            .unsure()?
            .into_iter()
            .map(|stat| Survivor { why: Survival::Unsure, ..survivor(stat) });
        Ok(survivors.chain(unsure).collect())
    }

    fn unseen_survivors(&self, refused: &HashSet<Pid>) -> io::Result<Vec<Survivor>> {
        let survivor = |(pid, kind): (Pid, Kind)| {
            let why = match kind {
                _ if refused.contains(&pid) => Survival::NotPermitted,
                Kind::Other => Survival::Unkillable { wait_channel: None },
                Kind::Unsure | Kind::Helper => Survival::Unsure,
            };
            Survivor { pid, command: "hidden by /proc".to_owned(), state: '?', why }
        };
        Ok(self.unseen()?.into_iter().map(survivor).collect())
    }

    /// The living children of this process of which it is not known whose they are.
    fn unsure(&self) -> io::Result<Vec<Stat>> {
        let mut unsure = Vec::new();
        for pid in lineage::own_children()? {
            let stat = Stat::read(pid)?.filter(|stat| {
                let identity = stat.identity;
                !stat.is_dead()
                    && !self.is_of_tree(identity)
                    && !self.others.contains(&identity)
                    && children::kind_of(identity) == Kind::Unsure
            });
            unsure.extend(stat);
        }
        Ok(unsure)
    }
}

fn send(pidfd: &OwnedFd, signal: Signal) -> io::Result<Sent> {
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) => Ok(Sent::Yes),
        Err(Errno::SRCH) => Ok(Sent::NotOurs),
        Err(Errno::PERM) => Ok(Sent::Refused),
        Err(error) => Err(error.into()),
    }
}

/// Which processes were signalled, each once, and since when.
#[derive(Debug, Default)]
struct Sendings {
    to: HashSet<Identity>,
    /// Those that `/proc` does not show.
    unseen: HashSet<Pid>,
    first_at: Option<Nanos>,
    killed_at: Option<Nanos>,
}

impl Sendings {
    fn note_kill(&mut self, identity: Identity) {
        self.killed_at.get_or_insert_with(|| Nanos(clock::monotonic_ns()));
        self.note(identity);
    }

    fn note_unseen_kill(&mut self, pid: Pid) {
        self.killed_at.get_or_insert_with(|| Nanos(clock::monotonic_ns()));
        self.note_unseen(pid);
    }

    fn note_unseen(&mut self, pid: Pid) {
        self.first_at.get_or_insert_with(|| Nanos(clock::monotonic_ns()));
        self.unseen.insert(pid);
    }

    fn note(&mut self, identity: Identity) {
        self.first_at.get_or_insert_with(|| Nanos(clock::monotonic_ns()));
        self.to.insert(identity);
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
pub(super) enum Sent {
    Yes,
    /// The process is gone, or has turned out not to be of the tree.
    NotOurs,
    /// The kernel does not permit it.
    Refused,
}
