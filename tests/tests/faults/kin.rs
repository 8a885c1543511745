//! The processes that are removed with a worker: its tree, its group, its cgroup; and those that are not.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use std::process::Command;

use hangwatch::CreateOptions;
use hangwatch_core::wire::lane::{LaneNames, LaneState, OwnerWord};
use hangwatch_tests::soak::{self, descendants};
use hangwatch_tests::{Actor, Busy, Stage, Watchdog, is_root, living_of, program, until};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde_json::Value;

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// A process by a handle of the test's own: a pid may be another's once it is dead.
struct Handle {
    pid: u32,
    pidfd: std::os::fd::OwnedFd,
}

impl Handle {
    fn is_alive(&self) -> bool {
        let mut polled = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec::default();
        rustix::event::poll(&mut polled, Some(&now)).unwrap() == 0
    }

    fn wait(&self) {
        until(&format!("process {} ends", self.pid), || (!self.is_alive()).then_some(()));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Most are dead already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

fn handles(pids: &str) -> Vec<Handle> {
    let handle = |pid: &str| {
        let pid: u32 = pid.parse().unwrap();
        let raw = Pid::from_raw(pid.cast_signed()).unwrap();
        Handle { pid, pidfd: rustix::process::pidfd_open(raw, PidfdFlags::empty()).unwrap() }
    };
    pids.split(' ').map(handle).collect()
}

fn is_kin(pid: u32) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "kin" && event["pid"] == pid
}

/// Lets a worker hang, and says what became of its kin.
fn hang(watchdog: &mut Watchdog, actor: &mut Actor) -> Value {
    actor.tell("expires step 50");
    let event = watchdog.event(is_kin(actor.pid()));
    assert_eq!(actor.wait().signal(), Some(SIGKILL));
    event
}

#[test]
fn the_children_of_a_data_loader_go_with_their_worker() {
    for reach in ["tree", "group", "cgroup"] {
        let stage = Stage::new("tree");
        let mut watchdog = stage.watchdog(&["--reap", reach]);
        let mut actor = stage.actor();
        let loaders = handles(&actor.tell("loaders 3"));
        let event = hang(&mut watchdog, &mut actor);
        loaders.iter().for_each(Handle::wait);
        assert_eq!(event["processes"], 6, "{event}");
        // Started by the test, it leads no group and has no cgroup of its own.
        assert_eq!(event["fallback"].is_string(), reach != "tree", "{event}");
    }
}

#[test]
fn by_default_a_worker_takes_nobody_along() {
    let stage = Stage::new("alone");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = stage.actor();
    let loaders = handles(&actor.tell("loaders 1"));
    actor.tell("expires step 50");
    assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reaped");
    actor.wait();
    assert!(loaders.iter().all(Handle::is_alive));
}

#[test]
fn a_worker_below_a_worker_is_spared_with_its_own_children() {
    let stage = Stage::new("nested");
    let mut watchdog = stage.watchdog(&["--reap", "tree"]);
    let mut actor = stage.actor();
    let loaders = handles(&actor.tell("loaders 1"));
    let nested = handles(&actor.tell("nested"));
    // It ends when the one above it is dead; its children then stay.
    let event = hang(&mut watchdog, &mut actor);
    loaders.iter().for_each(Handle::wait);
    assert_eq!(event["spared"], nested[0].pid.to_string(), "{event}");
    assert_eq!(event["processes"], 2, "{event}");
    assert!(nested[1..].iter().all(Handle::is_alive));
}

#[test]
fn a_worker_cannot_shield_a_descendant_by_claiming_its_pid_in_a_free_lane() {
    let stage = Stage::new("shield");
    let mut watchdog = stage.watchdog(&["--reap", "tree"]);
    let mut actor = stage.actor();
    let loaders = handles(&actor.tell("loaders 1"));
    actor.tell("attach");
    let lane = stage.segment.words().lane(3);
    let (identity, pid) = (stage.segment.words().lane(0).identity(), loaders[0].pid);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The watchdog gives it back each time: nobody has its lock.
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let epoch = lane.owner().epoch().wrapping_add(1);
                let forged = OwnerWord::new(LaneState::Attached, epoch, pid);
                lane.attach(forged, identity, LaneNames::default());
                std::thread::yield_now();
            }
        });
        stage.segment.words().note_lane_used(3);
        let event = hang(&mut watchdog, &mut actor);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(event["processes"], 2, "{event}");
    });
    loaders.iter().for_each(Handle::wait);
}

