//! Descendants that `/proc` hides from this user (mounted with `hidepid`): they are reported as left, and
//! never signalled, since nothing shows which processes they are.

use std::collections::HashMap;
use std::io;

use rustix::process::Pid;

use super::{Descendants, WORKER};
use crate::lineage;

/// What is reported when the children of a hidden process are not known.
pub(super) const CHILDREN: &str = "/proc hides one of them (hidepid), and its children";
/// What is reported when the members of a process group may be hidden.
pub(super) const OTHERS: &str =
    "/proc hides processes of other users (hidepid), which may be in its process group";

/// The error for a worker that `/proc` hides.
pub(super) fn error(pid: Pid) -> io::Error {
    let why = format!("/proc hides process {pid} (hidepid); run the watchdog as root");
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Children of members that `/proc` hides.
#[derive(Default)]
pub(super) struct Hidden(HashMap<Pid, Option<u64>>);

impl Hidden {
    /// Takes in a child. Of its identity only the inode on pidfs is known, where the kernel has that.
    pub(super) fn find(&mut self, pid: Pid) -> io::Result<()> {
        if let Some(pidfd) = lineage::open_living(pid)? {
            self.0.insert(pid, pidfd.inode());
        }
        Ok(())
    }

    /// It is a member now.
    pub(super) fn is_seen(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    pub(super) fn forget_dead(&mut self) {
        self.0.retain(|pid, inode| match lineage::open_living(*pid) {
            Ok(pidfd) => pidfd.is_some_and(|pidfd| pidfd.inode() == *inode),
            // What cannot be asked about counts as alive.
            Err(_) => true,
        });
    }

    /// Those that live on, in the order of their pids.
    pub(super) fn living(&mut self) -> Vec<Pid> {
        self.forget_dead();
        let mut living: Vec<Pid> = self.0.keys().copied().collect();
        living.sort_unstable_by_key(|pid| pid.as_raw_pid());
        living
    }
}

impl Descendants {
    /// Excludes the member in this place and all above it up to the worker: the watchdog descends from it.
    /// Where `/proc` hides one of the processes above the watchdog, those above that one are known only so.
    pub(super) fn exclude_line(&mut self, mut place: usize) {
        while place != WORKER {
            self.excluded.insert(self.members[place].identity);
            place = self.members[place].parent;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Signal, kill_process};

    use super::super::member::Opened;
    use super::super::{Excluded, Reach, Rights, Step};
    use super::*;
    use crate::lineage::{Identity, Sight, own_line};
    use crate::pidfd::Pidfd;

    const USER: u32 = 4022;
    const INSIDE: &str = "HANGWATCH_TEST_HIDEPID";

    /// Runs the test of this name again, as root that may not trace, in a mount namespace whose `/proc`
    /// hides the processes of others. Whether this is that run.
    fn is_inside(test: &str) -> bool {
        if std::env::var_os(INSIDE).is_some() {
            return true;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root mounts a /proc that hides processes");
            return false;
        }
        for hide in ["1", "2"] {
            // Those in group 0 would see everybody.
            let script =
                format!("mount -t proc -o hidepid={hide},gid=4022 proc /proc && exec \"$@\"");
            let output = Command::new("unshare")
                .args(["--mount", "sh", "-c", &script, "sh", "setpriv"])
                .args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", &format!("descendants::hidden::tests::{test}"), "--nocapture"])
                .env(INSIDE, hide)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "hidepid={hide}: {said}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{said}");
        }
        false
    }

    /// A shell, a shell below it, and below that one a process of another user, which is hidden.
    struct Family {
        shell: Child,
        pids: [Pid; 3],
    }

    impl Family {
        fn start() -> Family {
            let other = format!("setpriv --reuid {USER} --regid {USER} --clear-groups sleep 600");
            let script = format!("sh -c '{other} & echo $$ $!; wait' & wait");
            let mut shell =
                Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let mut below = line.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()));
            let mut next = || below.next().unwrap().unwrap();
            let family = Family { pids: [Pid::from_child(&shell), next(), next()], shell };
            while !matches!(Sight::of(family.pids[2]).unwrap(), Sight::Hidden) {
                std::thread::yield_now();
            }
            family
        }

        fn descendants(&self, reach: Reach) -> (Pidfd, Descendants) {
            let worker = Pidfd::open(self.pids[0]).unwrap();
            let descendants = Descendants::new(self.pids[0], &worker, Rights::Own, reach).unwrap();
            (worker, descendants)
        }

        /// Which of them are alive, the shell's own child first.
        fn living_below(&self) -> [bool; 2] {
            [self.pids[1], self.pids[2]].map(|pid| lineage::open_living(pid).unwrap().is_some())
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            let _ = self.shell.kill();
            let _ = self.shell.wait();
            for pid in &self.pids[1..] {
                let _ = kill_process(*pid, Signal::KILL);
            }
        }
    }

    fn remove(descendants: &mut Descendants, worker: &Pidfd, excluded: &Excluded) {
        while descendants.remove(worker, excluded).unwrap() != Step::Done {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_hidden_child_is_left_and_named() {
        if !is_inside("a_hidden_child_is_left_and_named") {
            return;
        }
        for reach in [Reach::Tree, Reach::Group] {
            let family = Family::start();
            let (worker, mut descendants) = family.descendants(reach);
            assert_eq!(descendants.list(&worker, &Excluded::default()).unwrap(), Step::Done);
            remove(&mut descendants, &worker, &Excluded::default());
            let removed = descendants.removed();
            assert_eq!(family.living_below(), [false, true]);
            assert_eq!((removed.signalled, removed.left), (1, 1), "{removed:?}");
            let name = format!("{} (hidden by /proc)", family.pids[2]);
            assert!(removed.survivors.contains(&name), "{removed:?}");
        }
    }

    #[test]
    fn a_hidden_member_is_not_taken_for_dead() {
        if !is_inside("a_hidden_member_is_not_taken_for_dead") {
            return;
        }
        let family = Family::start();
        let (worker, mut descendants) = family.descendants(Reach::Tree);
        // It was seen once, before it was of another user.
        descendants.add(Identity { pid: family.pids[2], start: 1 }, WORKER);
        assert!(matches!(descendants.open(1).unwrap(), Opened::Hidden));
        remove(&mut descendants, &worker, &Excluded::default());
        let removed = descendants.removed();
        assert_eq!(family.living_below(), [false, true]);
        assert_eq!((removed.signalled, removed.left), (1, 1), "{removed:?}");
        assert!(removed.survivors.contains(&CHILDREN.to_owned()), "{removed:?}");
    }

    #[test]
    fn a_hidden_worker_is_an_error() {
        if !is_inside("a_hidden_worker_is_an_error") {
            return;
        }
        let family = Family::start();
        let worker = Pidfd::open(family.pids[2]).unwrap();
        let new = Descendants::new(family.pids[2], &worker, Rights::Own, Reach::Tree);
        assert_eq!(new.err().map(|error| error.kind()), Some(io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn above_a_hidden_process_above_the_watchdog_none_is_killed() {
        if !is_inside("above_a_hidden_process_above_the_watchdog_none_is_killed") {
            return;
        }
        assert!(own_line().unwrap().len() > 1);
        let family = Family::start();
        let (worker, mut descendants) = family.descendants(Reach::Tree);
        // All that is known of the watchdog's line: the process above the hidden one is not.
        let excluded = Excluded { own_line: [family.pids[2]].into(), ..Excluded::default() };
        remove(&mut descendants, &worker, &excluded);
        assert_eq!(family.living_below(), [true, true]);
        let stat = lineage::Stat::read(family.pids[1]).unwrap().unwrap();
        assert_ne!(stat.state, crate::proc::State::Stopped);
    }
}
