use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Resource, Rlimit, geteuid};

use super::super::lock::{Holder, holder, try_lock};
use super::*;
use hangwatch_test_children::{fork, mount_small_tmpfs};

fn tmpfs() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("hangwatch-test-").tempdir_in(SEGMENT_DIR).unwrap()
}

fn make(dir: &Path, name: &str) -> Result<SegmentFile, CreateError> {
    create_in(dir, name, page_size(), 0o600, None, |_, _| Ok(()))
}

#[test]
fn a_made_segment_is_whole_preallocated_and_opens_as_itself() {
    let dir = tmpfs();
    let len = 3 * page_size();
    let made = create_in(dir.path(), "a", len, 0o640, None, |_, words| {
        words[0].store(11, Relaxed);
        Ok(())
    })
    .unwrap();
    let metadata = std::fs::metadata(dir.path().join("hangwatch.a")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
    assert_eq!((metadata.len(), metadata.blocks() * 512), (len, len));
    let opened = open_in(dir.path(), "a").unwrap();
    assert_eq!((opened.id(), opened.len()), (made.id(), len));
    assert_eq!((opened.id().dev, opened.id().ino), (metadata.dev(), metadata.ino()));
    made.map().unwrap().words()[1].store(12, Relaxed);
    let seen = opened.map().unwrap();
    assert_eq!((seen.words()[0].load(Relaxed), seen.words()[1].load(Relaxed)), (11, 12));
}

#[test]
fn the_name_appears_only_after_init() {
    let dir = tmpfs();
    create_in(dir.path(), "a", page_size(), 0o600, None, |_, _| {
        assert_eq!(list_in(dir.path()).unwrap(), Vec::<String>::new());
        Ok(())
    })
    .unwrap();
    assert_eq!(list_in(dir.path()).unwrap(), ["a"]);
}

#[test]
fn a_taken_name_is_refused_and_left_as_it_was() {
    let dir = tmpfs();
    let first = make(dir.path(), "a").unwrap();
    let error = make(dir.path(), "a").unwrap_err();
    assert!(matches!(error, CreateError::AlreadyExists { .. }), "{error}");
    assert_eq!(look_in(dir.path(), "a").unwrap().id(), first.id());
    symlink("/etc/passwd", dir.path().join("hangwatch.link")).unwrap();
    let error = make(dir.path(), "link").unwrap_err();
    assert!(matches!(error, CreateError::AlreadyExists { .. }), "{error}");
}

#[test]
fn bad_names_lengths_groups_and_directories_are_refused() {
    let dir = tmpfs();
    assert!(matches!(make(dir.path(), "a/b"), Err(CreateError::Name(_))));
    for len in [0, 1, page_size() + 1, MAX_SEGMENT_BYTES + page_size()] {
        let error = create_in(dir.path(), "a", len, 0o600, None, |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, CreateError::Length { .. }), "{error}");
    }
    let error = make(&dir.path().join("none"), "a").unwrap_err();
    assert!(matches!(error, CreateError::Io { .. }), "{error}");
    let denied = as_user(dir.path(), || {
        let made = create_in(dir.path(), "a", page_size(), 0o660, Some(0), |_, _| Ok(()));
        matches!(made, Err(CreateError::Group { gid: 0, .. }))
    });
    assert!(denied);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_full_file_system_is_reported_with_what_is_needed_and_free() {
    let dir = tempfile::tempdir().unwrap();
    let page = page_size();
    let child = fork(|| {
        if let Err(reason) = mount_small_tmpfs(dir.path(), 16 * page) {
            eprintln!("skipped: cannot mount a small tmpfs here: {reason}");
            return 77;
        }
        let made = create_in(dir.path(), "a", 64 * page, 0o600, None, |_, _| Ok(()));
        let Err(CreateError::NoSpace { needed, free, .. }) = made else { return 1 };
        if needed != 64 * page || free > 16 * page || free == 0 {
            return 2;
        }
        // What failed took nothing with it: a smaller one still fits.
        let small = create_in(dir.path(), "a", 8 * page, 0o600, None, |_, _| Ok(()));
        if small.is_ok() { 0 } else { 3 }
    });
    let status = child.exit_status();
    assert!(status == 0 || status == 77, "child found fault {status}");
}

#[test]
fn whatever_is_not_a_segment_is_refused_by_kind() {
    let dir = tmpfs();
    let at = |name: &str| dir.path().join(format!("hangwatch.{name}"));
    make(dir.path(), "good").unwrap();
    symlink(at("good"), at("link")).unwrap();
    std::fs::create_dir(at("dir")).unwrap();
    rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    std::fs::write(at("empty"), b"").unwrap();
    std::fs::write(at("odd"), vec![0; page_size() as usize + 1]).unwrap();
    std::fs::File::create(at("sparse")).unwrap().set_len(page_size()).unwrap();
    std::fs::File::create(at("huge")).unwrap().set_len(MAX_SEGMENT_BYTES + page_size()).unwrap();
    let error = |name| open_in(dir.path(), name).unwrap_err();
    assert!(matches!(error("a b"), OpenError::Name(_)));
    assert!(matches!(error("none"), OpenError::NotFound { .. }));
    assert!(matches!(error("link"), OpenError::Symlink { .. }));
    assert!(matches!(error("dir"), OpenError::NotRegular { .. }));
    assert!(matches!(error("pipe"), OpenError::NotRegular { .. }));
    assert!(matches!(error("empty"), OpenError::BadSize { len: 0, .. }));
    assert!(matches!(error("odd"), OpenError::BadSize { .. }));
    assert!(matches!(error("huge"), OpenError::BadSize { .. }));
    assert!(matches!(error("sparse"), OpenError::Sparse { allocated: 0, .. }));
    assert!(open_in(dir.path(), "good").is_ok());
}

#[test]
fn another_users_segment_is_refused_unless_a_group_of_ours_is_allowed() {
    if !geteuid().is_root() {
        println!("skipped: needs root to give files to other users");
        return;
    }
    let dir = tmpfs();
    let give = |name: &str, uid, gid, mode| {
        let file =
            create_in(dir.path(), name, page_size(), mode, Some(gid), |_, _| Ok(())).unwrap();
        rustix::fs::fchown(&file, Some(rustix::process::Uid::from_raw(uid)), None).unwrap();
    };
    give("foreign", 4001, 4001, 0o666);
    give("shared", 4001, OTHER_ID, 0o660);
    give("readable", 4001, OTHER_ID, 0o640);
    give("roots", 0, 0, 0o600);
    let error = open_in(dir.path(), "foreign").unwrap_err();
    assert!(matches!(error, OpenError::ForeignOwner { uid: 4001, .. }), "{error}");
    let all_as_expected = as_user(dir.path(), || {
        let open = |name| open_in(dir.path(), name);
        matches!(open("foreign"), Err(OpenError::ForeignOwner { uid: 4001, .. }))
            && matches!(open("readable"), Err(OpenError::ForeignOwner { uid: 4001, .. }))
            && matches!(open("roots"), Err(OpenError::PermissionDenied { .. }))
            && open("shared").is_ok()
            && matches!(remove_in(Path::new("/dev/shm"), "none"), Err(RemoveError::NotFound { .. }))
    });
    assert!(all_as_expected);
}

#[test]
fn a_limit_on_files_refuses_a_segment_and_kills_nobody() {
    let dir = tmpfs();
    let child = fork(|| {
        let low = Rlimit { current: Some(1), maximum: Some(1) };
        rustix::process::setrlimit(Resource::Fsize, low).unwrap();
        let error = make(dir.path(), "a").unwrap_err();
        i32::from(!matches!(error, CreateError::FileLimit { allowed: 1, .. }))
    });
    assert_eq!(child.exit_status(), 0);
    assert_eq!(list_in(dir.path()).unwrap(), Vec::<String>::new());
}

#[test]
fn what_was_looked_at_is_what_is_opened() {
    let dir = tmpfs();
    let first = make(dir.path(), "a").unwrap();
    let found = look_in(dir.path(), "a").unwrap();
    remove_in(dir.path(), "a").unwrap();
    let second = make(dir.path(), "a").unwrap();
    assert_ne!(first.id(), second.id());
    assert_eq!(found.id(), first.id());
    assert_eq!(found.open().unwrap().id(), first.id());
}

#[test]
fn looking_keeps_the_locks_that_closing_would_give_up() {
    let dir = tmpfs();
    let file = make(dir.path(), "a").unwrap();
    assert!(try_lock(&file, 9).unwrap());
    drop(look_in(dir.path(), "a").unwrap());
    let seen_by_child =
        || fork(|| i32::from(matches!(holder(&file, 9), Ok(Holder::Process(_))))).exit_status();
    assert_eq!(seen_by_child(), 1, "the lock is held after a look");
    drop(open_in(dir.path(), "a").unwrap());
    assert_eq!(seen_by_child(), 0, "the lock has fallen with the descriptor");
}

#[test]
fn removing_takes_the_name_and_says_when_there_is_none() {
    let dir = tmpfs();
    make(dir.path(), "b").unwrap();
    make(dir.path(), "a").unwrap();
    std::fs::write(dir.path().join("sem.other"), b"").unwrap();
    assert_eq!(list_in(dir.path()).unwrap(), ["a", "b"]);
    remove_in(dir.path(), "a").unwrap();
    assert_eq!(list_in(dir.path()).unwrap(), ["b"]);
    assert!(matches!(remove_in(dir.path(), "a"), Err(RemoveError::NotFound { .. })));
    assert!(matches!(remove_in(dir.path(), ""), Err(RemoveError::Name(_))));
    assert!(list_in(&dir.path().join("none")).is_err());
}

/// A user and group that no system account has.
const OTHER_ID: u32 = 4002;

/// Whether `check` holds in a child that is user and group [`OTHER_ID`]. True
/// without a check where we may not become another.
fn as_user(dir: &Path, check: impl FnOnce() -> bool) -> bool {
    if !geteuid().is_root() {
        println!("skipped: needs root to become another user");
        return true;
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let child = fork(|| {
        hangwatch_test_children::become_user(OTHER_ID);
        i32::from(!check())
    });
    child.exit_status() == 0
}
