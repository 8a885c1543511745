//! Open files, and what the sockets among them are connected to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Read as _;

use procfs::process::{FDTarget, Process};

use super::target::why;
use super::teller::Why;
use hangwatch_incident::schema::File;

/// Files listed at most.
const FILES: usize = 1024;

/// Files counted at most.
const COUNTED: usize = 65_536;
/// The longest table of sockets that is read, bytes: the worker may have made its network namespace.
const TABLE_BYTES: u64 = 8 << 20;

/// Some of a process's open files.
pub(super) struct Files {
    pub(super) files: Vec<File>,
    pub(super) left_out: u64,
}

/// The open files, by their descriptors.
pub(super) fn list(process: &Process) -> Result<Files, Why> {
    let descriptors = process.fd().map_err(|error| why(&error))?;
    let mut files = Vec::new();
    let mut left_out = 0;
    // One that was closed meanwhile is an error, and none of its files.
    for info in descriptors.take(COUNTED).flatten() {
        if files.len() < FILES {
            let descriptor = info.fd.unsigned_abs();
            files.push(File { descriptor, target: target_name(&info.target) });
        } else {
            left_out += 1;
        }
    }
    files.sort_unstable_by_key(|file: &File| file.descriptor);
    Ok(Files { files, left_out })
}

/// As `/proc/PID/fd` has it.
fn target_name(target: &FDTarget) -> String {
    match target {
        FDTarget::Path(path) => path.to_string_lossy().into_owned(),
        FDTarget::Socket(inode) => format!("socket:[{inode}]"),
        FDTarget::Net(inode) => format!("net:[{inode}]"),
        FDTarget::Pipe(inode) => format!("pipe:[{inode}]"),
        FDTarget::AnonInode(name) => format!("anon_inode:{name}"),
        FDTarget::MemFD(name) => format!("/memfd:{name}"),
        FDTarget::Other(name, inode) => format!("{name}:[{inode}]"),
        FDTarget::Unknown(name, more) => format!("{name}:{more}"),
    }
}

/// Says of each socket what it is connected to. False where there was nothing to say.
pub(super) fn name_sockets(process: &Process, files: &mut [File]) -> bool {
    let inode = |file: &File| -> Option<u64> {
        file.target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    if !files.iter().any(|file| inode(file).is_some()) {
        return false;
    }
    let sockets = sockets(process);
    let mut is_any_named = false;
    for file in files {
        if let Some(socket) = inode(file).and_then(|inode| sockets.get(&inode)) {
            let _ = write!(file.target, " {socket}");
            is_any_named = true;
        }
    }
    is_any_named
}

/// The sockets of the process's network namespace, by inode.
fn sockets(process: &Process) -> HashMap<u64, String> {
    let mut sockets = HashMap::new();
    let read = |name: &str| is_short(process, name);
    let tcp = read("tcp").then(|| process.tcp()).into_iter().flatten();
    let tcp = tcp.chain(read("tcp6").then(|| process.tcp6()).into_iter().flatten());
    for tcp in tcp.flatten() {
        let (from, to) = (tcp.local_address, tcp.remote_address);
        let (state, receive, send) = (tcp.state, tcp.rx_queue, tcp.tx_queue);
        let queues = format!("{receive} bytes to read, {send} to send");
        sockets.insert(tcp.inode, format!("tcp {from} -> {to} {state:?}, {queues}"));
    }
    let udp = read("udp").then(|| process.udp()).into_iter().flatten();
    let udp = udp.chain(read("udp6").then(|| process.udp6()).into_iter().flatten());
    for udp in udp.flatten() {
        let (from, to) = (udp.local_address, udp.remote_address);
        sockets.insert(udp.inode, format!("udp {from} -> {to}"));
    }
    for unix in read("unix").then(|| process.unix()).into_iter().flatten().flatten() {
        let path = unix.path.map(|path| format!(" {}", path.display())).unwrap_or_default();
        sockets.insert(unix.inode, format!("unix{path} {:?}", unix.state));
    }
    sockets
}

/// Whether a table of sockets is no longer than is read.
fn is_short(process: &Process, name: &str) -> bool {
    let table = std::fs::File::open(format!("/proc/{}/net/{name}", process.pid));
    let copied =
        table.and_then(|table| std::io::copy(&mut table.take(TABLE_BYTES), &mut std::io::sink()));
    copied.is_ok_and(|bytes| bytes < TABLE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn a_socket_is_named_by_what_it_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let process = Process::myself().unwrap();
        let mut files = list(&process).unwrap();
        assert!(name_sockets(&process, &mut files.files));
        let descriptor = stream.as_raw_fd().unsigned_abs();
        let file = files.files.iter().find(|file| file.descriptor == descriptor).unwrap();
        let peer = listener.local_addr().unwrap().to_string();
        assert!(file.target.contains(&peer) && file.target.contains("Established"), "{file:?}");
    }
}
