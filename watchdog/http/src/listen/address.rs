//! Where to listen: an address as it is written, and the socket bound to it.
//!
//! Whoever may connect may read everything the listener tells, so only this host is listened to unless
//! told otherwise, and a Unix socket is made with the mode it is to have.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The longest path of a Unix socket, bytes (unix(7): 108 with the zero at its end).
const LONGEST_PATH: usize = 107;
/// How many connections wait to be accepted at most.
const BACKLOG: i32 = 128;
/// How long another watchdog that binds at the same path is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:9469`, `[::1]:9469`, `localhost:9469`; port 0 is any that is free.
    Tcp(SocketAddr),
    /// `unix:/run/hangwatch/train.sock`.
    Unix(PathBuf),
}

impl Address {
    /// Whether only this host can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address that cannot be listened at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is none.
    #[error(
        "is no address: write an IP address with a port, such as 127.0.0.1:9469 or [::1]:9469, or \
         unix: with a path"
    )]
    NotAnAddress,
    /// A port, but no host.
    #[error("has no host: write 127.0.0.1:{0} to be reached from this host only")]
    NoHost(u16),
    /// A Unix socket without a path.
    #[error("has no path: write unix:/run/hangwatch/NAME.sock or the like")]
    NoPath,
    /// A path that does not begin at the root: a daemon's directory is not its caller's.
    #[error("has a path that does not begin with /: write all of it")]
    RelativePath,
    /// A path the kernel has no room for.
    #[error("has a path of {0} bytes, and the kernel takes {LONGEST_PATH}: choose a shorter one")]
    PathTooLong(usize),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_address(path);
        }
        if let Ok(address) = text.parse() {
            return Ok(Address::Tcp(address));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        match (host, port.parse()) {
            ("localhost", Ok(port)) => {
                Ok(Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
            }
            ("" | "*", Ok(port)) => Err(AddressError::NoHost(port)),
            _ => Err(AddressError::NotAnAddress),
        }
    }
}

fn unix_address(path: &str) -> Result<Address, AddressError> {
    match path.len() {
        0 => Err(AddressError::NoPath),
        _ if !path.starts_with('/') => Err(AddressError::RelativePath),
        length if length > LONGEST_PATH => Err(AddressError::PathTooLong(length)),
        _ => Ok(Address::Unix(path.into())),
    }
}

/// Why nobody can be listened to.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Other hosts could connect.
    #[error(
        "{address} can be reached from other hosts, which would learn every pid, command and scope: \
         listen at 127.0.0.1 or a Unix socket, or say --listen-anywhere if that is meant"
    )]
    NotLocal {
        /// The address.
        address: Address,
    },
    /// Somebody listens there.
    #[error(
        "cannot listen at {address}: it is in use{}", match address {
            Address::Tcp(_) => "; choose another port, or see who has it with `ss -ltnp`",
            Address::Unix(_) => " by a process that listens; end that one, or choose another path",
        }
    )]
    InUse {
        /// The address.
        address: Address,
    },
    /// Something else has the path.
    #[error(
        "cannot listen at {address}: a file is there that is no socket; move it, or choose another path"
    )]
    NotASocket {
        /// The address.
        address: Address,
    },
    /// Another process of this user binds there, and does not end.
    #[error(
        "cannot listen at {address}: {} is locked by another process; end that one, or choose \
         another path", lock.display()
    )]
    Locked {
        /// The address.
        address: Address,
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file is no file of this user's alone.
    #[error(
        "cannot listen at {address}: {} is not a file that only this user may open; remove it, or \
         choose a directory that others may not write to", lock.display()
    )]
    ForeignLock {
        /// The address.
        address: Address,
        /// The lock file.
        lock: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot listen at {address}: {source}{}", advice(source))]
    Refused {
        /// The address.
        address: Address,
        /// What it said.
        source: io::Error,
    },
    /// No thread or no runtime could be had.
    #[error(
        "cannot listen at {address}: no thread could be started: {source}; raise the limit of processes (ulimit -u)"
    )]
    Thread {
        /// The address.
        address: Address,
        /// What the kernel said.
        source: io::Error,
    },
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; choose a port above 1023, or a directory that you may write"
        }
        io::ErrorKind::NotFound => "; make the directory first",
        io::ErrorKind::AddrNotAvailable => "; it is no address of this host",
        _ => "",
    }
}

/// A socket that is bound and listens.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Socket {
    /// Where it really listens: with the port that was chosen.
    pub(super) fn address(&self, asked: &Address) -> Address {
        match self {
            Socket::Tcp(socket) => socket.local_addr().map_or_else(|_| asked.clone(), Address::Tcp),
            Socket::Unix(..) => asked.clone(),
        }
    }
}

/// Binds and listens. A Unix socket may be connected to by its owner, and by `group` where one is
/// given; of one that is there already, but has nobody who listens, the place is taken.
pub(super) fn bind(address: &Address, group: Option<u32>) -> Result<Socket, ListenError> {
    match address {
        Address::Tcp(at) => {
            let socket = TcpListener::bind(at).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse { address: address.clone() },
                _ => ListenError::Refused { address: address.clone(), source },
            })?;
            Ok(Socket::Tcp(socket))
        }
        Address::Unix(path) => bind_unix(address, path, group),
    }
}

