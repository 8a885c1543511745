//! What a thread waits for on a descriptor: who has the other end.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use hangwatch_wait_graph::{End, Medium, Resource, Source};
use syscalls::Sysno;

use super::builder::{Builder, Toward};
use super::holders::{self, Holder, Mode, link_of};
use super::mounts::Mount;
use super::task::{Process, Task};

/// Descriptors of one wait that are looked at, at most.
pub(super) const AWAITED: u64 = 64;
/// Event descriptors of all processes that are compared, at most.
const EVENTS: usize = 8192;

/// What a descriptor is waited on for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Data, a connection, an event.
    Reading,
    /// Room.
    Writing,
    /// That somebody accepts the connection.
    Connecting,
}

/// What a call that takes a descriptor first waits for.
pub(super) fn purpose(call: &str) -> Option<For> {
    match call {
        "read" | "readv" | "preadv" | "preadv2" | "pread64" | "recvfrom" | "recvmsg"
        | "recvmmsg" | "accept" | "accept4" | "getdents64" | "ioctl" | "splice" | "tee"
        | "copy_file_range" => Some(For::Reading),
        "write" | "writev" | "pwritev" | "pwritev2" | "pwrite64" | "sendto" | "sendmsg"
        | "sendmmsg" | "sendfile" | "vmsplice" => Some(For::Writing),
        "connect" => Some(For::Connecting),
        _ => None,
    }
}

/// Calls that wait for a file system.
pub(super) fn is_of_files(call: &str) -> bool {
    [
        "stat", "sync", "open", "unlink", "rename", "mkdir", "rmdir", "link", "access", "getdents",
        "chdir", "mmap", "munmap", "close", "trunc", "statx", "xattr", "mount",
    ]
    .iter()
    .any(|part| call.contains(part))
}

/// Who can end the wait on a descriptor.
pub(super) fn ways(builder: &mut Builder, process: &Process, fd: u64, wants: For) -> Vec<Toward> {
    let Some(link) = link_of(process.pid, fd) else {
        return vec![Toward::unknown(format!(
            "waits on descriptor {fd}, which cannot be looked at"
        ))];
    };
    if link.starts_with("pipe:[") {
        return pipe(builder, process, &link, wants, Medium::Pipe);
    }
    if let Some(inode) = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
        return match inode.parse() {
            Ok(inode) => socket(builder, process, inode, wants),
            Err(_) => vec![Toward::unknown("waits on a socket without a number")],
        };
    }
    if let Some(kind) = link.strip_prefix("anon_inode:") {
        return anonymous(builder, process, fd, kind);
    }
    if link.starts_with("/dev/pts/") || link.starts_with("/dev/tty") || link == "/dev/console" {
        return terminal(builder, &link, wants);
    }
    if is_fifo(process.pid, &link, &format!("/proc/{}/fd/{fd}", process.pid)) {
        return pipe(builder, process, &link, wants, Medium::Fifo);
    }
    file(builder, process, &link, "")
}

/// The other end of a pipe, by its link or name.
fn pipe(
    builder: &mut Builder,
    process: &Process,
    link: &str,
    wants: For,
    medium: Medium,
) -> Vec<Toward> {
    let (mode, resource, nobody) = match wants {
        For::Reading => (Mode::Write, Resource::Read(medium), "nobody has it open for writing"),
        _ => (Mode::Read, Resource::Write(medium), "nobody has it open for reading"),
    };
    let holders = builder.holders();
    let found = holders.open_for(link, mode);
    if found.is_empty() {
        return vec![match &holders.incomplete {
            Some(why) => {
                Toward::unknown(format!("waits on a pipe whose other end was not found: {why}"))
            }
            None => Toward::End(End::NobodyThere(format!("of the pipe it waits on, {nobody}"))),
        }];
    }
    to_holders(process, &found, &resource)
}

