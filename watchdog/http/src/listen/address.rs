//! The address of the listener, and the socket bound to it.
//!
//! Any client that can connect can read everything the listener reports. So only this host can connect unless
//! configured otherwise, and a Unix socket is created with its final mode.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

use super::unix::{self, LONGEST_NAME, SocketFile};
use hangwatch_files::place::PlaceError;

/// The longest path of a Unix socket, bytes (unix(7): 108 with the zero at its end).
const LONGEST_PATH: usize = 107;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `127.0.0.1:9469`, `[::1]:9469`, `localhost:9469`; port 0 means any free port.
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

/// Why a text is not an address to listen at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not an address.
    #[error(
        "is not an address: write an IP address with a port, such as 127.0.0.1:9469 or [::1]:9469, or \
         unix: with a path"
    )]
    NotAnAddress,
    /// It has a port but no host.
    #[error("has no host: write 127.0.0.1:{0} to be reached from this host only")]
    NoHost(u16),
    /// It is a Unix socket without a path.
    #[error("has no path: write unix:/run/hangwatch/NAME.sock or the like")]
    NoPath,
    /// The path is relative. The directory of a daemon is not that of its caller.
    #[error("has a relative path: it must begin with /")]
    RelativePath,
    /// The path is too long for the kernel.
    #[error("has a path of {0} bytes, but the kernel allows {LONGEST_PATH}: choose a shorter one")]
    PathTooLong(usize),
    /// The name of the socket is too long, because the kernel is given it below an open directory.
    #[error(
        "has a name of {0} bytes after the last /, but {LONGEST_NAME} are allowed: choose a shorter one"
    )]
    NameTooLong(usize),
    /// The path ends without a name.
    #[error("ends in a directory: add the name of the socket")]
    NoName,
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
        _ => match path.rsplit('/').next().unwrap_or_default() {
            "" | "." | ".." => Err(AddressError::NoName),
            name if name.len() > LONGEST_NAME => Err(AddressError::NameTooLong(name.len())),
            _ => Ok(Address::Unix(path.into())),
        },
    }
}

/// Why the listener cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Other hosts could connect.
    #[error(
        "{address} can be reached from other hosts, which would learn every pid, command and scope: \
         listen at 127.0.0.1 or a Unix socket, or add --listen-anywhere if that is intended"
    )]
    NotLocal {
        /// The address.
        address: Address,
    },
    /// Another process listens there.
    #[error(
        "cannot listen at {address}: it is in use{}", match address {
                Address::Tcp(_) => "; choose another port, or find its owner with `ss -ltnp`",
                Address::Unix(_) => " by a process that listens; end it, or choose another path",
        }
    )]
    InUse {
        /// The address.
        address: Address,
    },
    /// The path is taken by something other than a socket.
    #[error(
        "cannot listen at {address}: the file there is not a socket; move it, or choose another path"
    )]
    NotASocket {
        /// The address.
        address: Address,
    },
    /// Another process of this user holds the lock.
    #[error(
        "cannot listen at {address}: {} is locked by another process; end it, or choose \
         another path", lock.display()
    )]
    Locked {
        /// The address.
        address: Address,
        /// The lock file.
        lock: PathBuf,
    },
    /// The lock file can be opened by other users.
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
    /// Another user could replace the socket.
    #[error("cannot listen at {address}: {source}")]
    Place {
        /// The address.
        address: Address,
        /// Which directory or link, and why.
        source: PlaceError,
    },
    /// The kernel refused.
    #[error("cannot listen at {address}: {source}{}", advice(source))]
    Refused {
        /// The address.
        address: Address,
        /// What it said.
        source: io::Error,
    },
    /// The listener's thread or runtime could not be started.
    #[error(
        "cannot listen at {address}: cannot start a thread: {source}; raise the limit of processes (ulimit -u)"
    )]
    Thread {
        /// The address.
        address: Address,
        /// The error of the kernel.
        source: io::Error,
    },
}

/// The advice for a missing directory of a Unix socket.
pub(super) const MAKE_DIRECTORY: &str = "; make the directory first";

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; choose a port above 1023, or a directory that you may write"
        }
        io::ErrorKind::NotFound => MAKE_DIRECTORY,
        io::ErrorKind::AddrNotAvailable => "; it is not an address of this host",
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
    /// Returns where it listens, with the port that the kernel chose.
    pub(super) fn address(&self, asked: &Address) -> Address {
        match self {
            Socket::Tcp(socket) => socket.local_addr().map_or_else(|_| asked.clone(), Address::Tcp),
            Socket::Unix(..) => asked.clone(),
        }
    }
}

/// Binds and listens. A Unix socket admits its owner, and `group` if there is one. A socket that no process
/// listens at is replaced.
pub(super) fn bind(address: &Address, group: Option<u32>) -> Result<Socket, ListenError> {
    match address {
        Address::Tcp(at) => {
            let socket = TcpListener::bind(at).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse { address: address.clone() },
                _ => ListenError::Refused { address: address.clone(), source },
            })?;
            Ok(Socket::Tcp(socket))
        }
        Address::Unix(path) => {
            let (socket, file) = unix::bind(address, path, group)?;
            Ok(Socket::Unix(socket, file))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
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
    fn invalid_address_is_refused_with_an_example() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("9469", "127.0.0.1:9469");
        check(":9469", "127.0.0.1:9469");
        check("*:80", "127.0.0.1:80");
        check("", "is not an address");
        check("127.0.0.1", "is not an address");
        check("127.0.0.1:99999", "is not an address");
        check("example.org:9469", "is not an address");
        check("::1:9469x", "is not an address");
        check("unix:", "no path");
        check("unix:train.sock", "begin with /");
        check("unix:/run/", "ends in a directory");
        check("unix:/run/..", "ends in a directory");
        check(&format!("unix:/{}", "x".repeat(107)), "108 bytes");
        check(&format!("unix:/{}", "x".repeat(81)), "name of 81 bytes");
        assert!(format!("unix:/{}/{}", "x".repeat(25), "x".repeat(80)).parse::<Address>().is_ok());
    }

    #[test]
    fn port_in_use_is_reported_with_advice() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(&Address::Tcp(taken.local_addr().unwrap()), None).unwrap_err();
        assert!(error.to_string().contains("ss -ltnp"), "{error}");
    }
}
