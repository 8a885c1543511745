//! The descendants of a worker, and their removal with it, so that they hold nothing that it held.
//!
//! Which processes these are is decided while the worker lives: its descendants ([`Reach::Tree`]), the
//! members of the process group that it leads ([`Reach::Group`]), those of a cgroup of its own
//! ([`Reach::Cgroup`]). Once a process is dead, its children are another's, and nobody can tell whose
//! they were. So `Descendants::remove` stops a process before it lists its children, and sends SIGKILL
//! only when everybody is stopped and a look over all of them has found nobody new: children first, the
//! worker last. A watchdog that dies half-way leaves the worker alive, with all that are left below it,
//! to its successor.
//!
//! No descriptor is kept: a process is known by its `Identity`, and each time it is touched, it is
//! opened, told by that, asked or signalled, and closed.
//!
//! `Excluded` processes are never killed: other workers, with what descends from them, which have
//! deadlines of their own; the watchdog and all above it. Nor is one that the worker itself could not
//! signal: `Rights`.

mod cgroup;
mod hidden;
mod member;
mod removal;
mod resume;

use std::collections::{HashMap, HashSet};
use std::io;

use crate::pidfd::Pidfd;
use crate::proc::Users;
use rustix::process::Pid;

use self::hidden::Hidden;
use self::member::{Fate, Member, Opened};
use self::removal::Phase;
use crate::lineage::{self, Children, Identity, Sight, Stat};

pub use self::removal::Step;

/// Which processes are killed with a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// None.
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
    /// A number for a note that a later process reads; 0 for [`Reach::Process`].
    pub fn code(self) -> u64 {
        self as u64
    }

    /// What a number stands for; [`Reach::Tree`] where it is none of these.
    pub fn of_code(code: u64) -> Reach {
        let all = [Reach::Process, Reach::Tree, Reach::Group, Reach::Cgroup];
        all.into_iter().find(|reach| reach.code() == code).unwrap_or(Reach::Tree)
    }

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

/// Which processes may be signalled. The kernel refuses root nothing, so that it must ask itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Those that this process may signal.
    Own,
    /// Those that a process of these users might signal; none where its users are not known.
    Of(Option<Users>),
}

/// A question that may fail: then nobody is signalled.
pub type IsWorker = Box<dyn Fn(Pid) -> io::Result<bool>>;

/// Processes that belong to no worker's descendants.
#[derive(Default)]
pub struct Excluded {
    /// Tells whether one more process is another worker. Asked once in each pass over the descendants.
    pub is_worker: Option<IsWorker>,
    /// Other workers: they and their descendants.
    pub workers: HashSet<Pid>,
    /// The watchdog and the processes above it.
    pub own_line: HashSet<Pid>,
}

impl Excluded {
    fn names(&self, pid: Pid) -> bool {
        pid == Pid::INIT || self.workers.contains(&pid) || self.own_line.contains(&pid)
    }

    fn is_worker(&self, pid: Pid) -> io::Result<bool> {
        if self.workers.contains(&pid) {
            return Ok(true);
        }
        self.is_worker.as_ref().map_or(Ok(false), |is_worker| is_worker(pid))
    }
}

/// The descendants of one worker, the worker itself first, each parent before its children.
pub struct Descendants {
    rights: Rights,
    reach: Reach,
    /// As far as it reaches after all, and why no farther.
    fallback: Option<String>,
    cgroup: Option<cgroup::Own>,
    members: Vec<Member>,
    /// Where a member of this pid is.
    places: HashMap<Pid, usize>,
    /// Processes that were excluded once: they stay so, whatever becomes of their lanes.
    excluded: HashSet<Identity>,
    /// Other workers that were found among them.
    workers: HashSet<Pid>,
    /// Processes that are no workers, asked in this pass.
    no_workers: HashSet<Identity>,
    /// Children that were dead when the last pass found them, and this one.
    dead_children: [HashSet<Identity>; 2],
    /// Whether those that are found are killed at once.
    is_sweeping: bool,
    /// Steps that this removal has left until those that are known are killed.
    rounds: usize,
    /// Looks for children of those that were killed.
    sweeps: u32,
    /// What this step has taken, in looks at members.
    spent: usize,
    /// Children that `/proc` hides.
    hidden: Hidden,
    /// A list that is under way: the next place whose children are to be listed.
    listing: Option<(usize, Children)>,
    phase: Phase,
    /// Why some may be left that are not known.
    uncertain: Option<&'static str>,
}

