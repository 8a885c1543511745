//! A control group of a test's own, in which processes are frozen and thawed together.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mount::Mount;
use crate::until;

/// Where the freezer of version 1 and the hierarchy of version 2 are looked for, what freezes, what
/// thaws, and where it is said.
const PLACES: [(&str, [&str; 3], &str, &str); 3] = [
    ("/sys/fs/cgroup/freezer", ["freezer.state", "FROZEN", "THAWED"], "freezer.state", "FROZEN"),
    ("/sys/fs/cgroup", ["cgroup.freeze", "1", "0"], "cgroup.events", "frozen 1"),
    ("/sys/fs/cgroup/unified", ["cgroup.freeze", "1", "0"], "cgroup.events", "frozen 1"),
];

/// A control group; thawed, emptied and removed when it is dropped.
pub struct Freezer {
    directory: PathBuf,
    switch: [&'static str; 3],
    told_in: &'static str,
    told: &'static str,
    members: Vec<u32>,
}

impl Freezer {
    /// Makes one; says why `test` is skipped where that may not be.
    pub fn new(test: &str) -> Option<Freezer> {
        let made = PLACES.iter().find_map(|(root, switch, told_in, told)| {
            Freezer::in_hierarchy(Path::new(root), test, *switch, told_in, told)
        });
        if made.is_none() {
            println!("skipped: {test} may not make a control group that freezes");
        }
        made
    }

    /// Makes one of version 2, in a mount of that hierarchy of the calling thread's own, which the
    /// processes see that it starts from now on; says why `test` is skipped where that may not be.
    ///
    /// # Panics
    /// Where no directory is to be had.
    pub fn of_version_2(test: &str) -> Option<(Freezer, Mount)> {
        let mount = match Mount::new("cgroup2", "") {
            Ok(mount) => mount,
            Err(error) => {
                println!("skipped: {test} may not mount cgroup2: {error}");
                return None;
            }
        };
        let (_, switch, told_in, told) = PLACES[1];
        let made = Freezer::in_hierarchy(mount.path(), test, switch, told_in, told);
        if made.is_none() {
            println!("skipped: {test} may not make a control group of version 2");
        }
        Some((made?, mount))
    }

    fn in_hierarchy(
        root: &Path,
        test: &str,
        switch: [&'static str; 3],
        told_in: &'static str,
        told: &'static str,
    ) -> Option<Freezer> {
        let directory = root.join(format!("hangwatch-{test}-{}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        let freezer = Freezer { directory, switch, told_in, told, members: Vec::new() };
        // Dropped, it is removed again.
        freezer.directory.join(switch[0]).exists().then_some(freezer)
    }

    /// Takes a process in.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn take(&mut self, pid: u32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
        self.members.push(pid);
    }

    /// Freezes all of it, and waits until it is frozen.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn freeze(&self) {
        let [switch, freeze, _] = self.switch;
        fs::write(self.directory.join(switch), freeze).unwrap();
        until("the control group is frozen", || {
            let says = fs::read_to_string(self.directory.join(self.told_in)).unwrap();
            says.lines().any(|line| line == self.told).then_some(())
        });
    }

    /// Lets it go on.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn thaw(&self) {
        fs::write(self.directory.join(self.switch[0]), self.switch[2]).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = fs::write(self.directory.join(self.switch[0]), self.switch[2]);
        let root = self.directory.parent().expect("it lies in a hierarchy").join("cgroup.procs");
        for pid in &self.members {
            // Those that live still: it must be empty.
            let _ = fs::write(&root, pid.to_string());
        }
        // A dead member that nobody waited for yet keeps it for a moment.
        for _ in 0..1000 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
