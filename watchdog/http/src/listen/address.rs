//! Where to listen: an address as it is written, and the socket bound to it.
//!
//! Whoever may connect may read everything the listener tells, so only this host is listened to unless
//! told otherwise, and a Unix socket is made with the mode it is to have.

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
    /// A name that the kernel has no room for beneath an open directory.
    #[error(
        "has a name of {0} bytes after its last /, and {LONGEST_NAME} are allowed: choose a shorter one"
    )]
    NameTooLong(usize),
    /// A path without a name at its end.
    #[error("ends in a directory: add the name of the socket to be made")]
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
    /// Somebody else could put another socket there.
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

/// What to do where the directory of a Unix socket is not there.
pub(super) const MAKE_DIRECTORY: &str = "; make the directory first";

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            "; choose a port above 1023, or a directory that you may write"
        }
        io::ErrorKind::NotFound => MAKE_DIRECTORY,
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
        check("unix:/run/", "ends in a directory");
        check("unix:/run/..", "ends in a directory");
        check(&format!("unix:/{}", "x".repeat(107)), "108 bytes");
        check(&format!("unix:/{}", "x".repeat(81)), "name of 81 bytes");
        assert!(format!("unix:/{}/{}", "x".repeat(25), "x".repeat(80)).parse::<Address>().is_ok());
    }

    #[test]
    fn a_port_in_use_is_said_to_be() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(&Address::Tcp(taken.local_addr().unwrap()), None).unwrap_err();
        assert!(error.to_string().contains("ss -ltnp"), "{error}");
    }
}