/// What became of a worker's descendants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many were killed.
    pub signalled: usize,
    /// Other workers that were found among them, and excluded.
    pub spared: Vec<u32>,
    /// How many live on.
    pub left: usize,
    /// Those that live on, the first of them: pid, name and why.
    pub survivors: Vec<String>,
    /// Why it did not reach as far as it was to.
    pub fallback: Option<String>,
}

/// Looks at members in one step, so that the removals of several workers go on side by side.
const LOOKS: usize = 512;
/// A look at so many dead children takes as long as a step of a removal.
const DEAD_PER_ROUND: usize = 128;
/// Dead children of one process that are looked at, the last first, where only living ones are wanted.
const DEAD_PER_SWEEP: usize = 256;
/// The worker's place among the members.
const WORKER: usize = 0;

impl Descendants {
    /// Those of the worker that `worker` refers to; none is known yet.
    ///
    /// # Errors
    /// Where `/proc` refuses, or hides the worker.
    pub fn new(pid: Pid, worker: &Pidfd, rights: Rights, reach: Reach) -> io::Result<Descendants> {
        let mut descendants = Descendants {
            rights,
            reach,
            fallback: None,
            cgroup: None,
            members: Vec::new(),
            places: HashMap::new(),
            excluded: HashSet::new(),
            workers: HashSet::new(),
            no_workers: HashSet::new(),
            dead_children: Default::default(),
            is_sweeping: false,
            rounds: 0,
            sweeps: 0,
            spent: 0,
            hidden: Hidden::default(),
            listing: None,
            phase: Phase::default(),
            uncertain: None,
        };
        let stat = Stat::read(pid)?;
        // Asked last: alive, it had its pid while its start was read.
        if !worker.is_dead() {
            let stat = stat.ok_or_else(|| hidden::error(pid))?;
            descendants.add(stat.identity, WORKER);
        }
        Ok(descendants)
    }

    /// Lists some of the processes that belong to the worker now, and signals none. Done, it begins anew.
    /// `worker` is the handle on it: once it is dead, only descendants of those known already are found.
    ///
    /// # Errors
    /// Where `/proc` refuses or no descriptor is left; those found before are kept.
    pub fn list(&mut self, worker: &Pidfd, excluded: &Excluded) -> io::Result<Step> {
        let (mut next, children) = if let Some(listing) = self.listing.take() {
            listing
        } else {
            self.forget_dead();
            self.no_workers.clear();
            self.list_others(worker, excluded)?;
            (WORKER, Children::new()?)
        };
        self.spent = 0;
        while self.spent < LOOKS {
            if next >= self.members.len() {
                return Ok(Step::Done);
            }
            self.spent += 1;
            if let Opened::Alive(pidfd) = self.open(next)? {
                self.list_children(next, &pidfd, &children, excluded)?;
            }
            next += 1;
        }
        self.listing = Some((next, children));
        Ok(Step::More)
    }

    /// Lists those that belong to the worker without descending from it.
    fn list_others(&mut self, worker: &Pidfd, excluded: &Excluded) -> io::Result<()> {
        if worker.is_dead() || self.members.is_empty() {
            return Ok(());
        }
        match self.reach {
            Reach::Process | Reach::Tree => Ok(()),
            Reach::Group => self.list_group(worker, excluded),
            Reach::Cgroup => self.look_for_cgroup(worker, excluded),
        }
    }

