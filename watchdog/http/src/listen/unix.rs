//! Binding a Unix socket where nobody else can change what its path leads to.
//!
//! The directory is opened as the directory of incidents is ([`place`]): every directory and link on the
//! way belongs to root or to this user, and nobody else may write to it. All that follows (the lock, the
//! look at what is there, the new socket, its removal) is done beneath that open directory.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::address::{Address, ListenError};
use hangwatch_files::place::{self, Absent, PlaceError};

/// The longest name of a socket in its directory, bytes: the kernel is given it after `/proc/self/fd/N/`.
pub(super) const LONGEST_NAME: usize = 80;
/// How many connections wait to be accepted at most.
const BACKLOG: i32 = 128;
/// How long another watchdog that binds at the same path is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Binds at `path` and listens. `group` may connect, where one is given. A socket that is there already
/// and that nobody listens at is replaced.
pub(super) fn bind(
    address: &Address,
    path: &Path,
    group: Option<u32>,
) -> Result<(UnixListener, SocketFile), ListenError> {
    let refused =
        |errno: Errno| ListenError::Refused { address: address.clone(), source: errno.into() };
    let at = Place::open(path).map_err(|source| match source {
        PlaceError::Failed { source, .. } => {
            ListenError::Refused { address: address.clone(), source }
        }
        source => ListenError::Place { address: address.clone(), source },
    })?;
    // Between two that find the same socket abandoned, and between `bind` and `listen` of one.
    let _lock = LockFile::take(&at, path, address)?;
    match at.look() {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(refused(errno)),
        Ok((FileType::Socket, _)) => match at.connect() {
            Err(Errno::CONNREFUSED) => at.remove().map_err(refused)?,
            Err(Errno::NOENT) => {}
            // Somebody answers, or has more to do than the backlog takes.
            Ok(()) | Err(Errno::AGAIN) => {
                return Err(ListenError::InUse { address: address.clone() });
            }
            Err(errno) => return Err(refused(errno)),
        },
        Ok(_) => return Err(ListenError::NotASocket { address: address.clone() }),
    }
    bind_new(at, group).map_err(refused)
}

/// A name in an open directory.
#[derive(Clone, Debug)]
struct Place {
    directory: Arc<OwnedFd>,
    name: OsString,
}

/// Which file it is.
type FileId = (u64, u64);