#[test]
fn a_worker_that_ends_by_a_gentler_signal_takes_its_children_along() {
    let stage = Stage::new("gentle");
    let mut watchdog = stage.watchdog(&["--reap", "tree", "--signal", "TERM", "--grace", "10m"]);
    let mut actor = stage.actor();
    let loaders = handles(&actor.tell("loaders 2"));
    actor.tell("expires step 50");
    watchdog.event(is_kin(actor.pid()));
    assert_eq!(actor.wait().signal(), Some(SIGTERM));
    loaders.iter().for_each(Handle::wait);
}

#[test]
fn a_worker_that_ends_by_itself_takes_nobody_along() {
    let stage = Stage::new("by-itself");
    let mut watchdog = stage.watchdog(&["--reap", "tree"]);
    let mut actor = stage.actor();
    let loaders = handles(&actor.tell("loaders 1"));
    actor.tell("expires step 3600000");
    // Whoever is dead before it is admitted is nobody who leaves.
    watchdog.event(|event| event["event"] == "admitted");
    actor.wait_or_kill();
    watchdog.event(|event| event["event"] == "left");
    assert!(watchdog.end().success());
    assert!(loaders.iter().all(Handle::is_alive));
}

#[test]
fn who_left_the_tree_but_not_the_group_goes_with_the_group() {
    for (reach, goes) in [("tree", false), ("group", true)] {
        let stage = Stage::new("group");
        let mut watchdog = stage.watchdog(&["--reap", reach]);
        let mut actor = stage.actor();
        actor.tell("lead");
        let daemon = handles(&actor.tell("daemon"));
        let loaders = handles(&actor.tell("loaders 1"));
        let event = hang(&mut watchdog, &mut actor);
        loaders.iter().for_each(Handle::wait);
        assert_eq!(event["processes"], if goes { 3 } else { 2 }, "{event}");
        assert!(event["fallback"].is_null(), "{event}");
        if goes {
            daemon[0].wait();
        } else {
            assert!(daemon[0].is_alive());
        }
    }
}

/// A cgroup of version 2 of the test's own, emptied and removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None`, and why, where none is to be had here.
    fn new(test: &str) -> Option<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().filter(|line| line.contains(" - cgroup2 ")).find_map(|line| {
            let mut fields = line.split(' ').skip(3);
            (fields.next()? == "/").then(|| fields.next())?
        });
        let Some(mount) = mount else {
            println!("skipped: {test} needs the hierarchy of cgroups of version 2, mounted whole");
            return None;
        };
        let dir = Path::new(mount).join(format!("hangwatch-{test}-{}", std::process::id()));
        if let Err(error) = fs::create_dir(&dir) {
            println!("skipped: {test} may not make {}: {error}", dir.display());
            return None;
        }
        let cgroup = Cgroup(dir);
        if !cgroup.0.join("cgroup.kill").exists() {
            println!("skipped: {test} needs cgroup.kill (Linux 5.14)");
            return None;
        }
        Some(cgroup)
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        // The kernel takes its time to notice that it is empty.
        for _ in 0..1000 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

#[test]
fn a_cgroup_of_its_own_ends_with_its_worker() {
    let Some(cgroup) = Cgroup::new("own-cgroup") else { return };
    let stage = Stage::new("cgroup");
    let mut watchdog = stage.watchdog(&["--reap", "cgroup"]);
    let mut actor = stage.actor();
    cgroup.take(actor.pid());
    let loaders = handles(&actor.tell("loaders 2"));
    let event = hang(&mut watchdog, &mut actor);
    loaders.iter().for_each(Handle::wait);
    assert!(event["fallback"].is_null(), "{event}");
}

#[test]
fn a_cgroup_with_somebody_else_in_it_is_left_alone() {
    let Some(cgroup) = Cgroup::new("shared-cgroup") else { return };
    let stage = Stage::new("shared");
    let mut watchdog = stage.watchdog(&["--reap", "cgroup"]);
    let (mut actor, mut other) = (stage.actor(), stage.actor());
    cgroup.take(actor.pid());
    cgroup.take(other.pid());
    let loaders = handles(&actor.tell("loaders 2"));
    let event = hang(&mut watchdog, &mut actor);
    loaders.iter().for_each(Handle::wait);
    assert!(event["fallback"].as_str().unwrap().contains("another worker is in"), "{event}");
    assert!(other.is_alive());
    other.end();
}