    fn list_group(&mut self, worker: &Pidfd, excluded: &Excluded) -> io::Result<()> {
        let root = self.members[WORKER].identity.pid;
        let group = Stat::read(root)?.and_then(|stat| stat.group);
        if group != Some(root) {
            self.fallback = Some(match group {
                Some(leader) => format!("its process group is led by process {leader}"),
                None => "its process group is led from another PID namespace".to_owned(),
            });
            return Ok(());
        }
        if matches!(Sight::of(Pid::INIT)?, Sight::Hidden) {
            self.uncertain = Some(hidden::OTHERS);
        }
        let found = lineage::members_of_group(root)?;
        // A group keeps its number from others as long as it has members, and the worker is one.
        if !worker.is_dead() {
            for stat in found {
                self.find(&stat, WORKER, excluded)?;
            }
        }
        Ok(())
    }

    fn look_for_cgroup(&mut self, worker: &Pidfd, excluded: &Excluded) -> io::Result<()> {
        let root = self.members[WORKER].identity.pid;
        let own = cgroup::own(root, |pid| self.is_to_be_killed(pid), excluded)?;
        // Dead by now, what was read may be of another process.
        if !worker.is_dead() {
            match own {
                Ok(own) => (self.cgroup, self.fallback) = (Some(own), None),
                Err(why) => (self.cgroup, self.fallback) = (None, Some(why)),
            }
        }
        Ok(())
    }

    /// Lists the children of the member in this place, which `pidfd` refers to. Whether any is new, or has died
    /// since the last pass.
    fn list_children(
        &mut self,
        place: usize,
        pidfd: &Pidfd,
        children: &Children,
        excluded: &Excluded,
    ) -> io::Result<bool> {
        let parent = self.members[place].identity.pid;
        let listed = children.of(parent)?;
        let (is_listed, mut is_any_new, mut dead) = (listed.is_some(), false, 0);
        // The last come last: they are looked at while they live.
        for child in listed.unwrap_or_default().into_iter().rev() {
            self.spent += 1;
            if self.places.contains_key(&child) {
                continue; // should its pid be another's by now, its own look says so
            }
            let sight = Sight::of(child)?;
            // Asked last: alive, the parent had its pid while its children named it.
            if pidfd.is_dead() {
                break;
            }
            if excluded.own_line.contains(&child) {
                self.exclude_line(place);
            }
            is_any_new |= match sight {
                Sight::Seen(stat) if stat.parent != Some(parent) => true,
                Sight::Seen(stat) if stat.is_dead() => {
                    dead += 1;
                    self.is_newly_dead(stat.identity)
                }
                Sight::Seen(stat) => self.find(&stat, place, excluded)?,
                Sight::Hidden => self.hidden.find(child).map(|()| false)?,
                Sight::Gone => true,
            };
            if self.is_sweeping && dead >= DEAD_PER_SWEEP {
                break;
            }
        }
        self.rounds = self.rounds.saturating_sub(dead / DEAD_PER_ROUND);
        if pidfd.is_dead() {
            self.lose(place);
        } else if !is_listed {
            self.uncertain = Some(hidden::CHILDREN);
        }
        Ok(is_any_new)
    }

    /// Whether a dead child was not seen in the last pass or this one: it may have forked before it died.
    fn is_newly_dead(&mut self, identity: Identity) -> bool {
        let [last, this] = &mut self.dead_children;
        !last.contains(&identity) && this.insert(identity)
    }

    /// Takes in a process that was proved to belong to the worker; whether it is new.
    fn find(&mut self, stat: &Stat, parent: usize, excluded: &Excluded) -> io::Result<bool> {
        let identity = stat.identity;
        if self.places.contains_key(&identity.pid) {
            return Ok(false);
        }
        if self.is_spared(identity, excluded)? {
            self.exclude(identity, excluded)?;
            return Ok(false);
        }
        self.add(identity, parent);
        if self.is_sweeping {
            self.kill_member(self.members.len() - 1)?;
        }
        Ok(true)
    }

    /// Whether a process is excluded by itself, now or since it was looked at before.
    fn is_spared(&mut self, identity: Identity, excluded: &Excluded) -> io::Result<bool> {
        if self.excluded.contains(&identity) || excluded.names(identity.pid) {
            return Ok(true);
        }
        if self.no_workers.contains(&identity) {
            return Ok(false);
        }
        let is_worker = excluded.is_worker(identity.pid)?;
        if !is_worker {
            self.no_workers.insert(identity);
        }
        Ok(is_worker)
    }

