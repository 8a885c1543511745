//! TCP connections, from `/proc/PID/net/tcp`: the peer on this host, or the remote address with its queues.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hangwatch::sys::proc_file;

/// What is read of a table, bytes.
const TABLE_BYTES: u64 = 8 << 20;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tcp {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) is_listening: bool,
    /// Bytes that the other end has not acknowledged.
    pub(super) unsent: u64,
    /// Bytes that came and were not read.
    pub(super) unread: u64,
    /// 0 of one that nobody has accepted.
    pub(super) inode: u64,
}

/// The sockets of a process's network namespace.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<Tcp>);

impl Table {
    pub(super) fn of(pid: u32) -> Table {
        let lines = |name| {
            let text = proc_file::bytes(format!("/proc/{pid}/net/{name}"), TABLE_BYTES);
            String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
        };
        let text = lines("tcp") + &lines("tcp6");
        Table(text.lines().filter_map(socket).collect())
    }

    pub(super) fn by_inode(&self, inode: u64) -> Option<Tcp> {
        self.0.iter().copied().find(|it| it.inode == inode)
    }

    /// The other end, where it is in this namespace.
    pub(super) fn peer(&self, of: Tcp) -> Option<Tcp> {
        let is_peer =
            |it: &&Tcp| !it.is_listening && it.local == of.remote && it.remote == of.local;
        self.0.iter().find(is_peer).copied()
    }

    /// Who listens on the address that a connection was made to.
    pub(super) fn listener(&self, at: SocketAddr) -> Option<Tcp> {
        let fits = |it: &&Tcp| {
            let ip = it.local.ip();
            it.is_listening
                && it.local.port() == at.port()
                && (ip == at.ip() || ip.is_unspecified())
        };
        self.0.iter().find(fits).copied()
    }
}

/// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1234 ...`
fn socket(line: &str) -> Option<Tcp> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (unsent, unread) = words.get(4)?.split_once(':')?;
    Some(Tcp {
        local: address(words.get(1)?)?,
        remote: address(words.get(2)?)?,
        is_listening: *words.get(3)? == "0A",
        unsent: u64::from_str_radix(unsent, 16).ok()?,
        unread: u64::from_str_radix(unread, 16).ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// An address as the kernel prints it: words of 32 bits in the processor's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    let words = ip.len() / 8;
    if !ip.is_ascii() || ip.len() % 8 != 0 || !matches!(words, 1 | 4) {
        return None;
    }
    for word in 0..words {
        let number = u32::from_str_radix(&ip[8 * word..8 * word + 8], 16).ok()?;
        bytes[4 * word..4 * word + 4].copy_from_slice(&number.to_ne_bytes());
    }
    let ip = match words {
        1 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        // One that speaks to IPv4 is the same as an IPv4 socket.
        _ => Ipv6Addr::from(bytes).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_a_socket_and_its_peer_is_found() {
        let lines = [
            "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 11 1",
            "1: 0100007F:C001 0100007F:1F90 01 00000010:00000000 00:00000000 00000000 0 0 12 1",
            "2: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C001 01 00000000:00000010 00:00000000 00000000 0 0 13 1",
            "malformed",
            "3: 0100:1 x y z",
        ];
        let table = Table(lines.iter().filter_map(|line| socket(line)).collect());
        assert_eq!(table.0.len(), 3);
        let client = table.by_inode(12).unwrap();
        assert_eq!((client.unsent, client.remote.to_string().as_str()), (16, "127.0.0.1:8080"));
        assert_eq!(table.peer(client).unwrap().inode, 13);
        assert_eq!(table.listener(client.remote).unwrap().inode, 11);
    }
}
