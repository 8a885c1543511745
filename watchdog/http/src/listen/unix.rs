//! Binds a Unix socket where no other user can change what its path leads to.
//!
//! The directory is opened like that of incidents ([`place`]): every directory and link on the path belongs to
//! root or to this user, and no other user can write to it. The lock, the check for an existing file, the new
//! socket and its removal all happen below that open directory.

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

/// The longest name of a socket, bytes. The kernel is given it after `/proc/thread-self/fd/N/`.
pub(super) const LONGEST_NAME: usize = 80;
/// The maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long to wait for another watchdog that binds at the same path.
const PATIENCE: Duration = Duration::from_secs(1);

/// Binds at `path` and listens. If there is a `group`, its members may connect. An existing socket that no
/// process listens at is replaced.
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
    // Excludes a second process that finds the same abandoned socket, or that comes between `bind` and `listen`.
    let _lock = LockFile::take(&at, path, address)?;
    match at.look() {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(refused(errno)),
        Ok((FileType::Socket, _)) => match at.connect() {
            Err(Errno::CONNREFUSED) => at.remove().map_err(refused)?,
            Err(Errno::NOENT) => {}
            // A process listens. EAGAIN means that its backlog is full.
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

/// Device and inode of a file.
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

    /// Returns another name in the same directory.
    fn beside(&self, suffix: &str) -> Place {
        let mut name = self.name.clone();
        name.push(suffix);
        Place { directory: Arc::clone(&self.directory), name }
    }

    /// Returns the type of the file, without following a link.
    fn look(&self) -> Result<(FileType, FileId), Errno> {
        let stat = rustix::fs::statat(self.directory(), &self.name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((FileType::from_raw_mode(stat.st_mode), (stat.st_dev, stat.st_ino)))
    }

    fn remove(&self) -> Result<(), Errno> {
        rustix::fs::unlinkat(self.directory(), &self.name, AtFlags::empty())
    }

    /// Returns the address for `bind` and `connect`, which take no directory descriptor.
    fn socket_address(&self) -> Result<SocketAddrUnix, Errno> {
        let link = format!("/proc/thread-self/fd/{}", self.directory.as_raw_fd());
        SocketAddrUnix::new(Path::new(&link).join(&self.name))
    }

    /// Succeeds if a process listens. Does not wait to be accepted.
    fn connect(&self) -> Result<(), Errno> {
        rustix::net::connect(&unix_socket()?, &self.socket_address()?)
    }
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// The lock under which a socket is bound: a file beside it that only this user may open, removed afterwards.
///
/// (A directory can be opened, and therefore locked, by any user who can read it.)
struct LockFile {
    at: Place,
    _file: fs::File,
}

impl LockFile {
    /// Takes the lock, waiting a while for another watchdog that binds there.
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
                // Its last owner has removed the file, so a lock on it excludes no other process.
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
        // Still locked: a process that waits for it sees that the file is gone, and creates another.
        let _ = self.at.remove();
    }
}

fn bind_new(at: Place, group: Option<u32>) -> Result<(UnixListener, SocketFile), Errno> {
    let socket = unix_socket()?;
    // The file is created with the socket's mode: at no time can other users connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &at.socket_address()?)?;
    let file = SocketFile::new(at);
    if let Some(group) = group {
        open_to_group(&file.at, group)?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from(socket), file))
}

/// Lets the members of a group connect to the new socket, and to nothing that has replaced it meanwhile.
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

/// The file of a Unix socket. Removed when dropped, unless it was replaced.
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
            // A file that cannot be removed is replaced by the next process that binds there.
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
    fn unix_socket_is_private_and_removed_at_the_end() {
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
        // Replaced by another file: left alone.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn file_in_place_of_a_new_socket_keeps_its_group_and_mode() {
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
    fn abandoned_socket_is_replaced_but_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let Socket::Unix(listener, file) = bind(&at(&path), None).unwrap() else { panic!() };
        let error = bind(&at(&path), None).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        // A killed watchdog leaves it like this.
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

    /// The directory was locked once, which any user who can read it can do.
    #[test]
    fn lock_on_the_directory_does_not_prevent_listening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let outsider = fs::File::open(directory.path()).unwrap();
        rustix::fs::flock(&outsider, FlockOperation::LockExclusive).unwrap();
        drop(bind(&at(&path), None).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "the lock file is removed");
    }

    #[test]
    fn lock_file_that_others_may_open_is_refused() {
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
        // The lock file of a killed watchdog does not matter.
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
    fn path_that_another_user_could_change_is_refused() {
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
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1, "nothing was created in it");
        assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    }

    #[test]
    fn directory_that_others_may_write_to_must_be_sticky() {
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
        // A link of this user is accepted like a directory.
        symlink("open/below", directory.path().join("link")).unwrap();
        drop(bind(&at(&directory.path().join("link/s")), None).unwrap());
    }

    #[test]
    fn directory_that_is_moved_keeps_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (before, after) = (directory.path().join("before"), directory.path().join("after"));
        fs::create_dir(&before).unwrap();
        let socket = bind(&at(&before.join("s")), None).unwrap();
        fs::rename(&before, &after).unwrap();
        fs::create_dir(&before).unwrap();
        fs::write(before.join("s"), "another's").unwrap();
        drop(socket);
        assert!(before.join("s").exists(), "another file was removed");
        assert!(!after.join("s").exists());
    }
}