/// Lets a worker hang with its children, and expects that none of them lives on.
fn none_is_left(test: &str, orders: &[&str], least: u64) {
    let stage = Stage::new(test);
    let mut watchdog = stage.watchdog(&["--reap", "tree"]);
    let mut actor = stage.actor();
    for order in orders {
        actor.tell(order);
    }
    let event = hang(&mut watchdog, &mut actor);
    assert_eq!(living_of(stage.name()), [0; 0], "{event}");
    assert!(event["processes"].as_u64().unwrap() >= least, "{event}");
    assert_eq!(
        (event["level"].as_str(), event["left"].as_u64()),
        (Some("INFO"), Some(0)),
        "{event}"
    );
}

#[test]
fn none_of_a_thousand_children_lives_on() {
    none_is_left("thousand", &["children 1000 idle"], 1000);
}

#[test]
fn children_that_use_every_processor_do_not_live_on() {
    let _busy = Busy::start(4);
    none_is_left("busy", &["children 40 busy", "loaders 3"], 46);
}

#[test]
fn children_that_fork_while_they_are_killed_do_not_live_on() {
    none_is_left("forking", &["children 4 forking"], 4);
}

#[test]
fn a_process_that_a_worker_adopted_does_not_live_on() {
    none_is_left("adopted", &["adopt", "daemon"], 1);
}

#[test]
fn none_of_the_children_of_many_workers_at_once_lives_on() {
    soak::check(&descendants::PART, 2);
}

#[test]
fn a_watchdog_with_few_descriptors_kills_all_descendants() {
    let stage = Stage::new("few-descriptors");
    let mut command = Command::new("sh");
    let script = "ulimit -n 80; exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(program("stage-watchdog"));
    // Root may raise any limit again: as somebody else it may not.
    command.args(Watchdog::arguments(stage.name(), &["--reap", "tree"]));
    if is_root("a limit that holds") {
        command = bounded(&command);
    }
    let mut watchdog = Watchdog::spawn(command);
    watchdog.event(|event| event["event"] == "serving");
    let mut actor = stage.actor();
    actor.tell("children 300 idle");
    let event = hang(&mut watchdog, &mut actor);
    assert_eq!(living_of(stage.name()), [0; 0], "{event}");
    assert_eq!(event["processes"], 300, "{event}");
}

/// The command without the capability to raise its limits.
fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("setpriv");
    bounded.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]);
    bounded.arg(command.get_program()).args(command.get_args());
    bounded
}

#[test]
fn a_successor_kills_what_a_dead_watchdog_has_stopped() {
    for point in ["descendants-stopped", "descendants-killed"] {
        let stage = Stage::new("half-way");
        let crash = [("HANGWATCH_CRASH_AT", point)];
        let mut first = Watchdog::start(stage.name(), &["--reap", "tree"], &crash);
        let mut actor = stage.actor();
        actor.tell("children 5 idle");
        actor.tell("expires step 50");
        assert_eq!(first.wait().signal(), Some(SIGKILL), "{point}");
        assert!(actor.is_alive(), "{point}: the worker dies last");
        let mut second = stage.watchdog(&["--reap", "tree"]);
        second.event(is_kin(actor.pid()));
        assert_eq!(actor.wait().signal(), Some(SIGKILL), "{point}");
        assert_eq!(living_of(stage.name()), [0; 0], "{point}");
    }
}

/// The first letter of a process's state; `None` once it is gone.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A worker that a watchdog has stopped with its descendants before it died: the worker, and all of them.
fn stopped_half_way(stage: &Stage) -> (Actor, Vec<u32>) {
    let crash = [("HANGWATCH_CRASH_AT", "descendants-stopped")];
    let mut first = Watchdog::start(stage.name(), &["--reap", "tree"], &crash);
    let mut actor = stage.actor();
    actor.tell("children 5 idle");
    actor.tell("expires step 50");
    assert_eq!(first.wait().signal(), Some(SIGKILL));
    let all = living_of(stage.name());
    assert!(all.len() == 6 && all.iter().all(|pid| state_of(*pid) == Some('T')), "{all:?}");
    (actor, all)
}

#[test]
fn a_successor_that_signals_nobody_has_the_stopped_run_again() {
    let stage = Stage::new("resumed");
    let (mut actor, all) = stopped_half_way(&stage);
    let mut second = stage.watchdog(&["--reap", "tree", "--notify-only"]);
    let resumed = second.event(|event| event["event"] == "resumed");
    assert_eq!((&resumed["pid"], &resumed["processes"]), (&actor.pid().into(), &6.into()));
    until("all run again", || all.iter().all(|pid| state_of(*pid) == Some('S')).then_some(()));
    assert_eq!(actor.tell("release step"), "TooLate");
    assert!(second.end().success());
    // There is nothing left to be resumed.
    let mut third = stage.watchdog(&["--notify-only"]);
    third.event(|event| event["event"] == "admitted");
    assert!(third.end().success());
    assert!(third.events().iter().all(|event| event["event"] != "resumed"));
    assert!(actor.is_alive());
    // Its handles kill them; the worker is waited for by its actor.
    drop(all.into_iter().map(|pid| handles(&pid.to_string())).collect::<Vec<_>>());
}

