//! The removal of a worker's descendants, and of the worker last: all are stopped, then killed.
//!
//! A fork that is under way when SIGSTOP arrives is completed first, and a list of children may miss one
//! while another of them ends. So all are looked at again and again, until [`QUIET_PASSES`] passes over
//! all of them have found everybody still, nobody new and nobody dead. No time decides: only
//! processes that fork on though they were sent SIGSTOP (somebody sends them SIGCONT) end this, when the
//! [`ROUNDS`] of the whole removal are used up, which nobody can renew. Then those that are known are killed,
//! and what their parents have forked meanwhile right after, before the worker: see [`SWEEPS`].
//!
//! Children are killed before their parents: once a parent is dead, the kernel may let a stopped child run
//! (an orphaned process group gets SIGCONT), and the child's children are nobody's.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use crate::pidfd::Pidfd;
use hangwatch::sys::crash;
use rustix::process::Signal;

use super::member::{Fate, Member, Opened};
use super::{Descendants, Excluded, LOOKS, Removed, Rights, WORKER, hidden};
use crate::lineage::{self, Children, Sight, Threads};

/// Passes over all in a row that find everybody still, nobody new and nobody dead.
const QUIET_PASSES: u32 = 2;
/// Passes over all, each of which finds somebody new or dead; then those that are known are killed.
const PASSES: u32 = 100;
/// Steps of one removal until those that are known are killed, still or not, and as many more for every
/// [`LOOKS`] members that were known before it began.
const ROUNDS: usize = 1_000;
const ROUNDS_PER_STEP: usize = 16;
/// A look at so many threads takes as long as a step.
const THREADS_PER_ROUND: usize = 256;
/// Looks, before the worker is killed, for children of those that were killed, each of which finds one.
const SWEEPS: u32 = 64;
/// Looks at a member that does not stop though no fork of it can be under way: see [`Threads::Waiting`].
const WAITING_LOOKS: usize = 100;
/// After so many looks a restless member is sent SIGSTOP again: somebody may have sent it SIGCONT.
const LOOKS_PER_STOP: usize = 16;
/// How long those killed may take to die until it is reported that they live on.
const DEATHS: Duration = Duration::from_secs(10);
/// Survivors that are named.
const NAMED: usize = 16;

/// How a removal goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is more to do.
    More,
    /// There is more to do in a little while.
    Pause,
    /// It is over.
    Done,
}

/// Where a removal is.
#[derive(Default)]
pub(super) enum Phase {
    /// It has not begun.
    #[default]
    Listed,
    Stopping(Pass),
    /// All are to be killed up to this place.
    Killing {
        next: usize,
    },
    /// They die.
    Dying {
        since: Instant,
        left: Vec<usize>,
    },
}

/// One pass over members that are to be stopped.
pub(super) struct Pass {
    to_look_at: VecDeque<usize>,
    /// Those that were not still.
    restless: Vec<usize>,
    children: Children,
    is_over_all: bool,
    /// Nobody was found new, dead, or told to stop.
    is_quiet: bool,
    /// Passes over all so far, and how many of the last ones were quiet.
    passes: u32,
    quiet_passes: u32,
}

impl Descendants {
    /// Goes on with the removal of all descendants and the worker, which may have been sent SIGSTOP.
    /// `excluded` is of after the last step.
    ///
    /// # Errors
    /// Where `/proc` refuses or no descriptor is left. Nothing is lost then: it is to be tried again.
    pub fn remove(&mut self, worker: &Pidfd, excluded: &Excluded) -> io::Result<Step> {
        match std::mem::take(&mut self.phase) {
            Phase::Listed => {
                (self.listing, self.uncertain) = (None, None);
                self.rounds = ROUNDS + self.members.len() / LOOKS * ROUNDS_PER_STEP;
                self.phase = Phase::Stopping(self.pass_over_all(worker, excluded, (0, 0))?);
                Ok(Step::More)
            }
            Phase::Stopping(mut pass) => {
                let looked = self.look(&mut pass, worker, excluded);
                self.phase = Phase::Stopping(pass);
                // What failed is tried again, however often.
                self.rounds = self.rounds.saturating_sub(usize::from(looked.is_ok()));
                match looked {
                    Ok(_) if self.rounds == 0 => {
                        self.uncertain =
                            Some("they could not be stopped, and may have left others");
                        self.phase = Phase::Killing { next: usize::MAX };
                        Ok(Step::More)
                    }
                    Ok(true) => self.end_pass(worker, excluded),
                    Ok(false) => Ok(Step::More),
                    Err(error) => Err(error),
                }
            }
            Phase::Killing { next } => self.kill(next, worker, excluded),
            Phase::Dying { since, left } => Ok(self.await_deaths(since, left)),
        }
    }

