//! Workers of other users and groups, and files that wait under a segment's name.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use hangwatch::{CreateOptions, Segment};
use hangwatch_tests::{Actor, Stage, Watchdog, is_root, program};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Users and groups that no system account has.
const OWNER: u32 = 4001;
pub(super) const STRANGER: u32 = 4002;
pub(super) const GROUP: u32 = 4003;

/// The programs of the stage, where any user may run them.
pub(super) struct Programs(tempfile::TempDir);

impl Programs {
    pub(super) fn new() -> Programs {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["stage-worker", "stage-watchdog"] {
            let copy = directory.path().join(name);
            fs::copy(program(name), &copy).unwrap();
            fs::set_permissions(copy, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Programs(directory)
    }

    fn run_as(&self, name: &str, user: u32, group: u32) -> Command {
        let mut command = Command::new(self.0.path().join(name));
        command.uid(user).gid(group);
        command
    }

    /// What a worker of this user and group hears when it attaches.
    pub(super) fn attach(&self, segment: &str, user: u32, group: u32) -> (Actor, String) {
        let mut actor = Actor::spawn(segment, self.run_as("stage-worker", user, group));
        actor.order("attach");
        let answer = actor.answer().expect("it is alive");
        (actor, answer)
    }
}

fn segment_for(mode: u32, gid: Option<u32>) -> Stage {
    let options =
        CreateOptions { geometry: Stage::geometry(4), mode, gid, ..CreateOptions::default() };
    Stage::with("strangers", options)
}

#[test]
fn workers_of_other_users_and_groups_are_refused_unless_their_group_is_allowed() {
    if !is_root("workers of other users") {
        return;
    }
    let programs = Programs::new();
    for (mode, gid, owner, group, expected) in [
        (0o600, None, 0, STRANGER, "permission denied; run as its owner"),
        (0o660, Some(GROUP), 0, STRANGER, "permission denied; run as its owner"),
        (0o666, None, OWNER, STRANGER, "it belongs to user 4001"),
        (0o640, Some(GROUP), OWNER, GROUP, "it belongs to user 4001"),
    ] {
        let stage = segment_for(mode, gid);
        chown(stage.path(), Some(owner), None).unwrap();
        let (mut actor, answer) = programs.attach(stage.name(), STRANGER, group);
        assert!(answer.starts_with("no ") && answer.contains(expected), "{mode:o}: {answer}");
        assert!(answer.contains(stage.path().as_str()), "{answer}");
        assert!(stage.lanes_in_use().is_empty());
        assert!(actor.end().success());
    }
}

#[test]
fn a_worker_of_an_allowed_group_is_watched_like_any_other() {
    if !is_root("a worker of another group") {
        return;
    }
    let programs = Programs::new();
    let stage = segment_for(0o660, Some(GROUP));
    let mut watchdog = stage.watchdog(&[]);
    let (mut actor, answer) = programs.attach(stage.name(), STRANGER, GROUP);
    assert!(answer.starts_with("ok "), "{answer}");
    actor.tell("expires step 50");
    assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reaped");
    assert_eq!(actor.wait().signal(), Some(9));
}

/// It shows no image from then on, which is not that of another program.
#[test]
fn a_worker_that_hides_from_a_watchdog_of_its_own_user_is_watched_on() {
    if !is_root("a watchdog of another user") {
        return;
    }
    let programs = Programs::new();
    let stage = segment_for(0o600, None);
    chown(stage.path(), Some(STRANGER), Some(GROUP)).unwrap();
    let mut command = programs.run_as("stage-watchdog", STRANGER, GROUP);
    command.args(Watchdog::arguments(stage.name(), &[]));
    let mut watchdog = Watchdog::spawn(command);
    let (mut actor, answer) = programs.attach(stage.name(), STRANGER, GROUP);
    assert!(answer.starts_with("ok "), "{answer}");
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
    actor.tell("hide");
    actor.tell("expires hung 300");
    assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reaped");
    assert_eq!(actor.wait().signal(), Some(9));
}

/// A watchdog that is root may signal anybody; it asks whether who attached might, whatever else it
/// is told to ask about.
#[test]
fn a_worker_that_becomes_root_is_reported_and_not_signalled_by_a_watchdog_that_is_root() {
    if !is_root("a worker that becomes root") {
        return;
    }
    for options in [&[][..], &["--traced", "reap", "--frozen", "reap"]] {
        let stage = segment_for(0o666, None);
        let mut watchdog = stage.watchdog(options);
        let (mut actor, mut dropped) = (Actor::start(stage.name(), &[]), stage.actor());
        actor.tell(&format!("user {STRANGER}"));
        actor.tell("attach");
        watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
        actor.tell("expires step 400");
        actor.tell("user 0");
        let held =
            watchdog.event(|event| matches!(event["event"].as_str(), Some("held" | "signalled")));
        assert_eq!((&held["pid"], &held["hold"]), (&actor.pid().into(), &"other_user".into()));
        // Who gives up being root is watched on.
        dropped.tell(&format!("user {STRANGER}"));
        dropped.tell("expires step 50");
        assert_eq!(watchdog.expiry_of(dropped.pid())["outcome"], "reaped");
        assert_eq!(dropped.wait().signal(), Some(9));
        assert!(actor.is_alive());
        assert_eq!(actor.tell("release step"), "InTime");
        assert!(actor.end().success());
    }
}

/// The program that a user's worker execs may be root's, and attach by itself: it is the same process.
#[test]
fn a_process_is_what_it_was_first_admitted_as_whatever_it_execs() {
    if !is_root("a worker that becomes root") {
        return;
    }
    let stage = segment_for(0o666, None);
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = Actor::start(stage.name(), &[]);
    actor.tell(&format!("user {STRANGER}"));
    actor.tell("attach");
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
    actor.tell("keep");
    actor.tell("user 0");
    actor.tell("again");
    actor.tell("attach");
    actor.tell("expires step 400");
    let said =
        watchdog.event(|event| matches!(event["event"].as_str(), Some("held" | "signalled")));
    assert_eq!((&said["pid"], &said["hold"]), (&actor.pid().into(), &"other_user".into()));
    assert_eq!(actor.tell("release step"), "InTime");
    assert!(actor.end().success());
}

#[test]
fn a_watchdog_of_another_user_is_refused() {
    if !is_root("a watchdog of another user") {
        return;
    }
    let programs = Programs::new();
    let stage = segment_for(0o600, None);
    let mut command = programs.run_as("stage-watchdog", STRANGER, STRANGER);
    command.args(Watchdog::arguments(stage.name(), &[]));
    let (status, words) = Watchdog::spawn(command).last_words();
    assert_eq!(status.code(), Some(125), "{words}");
    assert!(words.contains("permission denied"), "{words}");
    // The segment is as it was: its owner's watchdog serves it.
    let mut watchdog = stage.watchdog(&[]);
    assert!(watchdog.end().success());
}

/// Something under a segment's name that is none, with what it must still be at the end.
struct Foreign {
    name: String,
    path: PathBuf,
    target: tempfile::NamedTempFile,
}

const CONTENT: &[u8] = b"somebody's own";

impl Foreign {
    fn new(kind: &str) -> Foreign {
        let name = format!("test-foreign-{kind}-{}", std::process::id());
        let path = Path::new("/dev/shm").join(format!("hangwatch.{name}"));
        let target = tempfile::NamedTempFile::new().unwrap();
        fs::write(&target, CONTENT).unwrap();
        match kind {
            "symlink" => symlink(target.path(), &path).unwrap(),
            "dangling" => symlink(target.path().with_extension("none"), &path).unwrap(),
            "text" => fs::write(&path, CONTENT).unwrap(),
            "pages" => fs::write(&path, vec![7; 1 << 16]).unwrap(),
            "directory" => fs::create_dir(&path).unwrap(),
            "fifo" => mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap(),
            other => panic!("{other}"),
        }
        Foreign { name, path, target }
    }

    fn check_unchanged(&self, kind: &str) {
        assert_eq!(fs::read(&self.target).unwrap(), CONTENT, "{kind}");
        assert!(!self.target.path().with_extension("none").exists(), "{kind}");
        let found = fs::symlink_metadata(&self.path).unwrap().file_type();
        let is_same = match kind {
            "symlink" | "dangling" => found.is_symlink(),
            "text" => fs::read(&self.path).unwrap() == CONTENT,
            "pages" => fs::read(&self.path).unwrap() == vec![7; 1 << 16],
            "directory" => found.is_dir(),
            _ => found.is_fifo(),
        };
        assert!(is_same, "{kind}");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir(&self.path));
    }
}

#[test]
fn what_is_no_segment_under_its_name_is_refused_and_left_as_it_was() {
    for (kind, expected) in [
        ("symlink", "it is a symbolic link"),
        ("dangling", "it is a symbolic link"),
        ("text", "14 bytes is no segment's length"),
        ("pages", "it is not a hangwatch segment"),
        ("directory", "it is not a regular file"),
        ("fifo", "it is not a regular file"),
    ] {
        let foreign = Foreign::new(kind);
        let mut actor = Actor::start(&foreign.name, &[]);
        actor.order("attach");
        let answer = actor.answer().expect("it is alive");
        assert!(answer.starts_with("no ") && answer.contains(expected), "{kind}: {answer}");
        assert!(actor.end().success());
        let (status, words) = Watchdog::start_only(&foreign.name, &[], &[]).last_words();
        assert_eq!(status.code(), Some(125), "{kind}: {words}");
        assert!(words.contains(expected), "{kind}: {words}");
        let created = Segment::create(&foreign.name, CreateOptions::default());
        let refusal = created.map(|_| ()).unwrap_err().to_string();
        assert!(refusal.contains(&foreign.name), "{kind}: {refusal}");
        foreign.check_unchanged(kind);
    }
}