#[test]
fn a_successor_that_kills_no_descendants_has_them_run_again() {
    let stage = Stage::new("resumed-below");
    let (mut actor, all) = stopped_half_way(&stage);
    let mut second = stage.watchdog(&["--signal", "TERM", "--grace", "10s"]);
    let below: Vec<u32> = all.into_iter().filter(|pid| *pid != actor.pid()).collect();
    // They end with the test, however it ends.
    let _handles: Vec<_> = below.iter().map(|pid| handles(&pid.to_string())).collect();
    // Two threads report these, in any order.
    let (resumed, reaped) = (Cell::new(false), Cell::new(false));
    second.event(|event| {
        resumed.set(resumed.get() || event["event"] == "resumed");
        reaped.set(reaped.get() || event["outcome"] == "reaped");
        resumed.get() && reaped.get()
    });
    assert_eq!(actor.wait().signal(), Some(SIGTERM));
    assert!(below.iter().all(|pid| state_of(*pid) == Some('S')), "{below:?}");
}

#[test]
fn a_watchdog_that_is_told_to_end_finishes_what_it_has_begun() {
    let stage = Stage::new("told-to-end");
    let mut watchdog = stage.watchdog(&["--reap", "tree"]);
    let mut actor = stage.actor();
    actor.tell("children 400 idle");
    actor.tell("expires step 50");
    watchdog.event(|event| event["event"] == "signalled");
    assert!(watchdog.end().success());
    assert_eq!(actor.wait().signal(), Some(SIGKILL));
    assert_eq!(living_of(stage.name()), [0; 0]);
}

#[test]
fn a_descendant_that_its_worker_could_not_signal_lives_on() {
    const USER: u32 = 4002;
    if !is_root("a set-user-ID program") {
        return;
    }
    for (reach, adopts) in [("tree", false), ("tree", true), ("group", false)] {
        // Where set-user-ID programs are run and any user finds them.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        open_to_all(dir.path(), 0o755);
        let copy = |from: PathBuf, name: &str, mode| {
            fs::copy(from, dir.path().join(name)).unwrap();
            open_to_all(&dir.path().join(name), mode);
            dir.path().join(name)
        };
        let worker = copy(program("stage-worker"), "stage-worker", 0o755);
        let set_user = copy("/usr/bin/setpriv".into(), "setpriv", 0o4755);
        let options = CreateOptions {
            geometry: Stage::geometry(8),
            mode: 0o660,
            gid: Some(USER),
            ..CreateOptions::default()
        };
        let stage = Stage::with("other-user", options);
        let mut watchdog = stage.watchdog(&["--reap", reach]);
        let mut command = Command::new(worker);
        std::os::unix::process::CommandExt::gid(&mut command, USER);
        std::os::unix::process::CommandExt::uid(&mut command, USER);
        let mut actor = Actor::spawn(stage.name(), command);
        actor.tell("lead");
        actor.tell("attach");
        if adopts {
            actor.tell("adopt");
        }
        let pid = actor.tell(&format!(
            "run {} --reuid=0 --clear-groups {} sleep 600",
            set_user.display(),
            if adopts { "setsid --fork" } else { "env" },
        ));
        let own = handles(&actor.tell("loaders 1"));
        // (With a fork in between, it is its child.)
        let is_root = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.contains("Name:\tsleep") && status.contains("Uid:\t0\t0\t0\t0")
        };
        let other = until("it is root", || living_of(stage.name()).into_iter().find(is_root));
        let other = handles(&other.to_string());
        let event = hang(&mut watchdog, &mut actor);
        own.iter().for_each(Handle::wait);
        assert!(other[0].is_alive(), "{reach}: of another user, {pid}: {event}");
        assert_eq!(event["level"], "WARN", "{event}");
        assert_eq!((&event["processes"], &event["left"]), (&2.into(), &1.into()), "{event}");
        assert!(event["survivors"].as_str().unwrap().contains("may not be signalled"), "{event}");
        let line = fs::read_to_string(format!("/proc/{}/stat", other[0].pid)).unwrap();
        assert!(!line.contains(") T "), "{reach}: nor is it left stopped: {line}");
    }
}

fn open_to_all(path: &Path, mode: u32) {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).unwrap();
}
