//! Writes an error file, but nowhere that the worker could not write itself.
//!
//! The path is the worker's claim. It is resolved in the worker's own root directory, which a container may
//! have changed, and only if worker and watchdog run as the same user and the directory belongs to that
//! user. So the watchdog writes nothing that this user could not write without it. The complete file is
//! linked to its name and never replaces another: a file that the worker wrote stays, a symbolic link is not
//! followed, and no reader sees half a file.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::{fs, io};

use hangwatch_process::attest::Process;
use hangwatch_process::proc::{self, Users};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Why no error file was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error(
        "the worker runs as another user ({uid}): only workers of the watchdog's user get an error file"
    )]
    OtherUser { uid: u32 },
    #[error("the path names no file: use an absolute path")]
    NotAFile,
    #[error("the worker has ended")]
    Gone,
    #[error("cannot read the worker's user or root directory")]
    Worker(#[source] io::Error),
    #[error("the directory cannot be opened: {0}")]
    Directory(#[source] io::Error),
    #[error("the directory belongs to another user ({uid})")]
    OtherUsersDirectory { uid: u32 },
    #[error("the worker wrote a file itself, which is left as it is")]
    Exists,
    #[error("cannot write it: {0}")]
    Write(#[source] io::Error),
}

/// Writes `text` as the worker's error file.
pub(super) fn write(worker: &Process, path: &Path, text: &str) -> Result<(), PlaceError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PlaceError::NotAFile);
    };
    if !path.is_absolute() {
        return Err(PlaceError::NotAFile);
    }
    let user = geteuid().as_raw();
    let seen = proc::standing(worker.pid).map_err(PlaceError::Worker)?;
    let Users { real, effective, saved } = seen.ok_or(PlaceError::Gone)?.users;
    if let Some(uid) = [real, effective, saved].into_iter().find(|uid| *uid != user) {
        return Err(PlaceError::OtherUser { uid });
    }
    let directory = opened(worker, parent)?;
    let uid = rustix::fs::fstat(&directory).map_err(as_directory)?.st_uid;
    if uid != user {
        return Err(PlaceError::OtherUsersDirectory { uid });
    }
    put(directory.as_fd(), name, text)
}

/// Opens a directory as the worker would resolve it.
fn opened(worker: &Process, directory: &Path) -> Result<OwnedFd, PlaceError> {
    let root = format!("/proc/{}/root", worker.pid.as_raw_pid());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).map_err(io::Error::from);
    // Checked afterwards: if it lives, the root that was opened is this process's.
    if worker.pidfd.is_dead() {
        return Err(PlaceError::Gone);
    }
    let root = root.map_err(PlaceError::Worker)?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, directory, flags, Mode::empty(), within).map_err(as_directory)
}

fn as_directory(error: Errno) -> PlaceError {
    PlaceError::Directory(error.into())
}

fn put(directory: std::os::fd::BorrowedFd<'_>, name: &OsStr, text: &str) -> Result<(), PlaceError> {
    let refused = |error: Errno| PlaceError::Write(error.into());
    let mut draft = name.to_owned();
    draft.push(format!(".hangwatch-{}", std::process::id()));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(directory, &draft, flags, mode).map_err(refused)?;
    let written = fs::File::from(file).write_all(text.as_bytes()).map_err(PlaceError::Write);
    let linked = written.and_then(|()| {
        match rustix::fs::linkat(directory, &draft, directory, name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(PlaceError::Exists),
            Err(error) => Err(refused(error)),
        }
    });
    // A draft that is left behind does no harm.
    let _ = rustix::fs::unlinkat(directory, &draft, AtFlags::empty());
    linked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;

    use rustix::process::getpid;

    use super::*;

    fn own() -> Process {
        Process::open(getpid()).unwrap().expect("this process is alive")
    }

    #[test]
    fn error_file_is_readable_by_its_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.json");
        write(&own(), &path, "{}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no draft stays behind");
    }

    #[test]
    fn existing_file_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.json");
        fs::write(&path, "the worker's own").unwrap();
        let written = write(&own(), &path, "{}");
        assert!(matches!(written, Err(PlaceError::Exists)), "{written:?}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "the worker's own");
        let victim = dir.path().join("victim");
        let link = dir.path().join("link");
        for target in [&victim, &path] {
            let _ = fs::remove_file(&link);
            symlink(target, &link).unwrap();
            assert!(matches!(write(&own(), &link, "{}"), Err(PlaceError::Exists)));
        }
        assert!(!victim.exists(), "a symbolic link was followed");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "no draft stays behind");
    }

    #[test]
    fn path_that_cannot_hold_a_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for odd in ["error.json", "", "/", "/tmp/.."] {
            assert!(
                matches!(write(&own(), Path::new(odd), "{}"), Err(PlaceError::NotAFile)),
                "{odd}"
            );
        }
        for missing in [dir.path().join("none/error.json"), PathBuf::from("/dev/null/error.json")] {
            assert!(matches!(write(&own(), &missing, "{}"), Err(PlaceError::Directory(_))));
        }
        // A magic link leads out of the worker's root directory.
        let magic = format!("/proc/self/cwd/{}", "error.json");
        assert!(matches!(write(&own(), Path::new(&magic), "{}"), Err(PlaceError::Directory(_))));
    }

    #[test]
    fn directory_of_another_user_is_not_written_to() {
        if !geteuid().is_root() {
            println!("skipped: only root can give a directory away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        chown(dir.path(), Some(65_534), None).unwrap();
        let written = write(&own(), &dir.path().join("error.json"), "{}");
        assert!(
            matches!(written, Err(PlaceError::OtherUsersDirectory { uid: 65_534 })),
            "{written:?}"
        );
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn worker_of_another_user_gets_no_file() {
        if !geteuid().is_root() {
            println!("skipped: only root can become another user");
            return;
        }
        let mut child =
            std::process::Command::new("/bin/sleep").arg("60").uid(65_534).spawn().unwrap();
        let process = Process::open(rustix::process::Pid::from_child(&child)).unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let written = write(&process, &dir.path().join("error.json"), "{}");
        assert!(matches!(written, Err(PlaceError::OtherUser { uid: 65_534 })), "{written:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        let written = write(&process, &dir.path().join("error.json"), "{}");
        assert!(matches!(written, Err(PlaceError::Gone)), "{written:?}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
}