    /// Whether the worker has been sent SIGKILL, or needs none.
    pub fn is_worker_killed(&self) -> bool {
        matches!(self.phase, Phase::Dying { .. })
    }

    fn pass_over_all(
        &mut self,
        worker: &Pidfd,
        excluded: &Excluded,
        (passes, quiet_passes): (u32, u32),
    ) -> io::Result<Pass> {
        let children = Children::new()?;
        self.forget_dead();
        self.no_workers.clear();
        let known = self.members.len();
        self.list_others(worker, excluded)?;
        Ok(Pass {
            to_look_at: (0..self.members.len()).collect(),
            restless: Vec::new(),
            children,
            is_over_all: true,
            is_quiet: known == self.members.len(),
            passes,
            quiet_passes,
        })
    }

    /// Looks at some of a pass; whether that was all.
    fn look(&mut self, pass: &mut Pass, worker: &Pidfd, excluded: &Excluded) -> io::Result<bool> {
        self.spent = 0;
        while self.spent < LOOKS {
            let Some(&place) = pass.to_look_at.front() else { return Ok(true) };
            self.spent += 1;
            let known = self.members.len();
            self.look_at(place, pass, worker, excluded)?;
            // Not before: one that could not be looked at is looked at again.
            pass.to_look_at.pop_front();
            pass.to_look_at.extend(known..self.members.len());
        }
        Ok(pass.to_look_at.is_empty())
    }

    fn look_at(
        &mut self,
        place: usize,
        pass: &mut Pass,
        worker: &Pidfd,
        excluded: &Excluded,
    ) -> io::Result<()> {
        if self.members[place].is_dead || self.members[place].fate == Fate::Excluded {
            return Ok(());
        }
        let pidfd = match self.open(place)? {
            Opened::Alive(pidfd) => pidfd,
            Opened::Hidden => {
                self.uncertain = Some(hidden::CHILDREN);
                return Ok(());
            }
            Opened::Dead => {
                pass.is_quiet = false;
                return Ok(());
            }
        };
        if self.is_excluded(place, excluded)? {
            self.exclude_member(place, &pidfd, excluded)?;
            pass.is_quiet = false;
            return Ok(());
        }
        pass.is_quiet &= !self.stop(place, &pidfd, worker)?;
        let is_restless = self.is_restless(place, &pidfd)?;
        // Asked after that: a process that is still has no more children than these.
        let is_any_new = self.list_children(place, &pidfd, &pass.children, excluded)?;
        pass.is_quiet &= !is_any_new && !self.members[place].is_dead;
        if is_restless {
            pass.restless.push(place);
        }
        Ok(())
    }

    /// Sends SIGSTOP to a member that has not had it.
    fn stop(&mut self, place: usize, pidfd: &Pidfd, worker: &Pidfd) -> io::Result<bool> {
        let member = &mut self.members[place];
        if place != WORKER {
            return member.stop(pidfd, self.rights);
        }
        let is_first = member.fate == Fate::Found;
        if is_first {
            // That it may be signalled was asked before the removal began.
            member.fate = worker.signal(Signal::STOP).map_or(Fate::Refused, |_| Fate::Stopped);
        }
        Ok(is_first)
    }

    /// Whether a member that was sent SIGSTOP may still fork, and stopping it is worth waiting for.
    fn is_restless(&mut self, place: usize, pidfd: &Pidfd) -> io::Result<bool> {
        let member = &mut self.members[place];
        if !matches!(member.fate, Fate::Stopped | Fate::WasStopped) {
            return Ok(false);
        }
        let Some((threads, count)) = Threads::of(member.identity.pid)? else {
            if !pidfd.is_dead() {
                self.uncertain = Some(hidden::CHILDREN);
            }
            return Ok(false);
        };
        if threads == Threads::Still {
            return Ok(false);
        }
        member.restless_looks += 1;
        self.spent += count / THREADS_PER_ROUND * LOOKS;
        self.rounds = self.rounds.saturating_sub(count / THREADS_PER_ROUND);
        if threads == Threads::Waiting && member.restless_looks > WAITING_LOOKS {
            return Ok(false);
        }
        if member.restless_looks.is_multiple_of(LOOKS_PER_STOP) {
            let rights = if place == WORKER { Rights::Own } else { self.rights };
            member.stop_again(pidfd, rights)?;
        }
        Ok(member.fate != Fate::Refused)
    }