    fn exclude(&mut self, identity: Identity, excluded: &Excluded) -> io::Result<()> {
        if !self.workers.contains(&identity.pid) && excluded.is_worker(identity.pid)? {
            self.workers.insert(identity.pid);
        }
        self.excluded.insert(identity);
        Ok(())
    }

    fn add(&mut self, identity: Identity, parent: usize) {
        self.hidden.is_seen(identity.pid);
        self.places.insert(identity.pid, self.members.len());
        self.members.push(Member::new(identity, parent));
    }

    /// Opens the member in this place, if it is there still.
    fn open(&mut self, place: usize) -> io::Result<Opened> {
        let opened = self.members[place].open()?;
        if matches!(opened, Opened::Dead) {
            self.lose(place);
        }
        Ok(opened)
    }

    /// The member in this place is dead: its pid may be another's.
    fn lose(&mut self, place: usize) {
        let member = &mut self.members[place];
        member.is_dead = true;
        if self.places.get(&member.identity.pid) == Some(&place) {
            self.places.remove(&member.identity.pid);
        }
    }

    /// Forgets the dead that nobody's place refers to: a worker that forks all the time fills no memory.
    fn forget_dead(&mut self) {
        let [last, this] = &mut self.dead_children;
        *last = std::mem::take(this);
        self.hidden.forget_dead();
        let is_needed = |member: &Member| !member.is_dead || member.fate != Fate::Found;
        let mut moved = vec![WORKER; self.members.len()];
        let mut kept: Vec<Member> = Vec::new();
        for (place, mut member) in std::mem::take(&mut self.members).into_iter().enumerate() {
            member.parent = moved[member.parent];
            if place == WORKER || is_needed(&member) {
                moved[place] = kept.len();
                kept.push(member);
            } else {
                moved[place] = member.parent;
            }
        }
        self.members = kept;
        let living = self.members.iter().enumerate().filter(|(_, member)| !member.is_dead);
        self.places = living.map(|(place, member)| (member.identity.pid, place)).collect();
    }