/// Edges to those who hold an end: to others, where there are any.
fn to_holders(process: &Process, holders: &[Holder], resource: &Resource) -> Vec<Toward> {
    let mut pids: Vec<u32> = holders.iter().map(|holder| holder.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    if pids.len() > 1 {
        pids.retain(|&pid| pid != process.pid);
    }
    let way = |pid| {
        if pid == process.pid && process.count > 1 {
            Toward::AnyThread(pid, Resource::WakeUp, Source::Inferred)
        } else {
            Toward::AnyThread(pid, resource.clone(), Source::Kernel)
        }
    };
    pids.into_iter().map(way).collect()
}

fn socket(builder: &mut Builder, process: &Process, inode: u64, wants: For) -> Vec<Toward> {
    if builder.table(process.pid).by_inode(inode).is_some() {
        return tcp(builder, process, inode, wants);
    }
    let sockets = match builder.sockets(process.pid) {
        Ok(sockets) => sockets,
        Err(why) => {
            return vec![Toward::unknown(format!(
                "waits on a socket; sockets cannot be listed: {why}"
            ))];
        }
    };
    let Some(socket) = u32::try_from(inode).ok().and_then(|inode| sockets.get(&inode)).cloned()
    else {
        return vec![Toward::unknown("waits on a socket that is neither a UNIX nor a TCP one")];
    };
    if socket.is_listening {
        return vec![connections(&socket.name)];
    }
    if wants == For::Connecting {
        return vec![Toward::unknown("waits for a UNIX socket to accept its connection")];
    }
    if socket.peer == 0 {
        return vec![Toward::unknown("waits on a UNIX socket that has no one other end")];
    }
    let peer = format!("socket:[{}]", socket.peer);
    let found = builder.holders().of(&peer);
    if found.is_empty() {
        // Connected, and in the queue of whoever listens.
        return match listener(builder, process, socket.peer) {
            Some(holders) => to_holders(process, &holders, &Resource::Accept(Medium::UnixSocket)),
            None => vec![Toward::unknown("waits on a UNIX socket whose other end was not found")],
        };
    }
    to_holders(process, &found, &by_want(wants, Medium::UnixSocket))
}

/// Who listens where a socket that nobody has accepted yet was connected to.
fn listener(builder: &mut Builder, process: &Process, peer: u32) -> Option<Vec<Holder>> {
    let sockets = builder.sockets(process.pid).as_ref().ok()?;
    let name = sockets.get(&peer)?.name.clone();
    let is_it = |socket: &&super::unix::Unix| socket.is_listening && socket.name == name;
    let (inode, _) = sockets.iter().find(|(_, socket)| !name.is_empty() && is_it(socket))?;
    let link = format!("socket:[{inode}]");
    Some(builder.holders().of(&link)).filter(|holders| !holders.is_empty())
}

fn by_want(wants: For, medium: Medium) -> Resource {
    match wants {
        For::Reading => Resource::Read(medium),
        For::Writing => Resource::Write(medium),
        For::Connecting => Resource::Accept(medium),
    }
}

fn connections(address: &str) -> Toward {
    let address = if address.is_empty() { "a socket without a name" } else { address };
    let what = format!("connections on {address}");
    Toward::Outside(what.clone(), End::Waiting(what))
}

fn tcp(builder: &mut Builder, process: &Process, inode: u64, wants: For) -> Vec<Toward> {
    let table = builder.table(process.pid);
    let Some(own) = table.by_inode(inode) else { return Vec::new() };
    if own.is_listening {
        return vec![connections(&own.local.to_string())];
    }
    let peer = table.peer(own);
    let listener = table.listener(own.remote);
    let is_here = own.remote.ip().is_loopback() || own.remote.ip() == own.local.ip();
    let (link, resource) = match (peer, listener) {
        (Some(peer), _) if peer.inode != 0 => {
            (format!("socket:[{}]", peer.inode), by_want(wants, Medium::Tcp))
        }
        (_, Some(listener)) if peer.is_some() || is_here => {
            (format!("socket:[{}]", listener.inode), Resource::Accept(Medium::Tcp))
        }
        _ if is_here => {
            return vec![Toward::unknown(format!(
                "waits for {} on this host, where nobody was found",
                own.remote
            ))];
        }
        _ => {
            let (unsent, unread) = (own.unsent, own.unread);
            let queues = format!("{} ({unsent} bytes unsent, {unread} bytes unread)", own.remote);
            return vec![Toward::Outside(queues.clone(), End::Remote(queues))];
        }
    };
    let found = builder.holders().of(&link);
    if found.is_empty() {
        let remote = own.remote;
        return vec![Toward::unknown(format!(
            "waits for {remote} on this host, held by nobody found"
        ))];
    }
    to_holders(process, &found, &resource)
}

/// Event descriptors, timers, and whatever else has no name.
fn anonymous(builder: &mut Builder, process: &Process, fd: u64, kind: &str) -> Vec<Toward> {
    let outside =
        |what: &str| vec![Toward::Outside(what.to_owned(), End::Waiting(what.to_owned()))];
    let number = u32::try_from(fd).unwrap_or(u32::MAX);
    match kind.trim_matches(['[', ']']) {
        "timerfd" => outside("a timer"),
        "signalfd" => outside("a signal"),
        "inotify" | "fanotify" => outside("a change of a file"),
        "pidfd" => match super::calls::of_pidfd(process.pid, number) {
            Some(pid) => vec![Toward::Process(pid, Resource::Child { of: 1 }, Source::Kernel)],
            None => vec![Toward::unknown("waits for a process that has ended")],
        },
        "eventfd" => event(builder, process, fd),
        kind => vec![Toward::unknown(format!("waits on a descriptor of kind {kind}"))],
    }
}

/// Whoever may send an event: the process itself, and those that have the same descriptor.
fn event(builder: &mut Builder, process: &Process, fd: u64) -> Vec<Toward> {
    let own = u32::try_from(fd).ok().and_then(|fd| holders::info(process.pid, fd, "eventfd-id:"));
    let all = builder.holders().all_of("anon_inode:[eventfd]", EVENTS);
    let is_bounded = all.len() == EVENTS;
    let others = all.iter().filter(|it| it.pid != process.pid);
    let mut pids: Vec<u32> = others
        .filter(|it| own.is_some() && it.info("eventfd-id:") == own)
        .map(|it| it.pid)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    let mut ways = vec![Toward::AnyThread(process.pid, Resource::WakeUp, Source::Inferred)];
    ways.extend(
        pids.into_iter().map(|pid| Toward::AnyThread(pid, Resource::WakeUp, Source::Kernel)),
    );
    if is_bounded || own.is_none() {
        ways.push(Toward::unknown(
            "waits for an event that processes may send which were not found",
        ));
    }
    ways
}

/// Whoever has the terminal's other side, else whoever sits at it.
fn terminal(builder: &mut Builder, link: &str, wants: For) -> Vec<Toward> {
    let number = link.strip_prefix("/dev/pts/");
    let holders = builder.holders();
    let mut masters = holders.of("/dev/ptmx");
    masters.extend(holders.of("/dev/pts/ptmx"));
    masters
        .retain(|it| number.is_some_and(|number| it.info("tty-index:").as_deref() == Some(number)));
    let what = format!("input from the terminal {link}");
    if wants == For::Reading {
        // A person may type there, whoever passes it on.
        let mut ways = vec![Toward::Outside(what.clone(), End::Waiting(what))];
        let way = |it: &Holder| {
            Toward::AnyThread(it.pid, Resource::Read(Medium::Terminal), Source::Kernel)
        };
        ways.extend(masters.iter().take(1).map(way));
        return ways;
    }
    let way =
        |it: Holder| Toward::AnyThread(it.pid, Resource::Write(Medium::Terminal), Source::Kernel);
    let ways: Vec<Toward> = masters.into_iter().map(way).collect();
    if ways.is_empty() {
        return vec![Toward::End(End::Device(format!(
            "the terminal {link}, which takes no output"
        )))];
    }
    ways
}

/// Whether a path is a named pipe's. It is looked at, by `link`, only where no file system can hang over it.
fn is_fifo(pid: u32, path: &str, link: &str) -> bool {
    let path = path.trim_end_matches(" (deleted)");
    let is_local = Mount::of(pid, path).is_some_and(|mount| is_local(&mount.kind));
    is_local && fs::metadata(link).is_ok_and(|it| it.file_type().is_fifo())
}

fn is_local(kind: &str) -> bool {
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "ramfs", "rootfs", "zfs", "f2fs"]
        .contains(&kind)
}