    /// Whether a member is another worker by now, or was found below one.
    fn is_excluded(&mut self, place: usize, excluded: &Excluded) -> io::Result<bool> {
        let member = &self.members[place];
        if place == WORKER || self.members[member.parent].fate == Fate::Excluded {
            return Ok(place != WORKER);
        }
        self.is_spared(member.identity, excluded)
    }

    fn exclude_member(
        &mut self,
        place: usize,
        pidfd: &Pidfd,
        excluded: &Excluded,
    ) -> io::Result<()> {
        self.exclude(self.members[place].identity, excluded)?;
        self.members[place].let_go(pidfd, Fate::Excluded);
        Ok(())
    }

    /// After a pass: the next one, or the end of the passes.
    fn end_pass(&mut self, worker: &Pidfd, excluded: &Excluded) -> io::Result<Step> {
        let Phase::Stopping(pass) = &mut self.phase else { return Ok(Step::More) };
        if std::mem::take(&mut pass.is_over_all) {
            pass.passes += 1;
            let is_quiet = pass.is_quiet && pass.restless.is_empty();
            pass.quiet_passes = if is_quiet { pass.quiet_passes + 1 } else { 0 };
        }
        let is_settled = pass.quiet_passes >= QUIET_PASSES;
        if is_settled || (pass.passes >= PASSES && pass.restless.is_empty()) {
            if !is_settled {
                self.uncertain = Some("they kept forking, and may have left others");
            }
            self.phase = Phase::Killing { next: usize::MAX };
            return Ok(Step::More);
        }
        if pass.restless.is_empty() {
            let counts = (pass.passes, pass.quiet_passes);
            let next = self.pass_over_all(worker, excluded, counts)?;
            self.phase = Phase::Stopping(next);
            return Ok(Step::More);
        }
        pass.children = Children::new()?;
        pass.to_look_at = std::mem::take(&mut pass.restless).into();
        Ok(Step::Pause)
    }

    /// Kills some of them, the last found first, and the worker when it is the only one left.
    fn kill(&mut self, next: usize, worker: &Pidfd, excluded: &Excluded) -> io::Result<Step> {
        let mut next = next.min(self.members.len());
        self.phase = Phase::Killing { next };
        if next == self.members.len() {
            crash::point("descendants-stopped");
            self.no_workers.clear();
            self.exclude_workers(excluded)?;
            self.kill_cgroup()?;
        }
        for _ in 0..LOOKS {
            if next <= WORKER + 1 {
                if self.sweeps < SWEEPS && self.find_followers(excluded)? {
                    self.sweeps += 1;
                    if self.sweeps == SWEEPS {
                        self.uncertain = Some("they kept forking, and may have left others");
                    }
                    self.phase = Phase::Killing { next: usize::MAX };
                    return Ok(Step::More);
                }
                crash::point("descendants-killed");
                self.kill_worker(worker)?;
                let left = (0..self.members.len()).collect();
                self.phase = Phase::Dying { since: Instant::now(), left };
                return Ok(Step::More);
            }
            self.kill_member(next - 1)?;
            next -= 1;
            self.phase = Phase::Killing { next };
        }
        Ok(Step::More)
    }

    /// Lists the children of those that are to be killed, and of those that die, and kills those that are new
    /// at once; whether any is new. A process that was sent SIGKILL forks no more, and the worker may adopt
    /// what it leaves.
    fn find_followers(&mut self, excluded: &Excluded) -> io::Result<bool> {
        let children = Children::new()?;
        let mut is_any_new = false;
        for place in 0..self.members.len() {
            if !matches!(self.members[place].fate, Fate::Refused | Fate::Excluded)
                && let Opened::Alive(pidfd) = self.open(place)?
            {
                self.is_sweeping = true;
                let listed = self.list_children(place, &pidfd, &children, excluded);
                self.is_sweeping = false;
                is_any_new |= listed?;
            }
        }
        Ok(is_any_new)
    }