    /// Whether a process of this pid is the worker or goes with it.
    fn is_to_be_killed(&self, pid: Pid) -> bool {
        self.places.get(&pid).is_some_and(|place| {
            let fate = self.members[*place].fate;
            !matches!(fate, Fate::Refused | Fate::Excluded)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use rustix::process::Signal;

    use super::*;
    use crate::proc::State;

    /// A shell with a child, which has a child: their pids, the shell's first.
    struct Family(Child, Vec<Pid>);

    impl Family {
        fn start() -> Family {
            let script = "sh -c 'sleep 600 & echo $$ $!; wait' & wait";
            let mut shell =
                Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let below = line.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()));
            let pids = [Some(Pid::from_child(&shell))].into_iter().chain(below);
            let pids = pids.map(Option::unwrap).collect();
            Family(shell, pids)
        }

        /// Whether those below the shell are alive, once it is dead.
        fn end(mut self) -> Vec<bool> {
            let _ = self.0.kill();
            self.0.wait().unwrap();
            let is_alive =
                |pid: &Pid| Stat::read(*pid).unwrap().is_some_and(|stat| !stat.is_dead());
            let alive = self.1[1..].iter().map(is_alive).collect();
            for pid in &self.1[1..] {
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
            }
            alive
        }
    }

    fn remove(descendants: &mut Descendants, worker: &Pidfd, excluded: &Excluded) {
        while descendants.remove(worker, excluded).unwrap() != Step::Done {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_excluded_once_stays_so_with_all_below_it() {
        let family = Family::start();
        let worker = Pidfd::open(family.1[0]).unwrap();
        let mut descendants =
            Descendants::new(family.1[0], &worker, Rights::Own, Reach::Tree).unwrap();
        let excluded = Excluded { workers: [family.1[1]].into(), ..Excluded::default() };
        assert_eq!(descendants.list(&worker, &excluded).unwrap(), Step::Done);
        // It gives its lane back meanwhile.
        remove(&mut descendants, &worker, &Excluded::default());
        let removed = descendants.removed();
        assert_eq!(family.end(), [true, true]);
        assert_eq!((removed.signalled, removed.spared.len()), (0, 1));
    }

    #[test]
    fn a_descendant_that_attaches_while_it_is_stopped_goes_on_with_all_below_it() {
        let family = Family::start();
        let worker = Pidfd::open(family.1[0]).unwrap();
        let mut descendants =
            Descendants::new(family.1[0], &worker, Rights::Own, Reach::Tree).unwrap();
        while !matches!(descendants.phase, Phase::Killing { .. }) {
            descendants.remove(&worker, &Excluded::default()).unwrap();
        }
        let excluded = Excluded { workers: [family.1[1]].into(), ..Excluded::default() };
        remove(&mut descendants, &worker, &excluded);
        let states: Vec<State> =
            family.1[1..].iter().map(|pid| Stat::read(*pid).unwrap().unwrap().state).collect();
        assert_eq!(family.end(), [true, true]);
        assert!(!states.contains(&State::Stopped), "{states:?}");
    }

    #[test]
    fn nobody_is_signalled_while_it_cannot_be_asked_who_is_a_worker() {
        let family = Family::start();
        let worker = Pidfd::open(family.1[0]).unwrap();
        let mut descendants =
            Descendants::new(family.1[0], &worker, Rights::Own, Reach::Tree).unwrap();
        let is_worker = |_| Err(io::Error::other("no answer"));
        let excluded = Excluded { is_worker: Some(Box::new(is_worker)), ..Excluded::default() };
        for _ in 0..100 {
            let _ = descendants.remove(&worker, &excluded);
        }
        assert!(!descendants.is_worker_killed());
        remove(&mut descendants, &worker, &Excluded::default());
        assert_eq!(family.end(), [false, false]);
    }

    #[test]
    fn a_tree_that_somebody_lets_run_on_is_removed_in_a_bounded_number_of_steps() {
        let family = Family::start();
        let worker = Pidfd::open(family.1[0]).unwrap();
        let mut descendants =
            Descendants::new(family.1[0], &worker, Rights::Own, Reach::Tree).unwrap();
        let busy = Command::new("sh")
            .args(["-c", "while :; do kill -CONT \"$0\" \"$1\" \"$2\"; done"])
            .args(family.1.iter().map(ToString::to_string))
            .spawn();
        let mut busy = busy.unwrap();
        let steps = (0..5_000).find(|_| {
            std::thread::sleep(std::time::Duration::from_micros(100));
            descendants.remove(&worker, &Excluded::default()).unwrap();
            descendants.is_worker_killed()
        });
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(steps.is_some());
        assert_eq!(family.end(), [false, false]);
    }

    #[test]
    fn of_a_worker_whose_users_are_not_known_no_descendant_is_signalled() {
        let family = Family::start();
        let worker = Pidfd::open(family.1[0]).unwrap();
        let mut descendants =
            Descendants::new(family.1[0], &worker, Rights::Of(None), Reach::Tree).unwrap();
        remove(&mut descendants, &worker, &Excluded::default());
        let removed = descendants.removed();
        assert_eq!(family.end(), [true, true]);
        assert_eq!((removed.signalled, removed.left, removed.survivors.len()), (0, 2, 2));
    }

    #[test]
    fn a_process_that_has_the_pid_of_a_dead_one_is_no_descendant() {
        let family = Family::start();
        let worker = Pidfd::open(family.1[0]).unwrap();
        let mut descendants =
            Descendants::new(family.1[0], &worker, Rights::Own, Reach::Tree).unwrap();
        let own = Stat::read(rustix::process::getpid()).unwrap().unwrap().identity;
        // This process has the pid that one before it had.
        descendants.add(Identity { start: own.start - 1, ..own }, WORKER);
        assert!(matches!(descendants.open(1).unwrap(), Opened::Dead));
        assert!(descendants.members[1].is_dead);
        family.end();
    }
}