/// An open that waits.
pub(super) fn opening(builder: &mut Builder, process: &Process, path: &str) -> Vec<Toward> {
    let whole = if path.starts_with('/') {
        path.to_owned()
    } else {
        let directory = fs::read_link(format!("/proc/{}/cwd", process.pid)).unwrap_or_default();
        directory.join(path).to_string_lossy().into_owned()
    };
    if is_fifo(process.pid, &whole, &format!("/proc/{}/root{whole}", process.pid)) {
        let found = builder.holders().of(&whole);
        if found.is_empty() {
            return vec![Toward::End(End::NobodyThere(format!(
                "it opens the named pipe {whole}, and nobody opens its other end"
            )))];
        }
        return to_holders(process, &found, &Resource::Open(Medium::Fifo));
    }
    file(builder, process, &whole, "")
}

/// An uninterruptible sleep: what the call is about, and who serves it.
pub(super) fn device(
    builder: &mut Builder,
    process: &Process,
    task: &Task,
    call: Option<Sysno>,
    arguments: [u64; 6],
) -> Vec<Toward> {
    let name = call.map_or("an unknown call", |call| call.name());
    let of_descriptor = purpose(name).is_some() || name.starts_with('f') || name.contains("sync");
    let path = Some(arguments[0]).filter(|_| of_descriptor).and_then(|fd| link_of(process.pid, fd));
    let path = path.or_else(|| {
        let at = if name.ends_with("at")
            || name.ends_with("at2")
            || name == "newfstatat"
            || name == "statx"
        {
            arguments[1]
        } else {
            arguments[0]
        };
        let mut bytes = [0; 256];
        let read = super::task::read_memory(process.pid, at, &mut bytes).ok()?;
        let text = bytes[..read].split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(text).into_owned()).filter(|path| path.starts_with('/'))
    });
    let at = if task.wchan.is_empty() { String::new() } else { format!(", in {}", task.wchan) };
    match path {
        Some(path) if path.starts_with('/') => {
            file(builder, process, &path, &format!(" ({name}{at})"))
        }
        _ => vec![Toward::End(End::Device(format!("the kernel ({name}{at})")))],
    }
}

/// A wait for a file: its file system's server, where that is a process of this host.
fn file(builder: &mut Builder, process: &Process, path: &str, how: &str) -> Vec<Toward> {
    let Some(mount) = Mount::of(process.pid, path) else {
        return vec![Toward::End(End::Device(format!("{path}{how}")))];
    };
    let system = format!("{} on {}", mount.kind, mount.point);
    if mount.is_fuse() {
        let servers = mount.servers(builder.holders());
        let way = |pid| Toward::AnyThread(pid, Resource::Server(system.clone()), Source::Kernel);
        let ways: Vec<Toward> = servers.into_iter().map(way).collect();
        if !ways.is_empty() {
            return ways;
        }
    }
    let from = if mount.source.contains(['/', ':']) {
        format!(" from {}", mount.source)
    } else {
        String::new()
    };
    vec![Toward::End(End::Device(format!("{path} on {system}{from}{how}")))]
}
