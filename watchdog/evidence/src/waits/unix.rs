//! UNIX sockets and their peers, by netlink (`sock_diag(7)`): `/proc/net/unix` does not tell them.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// `SOCK_DIAG_BY_FAMILY`; `NLM_F_REQUEST | NLM_F_DUMP`.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
/// `UDIAG_SHOW_NAME | UDIAG_SHOW_PEER`.
const SHOW: u32 = 1 | 4;
const NAME: u16 = 0;
const PEER: u16 = 2;
const LISTENING: u8 = 10;
/// Sockets that are kept, at most.
const SOCKETS: usize = 1 << 18;

/// One socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unix {
    pub(super) is_listening: bool,
    /// The inode of the other end; 0 where there is none.
    pub(super) peer: u32,
    /// Its path, or its abstract name behind an `@`.
    pub(super) name: String,
}

/// The sockets of a network namespace by their inodes.
pub(super) type Sockets = HashMap<u32, Unix>;

/// The sockets of a process's network namespace.
///
/// # Errors
/// Where they cannot be listed.
pub(super) fn sockets(pid: u32) -> io::Result<Sockets> {
    let namespace = |of: &str| File::open(format!("/proc/{of}/ns/net"));
    let theirs = namespace(&pid.to_string())?;
    if theirs.metadata()?.ino() == namespace("self")?.metadata()?.ino() {
        return list();
    }
    // The move is the thread's own, and ends with it.
    let moved = || {
        move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Network))?;
        list()
    };
    let joined = std::thread::scope(|scope| scope.spawn(moved).join());
    joined.unwrap_or_else(|_| Err(io::Error::other("the thread that asked panicked")))
}

fn list() -> io::Result<Sockets> {
    let kernel = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&kernel, &request(), SendFlags::empty())?;
    let mut sockets = Sockets::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (read, _) = recv(&kernel, &mut buffer[..], RecvFlags::empty())?;
        if read == 0 || take(&buffer[..read], &mut sockets) == Flow::Over || sockets.len() > SOCKETS
        {
            return Ok(sockets);
        }
    }
}

/// A `nlmsghdr` and a `unix_diag_req`.
fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(40_u32.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, port
    bytes.extend([1, 0, 0, 0]); // AF_UNIX, protocol, padding
    bytes.extend(u32::MAX.to_ne_bytes()); // every state
    bytes.extend(0_u32.to_ne_bytes()); // every inode
    bytes.extend(SHOW.to_ne_bytes());
    bytes.extend([0; 8]); // every cookie
    bytes
}

/// Whether there are more messages to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    More,
    Over,
}

/// Takes in the messages of one datagram.
fn take(mut bytes: &[u8], sockets: &mut Sockets) -> Flow {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(message) = bytes.get(16..length) else { return Flow::Over };
        if kind != BY_FAMILY {
            return Flow::Over; // done, or an error
        }
        if let Some((inode, socket)) = socket(message) {
            sockets.insert(inode, socket);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Flow::More
}

/// A `unix_diag_msg` and its attributes.
fn socket(message: &[u8]) -> Option<(u32, Unix)> {
    let mut socket = Unix { is_listening: *message.get(2)? == LISTENING, ..Unix::default() };
    let inode = u32_at(message, 4)?;
    let mut rest = message.get(16..)?;
    while let (Some(length), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let length = usize::from(length);
        let Some(value) = rest.get(4..length) else { break };
        match kind {
            NAME => {
                socket.name =
                    String::from_utf8_lossy(value).trim_end_matches('\0').replace('\0', "@");
            }
            PEER => socket.peer = u32_at(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((inode, socket))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn each_end_of_a_pair_is_the_others_peer() {
        let (one, other) = UnixStream::pair().unwrap();
        let inode = |it: &UnixStream| {
            let link = super::super::holders::link_of(
                std::process::id(),
                std::os::fd::AsRawFd::as_raw_fd(it).unsigned_abs().into(),
            );
            let link = link.unwrap();
            link.trim_start_matches("socket:[").trim_end_matches(']').parse::<u32>().unwrap()
        };
        let sockets = sockets(std::process::id()).unwrap();
        assert_eq!(sockets[&inode(&one)].peer, inode(&other));
        assert_eq!(sockets[&inode(&other)].peer, inode(&one));
    }

    #[test]
    fn a_malformed_message_ends_the_list() {
        let mut sockets = Sockets::new();
        assert_eq!(take(&[0; 3], &mut sockets), Flow::More);
        assert_eq!(take(&[0xff; 64], &mut sockets), Flow::Over);
        assert_eq!(take(&[0; 64], &mut sockets), Flow::Over);
        assert!(sockets.is_empty() && socket(&[0; 15]).is_none());
    }
}