fn bind_unix(address: &Address, path: &Path, group: Option<u32>) -> Result<Socket, ListenError> {
    let refused = |source: io::Error| ListenError::Refused { address: address.clone(), source };
    // Between two that find the same socket abandoned, and between `bind` and `listen` of one.
    let _lock = LockFile::take(path, address)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(ListenError::NotASocket { address: address.clone() });
        }
        Ok(_) => match connect(path) {
            Err(Errno::CONNREFUSED) => fs::remove_file(path).map_err(refused)?,
            Err(Errno::NOENT) => {}
            // Somebody answers, or has more to do than the backlog takes.
            Ok(()) | Err(Errno::AGAIN) => {
                return Err(ListenError::InUse { address: address.clone() });
            }
            Err(errno) => return Err(refused(errno.into())),
        },
    }
    bind_new_unix(path, group).map_err(|errno| refused(errno.into()))
}

/// Whether anybody listens; does not wait to be accepted.
fn connect(path: &Path) -> Result<(), Errno> {
    let socket = unix_socket()?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// The lock that a socket is bound under: a file beside it that only this user may open. (A directory
/// may be opened, and so locked, by whoever may read it.) The file is removed again.
struct LockFile {
    path: PathBuf,
    _file: fs::File,
}

impl LockFile {
    /// Takes the lock of the socket at `path`, waiting a while for another watchdog that binds there.
    fn take(path: &Path, address: &Address) -> Result<LockFile, ListenError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let refused =
            |errno: Errno| ListenError::Refused { address: address.clone(), source: errno.into() };
        let foreign = || ListenError::ForeignLock { address: address.clone(), lock: path.clone() };
        let from = Instant::now();
        loop {
            let flags = OFlags::CREATE
                | OFlags::RDWR
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC;
            let file = match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
                Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(foreign()),
                Err(Errno::ACCESS | Errno::PERM) if fs::symlink_metadata(&path).is_ok() => {
                    return Err(foreign());
                }
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
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // Whoever had it before has removed it: a lock on a file without a name keeps nobody off.
                Ok(()) if !is_at(&path, &opened) => {}
                Ok(()) => return Ok(LockFile { path, _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) if from.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(ListenError::Locked { address: address.clone(), lock: path });
                }
                Err(errno) => return Err(refused(errno)),
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // While it is locked: whoever waits for it sees that it has gone, and makes another.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the file at `path` is this one.
fn is_at(path: &Path, file: &fs::Metadata) -> bool {
    fs::symlink_metadata(path).is_ok_and(|at| (at.dev(), at.ino()) == (file.dev(), file.ino()))
}

fn bind_new_unix(path: &Path, group: Option<u32>) -> Result<Socket, Errno> {
    let socket = unix_socket()?;
    // The file is made with the socket's own mode: at no time may others connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::new(path.to_owned());
    if let Some(group) = group {
        open_to_group(path, group)?;
    }
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Socket::Unix(UnixListener::from(socket), file))
}

/// Lets the members of a group connect to the socket that was just made. Who may write its directory can
/// have put another file there, or a link to one: only a socket of this user's is changed.
fn open_to_group(path: &Path, group: u32) -> Result<(), Errno> {
    let handle = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, handle, Mode::empty())?;
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
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: PathBuf) -> SocketFile {
        let id = SocketFile::id_of(&path);
        SocketFile { path, id }
    }

    fn id_of(path: &Path) -> Option<(u64, u64)> {
        fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && self.id == SocketFile::id_of(&self.path) {
            // What cannot be removed is taken over by the next who binds there.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn addresses_are_read_as_written() {
        let check = |text: &str, shown: &str, local: bool| {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.is_local()),
                (shown, local),
                "{text}"
            );
        };
        check("127.0.0.1:9469", "127.0.0.1:9469", true);
        check("127.8.8.8:9469", "127.8.8.8:9469", true);
        check("localhost:9469", "127.0.0.1:9469", true);
        check("[::1]:0", "[::1]:0", true);
        check("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1", true);
        check("0.0.0.0:9469", "0.0.0.0:9469", false);
        check("[::]:9469", "[::]:9469", false);
        check("10.1.2.3:9469", "10.1.2.3:9469", false);
        check("unix:/run/hangwatch/train.sock", "unix:/run/hangwatch/train.sock", true);
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_one() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("9469", "127.0.0.1:9469");
        check(":9469", "127.0.0.1:9469");
        check("*:80", "127.0.0.1:80");
        check("", "is no address");
        check("127.0.0.1", "is no address");
        check("127.0.0.1:99999", "is no address");
        check("example.org:9469", "is no address");
        check("::1:9469x", "is no address");
        check("unix:", "no path");
        check("unix:train.sock", "begin with /");
        check(&format!("unix:/{}", "x".repeat(107)), "108 bytes");
        assert!(format!("unix:/{}", "x".repeat(106)).parse::<Address>().is_ok());
    }

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
            assert_eq!(open_to_group(&path, group), Err(Errno::NOTSOCK));
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
        let held = LockFile::take(&path, &at(&path)).unwrap();
        assert!(matches!(refused(), ListenError::Locked { .. }), "{}", refused());
        drop(held);
        drop(bind(&at(&path), None).unwrap());
    }

    #[test]
    fn a_port_in_use_is_said_to_be() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(&Address::Tcp(taken.local_addr().unwrap()), None).unwrap_err();
        assert!(error.to_string().contains("ss -ltnp"), "{error}");
    }
}