    /// Excludes those that have attached since they were found, with all below them.
    fn exclude_workers(&mut self, excluded: &Excluded) -> io::Result<()> {
        for place in 0..self.members.len() {
            if self.members[place].fate != Fate::Excluded && self.is_excluded(place, excluded)? {
                match self.open(place)? {
                    Opened::Alive(pidfd) => self.exclude_member(place, &pidfd, excluded)?,
                    Opened::Hidden => self.members[place].fate = Fate::Excluded,
                    Opened::Dead => {}
                }
            }
        }
        Ok(())
    }

    fn kill_cgroup(&mut self) -> io::Result<()> {
        if self.cgroup.is_none() {
            return Ok(());
        }
        // Each is stopped, and so stays the user that it is here.
        for place in WORKER + 1..self.members.len() {
            if self.members[place].fate == Fate::Excluded {
                continue;
            }
            match self.open(place)? {
                Opened::Alive(pidfd) => self.members[place].check(&pidfd, self.rights)?,
                Opened::Hidden => self.members[place].fate = Fate::Refused,
                Opened::Dead => {}
            }
        }
        if let Some(own) = self.cgroup.take() {
            match own.kill(|pid| self.is_to_be_killed(pid)) {
                Ok(()) => self.members.iter_mut().for_each(Member::was_killed),
                Err(why) => self.fallback = Some(why),
            }
        }
        Ok(())
    }

    pub(super) fn kill_member(&mut self, place: usize) -> io::Result<()> {
        if matches!(self.members[place].fate, Fate::Refused | Fate::Excluded) {
            return Ok(());
        }
        if let Opened::Alive(pidfd) = self.open(place)? {
            // One that was found just now was not stopped before.
            self.members[place].stop(&pidfd, self.rights)?;
            self.members[place].kill(&pidfd, self.rights)?;
        }
        Ok(())
    }

    fn kill_worker(&mut self, worker: &Pidfd) -> io::Result<()> {
        let Some(member) = self.members.get_mut(WORKER) else { return Ok(()) };
        if member.fate != Fate::Refused && !worker.is_dead() {
            // Whose users are not known was judged by others.
            let is_unknown = self.rights == Rights::Of(None);
            if !is_unknown && matches!(Sight::of(member.identity.pid)?, Sight::Hidden) {
                return Err(hidden::error(member.identity.pid));
            }
            member.kill(worker, if is_unknown { Rights::Own } else { self.rights })?;
        }
        Ok(())
    }

    fn await_deaths(&mut self, since: Instant, mut left: Vec<usize>) -> Step {
        while let Some(&place) = left.last() {
            let is_awaited = place != WORKER && self.members[place].fate == Fate::Killed;
            // What cannot be opened now counts as alive.
            if is_awaited && !matches!(self.open(place), Ok(Opened::Dead)) {
                break;
            }
            left.pop();
        }
        let is_over = left.is_empty() || since.elapsed() > DEATHS;
        self.phase = Phase::Dying { since, left };
        if is_over { Step::Done } else { Step::Pause }
    }

    /// What became of them.
    pub fn removed(&mut self) -> Removed {
        let mut removed = Removed { fallback: self.fallback.clone(), ..Removed::default() };
        removed.spared = self.workers.iter().map(|pid| pid.as_raw_pid().unsigned_abs()).collect();
        removed.spared.sort_unstable();
        for place in WORKER + 1..self.members.len() {
            let fate = self.members[place].fate;
            removed.signalled += usize::from(fate == Fate::Killed);
            if fate == Fate::Excluded || matches!(self.open(place), Ok(Opened::Dead)) {
                continue;
            }
            removed.left += 1;
            if removed.survivors.len() < NAMED {
                let pid = self.members[place].identity.pid;
                let name = lineage::command_name(pid).unwrap_or_default();
                let why = match Sight::of(pid) {
                    Ok(Sight::Hidden) => ", hidden by /proc",
                    _ if fate == Fate::Refused => ", may not be signalled",
                    _ => "",
                };
                removed.survivors.push(format!("{pid} ({name}{why})").replace("(, ", "("));
            }
        }
        for pid in self.hidden.living() {
            removed.left += 1;
            if removed.survivors.len() < NAMED {
                removed.survivors.push(format!("{pid} (hidden by /proc)"));
            }
        }
        if removed.left > removed.survivors.len() {
            removed.survivors.push(format!("{} more", removed.left - removed.survivors.len()));
        }
        removed.survivors.extend(self.uncertain.map(str::to_owned));
        removed
    }
}