impl Place {
    fn open(path: &Path) -> Result<Place, PlaceError> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let directory = place::open(path.parent().unwrap_or(path), Absent::Refuse)?;
        Ok(Place { directory: Arc::new(directory), name })
    }

    fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Another name in the same directory.
    fn beside(&self, suffix: &str) -> Place {
        let mut name = self.name.clone();
        name.push(suffix);
        Place { directory: Arc::clone(&self.directory), name }
    }

    /// What is there: a link is not followed.
    fn look(&self) -> Result<(FileType, FileId), Errno> {
        let stat = rustix::fs::statat(self.directory(), &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((FileType::from_raw_mode(stat.st_mode), (stat.st_dev, stat.st_ino)))
    }

    fn remove(&self) -> Result<(), Errno> {
        rustix::fs::unlinkat(self.directory(), &self.name, AtFlags::empty())
    }

    /// The address for `bind` and `connect`, which take no open directory.
    fn socket_address(&self) -> Result<SocketAddrUnix, Errno> {
        let link = format!("/proc/thread-self/fd/{}", self.directory.as_raw_fd());
        SocketAddrUnix::new(Path::new(&link).join(&self.name))
    }

    /// Whether anybody listens; does not wait to be accepted.
    fn connect(&self) -> Result<(), Errno> {
        rustix::net::connect(&unix_socket()?, &self.socket_address()?)
    }
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// The lock that a socket is bound under: a file beside it that only this user may open. (A directory
/// may be opened, and so locked, by whoever may read it.) The file is removed again.
struct LockFile {
    at: Place,
    _file: fs::File,
}

impl LockFile {
    /// Takes the lock of the socket at `socket`, waiting a while for another watchdog that binds there.
    fn take(socket: &Place, path: &Path, address: &Address) -> Result<LockFile, ListenError> {
        let at = socket.beside(".lock");
        let lock = path.with_file_name(&at.name);
        let refused =
            |errno: Errno| ListenError::Refused { address: address.clone(), source: errno.into() };
        let foreign = || ListenError::ForeignLock { address: address.clone(), lock: lock.clone() };
        let from = Instant::now();
        loop {
            let flags = OFlags::CREATE
                | OFlags::RDWR
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = match rustix::fs::openat(at.directory(), &at.name, flags, mode) {
                Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(foreign()),
                Err(Errno::ACCESS | Errno::PERM) if at.look().is_ok() => return Err(foreign()),
                file => fs::File::from(file.map_err(refused)?),
            };
            let opened = file.metadata().map_err(|error| ListenError::Refused {
                address: address.clone(),
                source: error,
            })?;
            let is_ours = opened.uid() == rustix::process::geteuid().as_raw();
            if !opened.is_file() || !is_ours || opened.mode() & 0o077 != 0 {
                return Err(foreign());
            }
            let is_at = || at.look().is_ok_and(|(_, id)| id == (opened.dev(), opened.ino()));
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had it before has removed it: a lock on a file without a name keeps nobody off.
                Ok(()) if !is_at() => {}
                Ok(()) => return Ok(LockFile { at, _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if from.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(ListenError::Locked { address: address.clone(), lock });
                }
                Err(errno) => return Err(refused(errno)),
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While it is locked: whoever waits for it sees that it has gone, and makes another.
        let _ = self.at.remove();
    }
}

fn bind_new(at: Place, group: Option<u32>) -> Result<(UnixListener, SocketFile), Errno> {
    let socket = unix_socket()?;
    // The file is made with the socket's own mode: at no time may others connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &at.socket_address()?)?;
    let file = SocketFile::new(at);
    if let Some(group) = group {
        open_to_group(&file.at, group)?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

/// Lets the members of a group connect to the socket that was just made: to nothing else that has its
/// name by now.
fn open_to_group(at: &Place, group: u32) -> Result<(), Errno> {
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(at.directory(), &at.name, handle, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    if !is_socket || found.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::NOTSOCK);
    }
    let group = Some(rustix::fs::Gid::from_raw(group));
    rustix::fs::chownat(&file, "", None, group, AtFlags::EMPTY_PATH)?;
    let opened = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    rustix::fs::chmod(opened, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)
}

/// The file of a Unix socket: removed at the end, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    at: Place,
    id: Option<FileId>,
}

impl SocketFile {
    fn new(at: Place) -> SocketFile {
        let id = at.look().ok().map(|(_, id)| id);
        SocketFile { at, id }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && self.id == self.at.look().ok().map(|(_, id)| id) {
            // What cannot be removed is taken over by the next who binds there.
            let _ = self.at.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::super::address::{Socket, bind};
    use super::*;

    fn at(path: &Path) -> Address {
        Address::Unix(path.to_owned())
    }

    #[test]
    fn a_unix_socket_is_its_owners_alone_and_gone_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let mode = || fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777;
        let socket = bind(&at(&path), None).unwrap();
        assert_eq!(mode(), 0o600);
        drop(socket);
        assert!(!path.exists());
        let group = rustix::process::getgid().as_raw();
        let socket = bind(&at(&path), Some(group)).unwrap();
        assert_eq!(mode(), 0o660);
        // Another's by now: left alone.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn what_is_put_in_the_place_of_a_new_socket_keeps_its_group_and_mode() {
        let directory = tempfile::tempdir().unwrap();
        let (path, secret) = (directory.path().join("s"), directory.path().join("secret"));
        fs::write(&secret, "").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let group = rustix::process::getgid().as_raw();
        for put in [std::os::unix::fs::symlink::<&Path, &Path>, fs::hard_link::<&Path, &Path>] {
            put(&secret, &path).unwrap();
            assert_eq!(open_to_group(&Place::open(&path).unwrap(), group), Err(Errno::NOTSOCK));
            assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn an_abandoned_socket_is_taken_over_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let Socket::Unix(listener, file) = bind(&at(&path), None).unwrap() else { panic!() };
        let error = bind(&at(&path), None).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        // As a watchdog that was killed leaves it.
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists());
        drop(bind(&at(&path), None).unwrap());
        fs::write(&path, "precious").unwrap();
        let error = bind(&at(&path), None).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let error = bind(&at(&directory.path().join("absent/s")), None).unwrap_err();
        assert!(error.to_string().contains("make the directory first"), "{error}");
    }

    /// The fault: the directory was locked, which whoever may read it can do, too.
    #[test]
    fn a_lock_on_the_directory_keeps_nobody_from_listening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let outsider = fs::File::open(directory.path()).unwrap();
        rustix::fs::flock(&outsider, FlockOperation::LockExclusive).unwrap();
        drop(bind(&at(&path), None).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "the lock file is gone");
    }

    #[test]
    fn a_lock_file_that_others_may_open_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock) = (directory.path().join("s"), directory.path().join("s.lock"));
        let refused = || bind(&at(&path), None).unwrap_err();
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(refused(), ListenError::ForeignLock { .. }), "{}", refused());
        fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &lock).unwrap();
        assert!(matches!(refused(), ListenError::ForeignLock { .. }), "{}", refused());
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        assert!(matches!(refused(), ListenError::ForeignLock { .. }), "{}", refused());
        fs::remove_dir(&lock).unwrap();
        // One that was left by a watchdog that was killed is as good as none.
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, fs::Permissions::from_mode(0o600)).unwrap();
        drop(bind(&at(&path), None).unwrap());
        // Locked by another watchdog of this user.
        let held = LockFile::take(&Place::open(&path).unwrap(), &path, &at(&path)).unwrap();
        assert!(matches!(refused(), ListenError::Locked { .. }), "{}", refused());
        drop(held);
        drop(bind(&at(&path), None).unwrap());
    }

    fn refused(path: &Path) -> String {
        bind(&at(path), None).unwrap_err().to_string()
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_path_that_another_user_could_change_is_refused() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can give a directory away");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own");
        fs::create_dir(&own).unwrap();
        let theirs = directory.path().join("theirs");
        fs::create_dir_all(theirs.join("mine")).unwrap();
        chown(&theirs, Some(65_534), None).unwrap();
        symlink(&own, directory.path().join("link")).unwrap();
        lchown(directory.path().join("link"), Some(65_534), None).unwrap();
        for below in ["theirs/s", "theirs/mine/s", "link/s", "link/../own/s"] {
            let why = refused(&directory.path().join(below));
            assert!(why.contains("belongs to uid 65534") && why.contains("chown"), "{why}");
        }
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1, "nothing was made in it");
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused_unless_it_is_sticky() {
        let directory = tempfile::tempdir().unwrap();
        let open = directory.path().join("open");
        fs::create_dir_all(open.join("below")).unwrap();
        for mode in [0o777, 0o757] {
            set_mode(&open, mode);
            for path in [open.join("s"), open.join("below/s")] {
                let why = refused(&path);
                assert!(why.contains("chmod") && why.contains(&format!("0{mode:o}")), "{why}");
            }
        }
        set_mode(&open, 0o1777);
        drop(bind(&at(&open.join("s")), None).unwrap());
        // A link of this user's is as good as a directory.
        symlink("open/below", directory.path().join("link")).unwrap();
        drop(bind(&at(&directory.path().join("link/s")), None).unwrap());
    }

    #[test]
    fn a_directory_that_is_moved_away_takes_its_socket_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let (before, after) = (directory.path().join("before"), directory.path().join("after"));
        fs::create_dir(&before).unwrap();
        let socket = bind(&at(&before.join("s")), None).unwrap();
        fs::rename(&before, &after).unwrap();
        fs::create_dir(&before).unwrap();
        fs::write(before.join("s"), "another's").unwrap();
        drop(socket);
        assert!(before.join("s").exists(), "it is not the socket");
        assert!(!after.join("s").exists());
    }
}
