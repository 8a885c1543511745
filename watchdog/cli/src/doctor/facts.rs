//! The facts: what this kernel, this host and this process's rights are. Gathered once, judged in
//! `checks`.
//!
//! A right is tried out where that changes nothing but this short-lived process: a rule that forbids
//! it (a container's, a security module's) need not be known.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU32;

use hangwatch::sys::fork::Canary;
use hangwatch::sys::name::SEGMENT_DIR;
use hangwatch::sys::{clock, host, proc_file};
use hangwatch_process::{limits, lineage};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::process::{Pid, PidfdFlags, Resource, getpid};
use rustix::thread::{CapabilitySet, futex};

use hangwatch_incident::store::{default_dir, try_dir};

/// What was found.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Facts {
    /// As `uname -r` has it.
    pub(super) release: String,
    pub(super) machine: String,
    /// Whether `/proc` is this PID namespace's.
    pub(super) has_proc: bool,
    /// How `/proc` hides the processes of others, where it does.
    pub(super) hidepid: Option<String>,
    pub(super) pidfd: Tried,
    /// Whether pidfds have inodes of their own, which tell processes apart for ever.
    pub(super) has_pidfs: bool,
    pub(super) futex: Tried,
    pub(super) memfd: Tried,
    pub(super) wipe_on_fork: Tried,
    pub(super) shm: Option<Shm>,
    /// An unnamed file in `/dev/shm`.
    pub(super) tmpfile: Tried,
    pub(super) may_trace: bool,
    pub(super) may_kill: bool,
    pub(super) may_be_nice: bool,
    /// `kernel.yama.ptrace_scope`, where there is one.
    pub(super) ptrace_scope: Option<u32>,
    pub(super) lock_memory: Tried,
    pub(super) lower_oom_score: Tried,
    /// Keeping incidents where they are kept by default.
    pub(super) keep_incidents: Tried,
    /// The highest real-time priority allowed without a capability.
    pub(super) realtime_limit: u64,
    /// The hard limit of open files; `None` where there is none.
    pub(super) open_files: Option<u64>,
    pub(super) clock_source: Option<String>,
    pub(super) clock_sources: Option<String>,
    /// Whether a worker may time with the processor's counter.
    pub(super) counts_with_processor: bool,
    pub(super) cgroup: Cgroup,
    /// Whether this process is in a PID namespace below the host's.
    pub(super) in_pid_namespace: bool,
    pub(super) in_user_namespace: bool,
    /// The mode of seccomp: 0 none, 1 strict, 2 a filter.
    pub(super) seccomp: Option<u32>,
    /// What says that this is a container.
    pub(super) container: Option<&'static str>,
    /// Whether a service manager keeps a place for the log.
    pub(super) in_service: bool,
    /// Workers of torchrun whose attempts share one store, the first few of them.
    pub(super) ranks_with_shared_store: Vec<i32>,
}

/// What came of something that was tried: why it was refused.
pub(super) type Tried = Result<(), String>;

/// `/dev/shm`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shm {
    pub(super) is_tmpfs: bool,
    pub(super) total_bytes: u64,
    pub(super) free_bytes: u64,
    /// Its permissions.
    pub(super) mode: u32,
    pub(super) is_read_only: bool,
    pub(super) is_noexec: bool,
}

/// The control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cgroup {
    /// None is mounted.
    None,
    /// The first version, or both.
    V1,
    /// The second.
    V2 {
        /// Whether a group says if it is frozen.
        has_freezer: bool,
        /// Whether a group can be killed at once.
        has_kill: bool,
    },
}

/// The magic number of pidfs, since Linux 6.9.
const PIDFS_MAGIC: i64 = 0x5049_4446;
/// That of tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// How much of the list of mounts is read, bytes.
const MOUNTS_BYTES: u64 = 16 << 20;
const CLOCK_SOURCES: &str = "/sys/devices/system/clocksource/clocksource0";

impl Facts {
    /// Finds out. What cannot be asked about counts as not there.
    pub(super) fn gather() -> Facts {
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let status = proc_file::text("/proc/self/status").unwrap_or_default();
        let capabilities = rustix::thread::capabilities(None).map(|sets| sets.effective);
        let may = |which| capabilities.is_ok_and(|all: CapabilitySet| all.contains(which));
        let limit = |resource| rustix::process::getrlimit(resource);
        let (pidfd, has_pidfs) = pidfd();
        Facts {
            release: text(uname.release()),
            machine: text(uname.machine()),
            has_proc: status.lines().any(|line| line == format!("Pid:\t{}", getpid())),
            hidepid: hidepid(&mounts()),
            pidfd,
            has_pidfs,
            futex: tried(futex::wake(&AtomicU32::new(0), futex::Flags::empty(), 1)),
            memfd: tried(rustix::fs::memfd_create(
                "hangwatch-doctor",
                rustix::fs::MemfdFlags::CLOEXEC,
            )),
            wipe_on_fork: Canary::arm().map(|_| ()).map_err(|error| error.to_string()),
            shm: shm(),
            tmpfile: tried(rustix::fs::open(
                SEGMENT_DIR,
                OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )),
            may_trace: may(CapabilitySet::SYS_PTRACE),
            may_kill: may(CapabilitySet::KILL),
            may_be_nice: may(CapabilitySet::SYS_NICE),
            ptrace_scope: number("/proc/sys/kernel/yama/ptrace_scope"),
            lock_memory: limits::lock_all_memory().map_err(|error| error.to_string()),
            lower_oom_score: fs::write("/proc/self/oom_score_adj", "-900")
                .map_err(|error| error.to_string()),
            keep_incidents: keep_incidents(),
            realtime_limit: limit(Resource::Rtprio).current.unwrap_or(u64::MAX),
            open_files: limit(Resource::Nofile).maximum,
            clock_source: line(&format!("{CLOCK_SOURCES}/current_clocksource")),
            clock_sources: line(&format!("{CLOCK_SOURCES}/available_clocksource")),
            counts_with_processor: clock::counter_is_system_clock_now(),
            cgroup: cgroup(),
            in_pid_namespace: is_nested(&status),
            in_user_namespace: !is_whole(&line("/proc/self/uid_map").unwrap_or_default()),
            seccomp: field(&status, "Seccomp:").and_then(|mode| mode.parse().ok()),
            container: container(),
            in_service: std::env::var_os("INVOCATION_ID").is_some(),
            ranks_with_shared_store: ranks_with_shared_store(),
        }
    }
}

/// The mounts; any user may have a part in what they say, which need not be UTF-8.
fn mounts() -> String {
    let bytes = proc_file::bytes("/proc/self/mounts", MOUNTS_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Workers of torchrun that would be restarted with the store of the attempt before, a few of them.
fn ranks_with_shared_store() -> Vec<i32> {
    const PROCESSES: usize = 8_192;
    const NAMED: usize = 8;
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let pid_of = |entry: fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    processes
        .take(PROCESSES)
        .filter_map(|entry| pid_of(entry.ok()?))
        .filter(|pid| {
            let has = |assignment| lineage::has_in_environment(*pid, assignment);
            has("TORCHELASTIC_USE_AGENT_STORE=True") && !has("TORCHELASTIC_MAX_RESTARTS=0")
        })
        .map(Pid::as_raw_pid)
        .take(NAMED)
        .collect()
}

fn tried<T>(result: rustix::io::Result<T>) -> Tried {
    result.map(|_| ()).map_err(|error| error.to_string())
}

fn line(path: &str) -> Option<String> {
    Some(proc_file::text(path).ok()?.trim().to_owned())
}

fn number(path: &str) -> Option<u32> {
    line(path)?.parse().ok()
}

/// A field of `/proc/self/status`.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Whether the process has a pid in more than one namespace. (One whose `/proc` is its own
/// namespace's sees only the innermost: then it is process 1 or a descendant that tells.)
fn is_nested(status: &str) -> bool {
    let pids = field(status, "NSpid:").map_or(0, |pids| pids.split_whitespace().count());
    // The initial namespace's inode is fixed.
    pids > 1 || host::pid_namespace().is_ok_and(|inode| inode != 0xefff_fffc)
}

/// Whether a map of users is the initial namespace's: all of them, each itself.
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn hidepid(mounts: &str) -> Option<String> {
    let proc = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/proc"))?;
    let options = proc.split(' ').nth(3)?.split(',');
    let hidden = options.filter_map(|option| option.strip_prefix("hidepid="));
    hidden.filter(|how| !["0", "off"].contains(how)).map(str::to_owned).next()
}

fn pidfd() -> (Tried, bool) {
    match rustix::process::pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(pidfd) => {
            let magic = rustix::fs::fstatfs(&pidfd).map(|stat| stat.f_type);
            (Ok(()), magic == Ok(PIDFS_MAGIC))
        }
        Err(error) => (Err(error.to_string()), false),
    }
}

fn shm() -> Option<Shm> {
    let vfs = rustix::fs::statvfs(SEGMENT_DIR).ok()?;
    let stat = rustix::fs::stat(SEGMENT_DIR).ok()?;
    let magic = rustix::fs::statfs(SEGMENT_DIR).ok()?.f_type;
    Some(Shm {
        is_tmpfs: magic == TMPFS_MAGIC,
        total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
        free_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
        mode: stat.st_mode & 0o7777,
        is_read_only: vfs.f_flag.contains(StatVfsMountFlags::RDONLY),
        is_noexec: vfs.f_flag.contains(StatVfsMountFlags::NOEXEC),
    })
}

fn cgroup() -> Cgroup {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        // The root group has neither file: ask our own, or any.
        let own = line("/proc/self/cgroup").unwrap_or_default();
        let own = own.strip_prefix("0::/").unwrap_or_default().to_owned();
        let own = Path::new("/sys/fs/cgroup").join(own);
        let any = fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        let groups: Vec<_> =
            any.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
        let has = |file: &str| {
            own.join(file).exists() || groups.iter().any(|group| group.join(file).exists())
        };
        Cgroup::V2 { has_freezer: has("cgroup.events"), has_kill: has("cgroup.kill") }
    } else if Path::new("/sys/fs/cgroup").read_dir().is_ok_and(|mut dir| dir.next().is_some()) {
        Cgroup::V1
    } else {
        Cgroup::None
    }
}

fn container() -> Option<&'static str> {
    let marks = [
        ("/.dockerenv", "Docker (/.dockerenv)"),
        ("/run/.containerenv", "Podman (/run/.containerenv)"),
        ("/var/run/secrets/kubernetes.io", "Kubernetes (its service account is mounted)"),
        ("/run/systemd/container", "a container (/run/systemd/container)"),
    ];
    marks.into_iter().find(|(path, _)| Path::new(path).exists()).map(|(_, what)| what)
}

fn keep_incidents() -> Tried {
    let dir = default_dir().map_err(|error| error.to_string())?;
    try_dir(&dir).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_says_how_it_hides_processes() {
        let check = |options: &str, how: Option<&str>| {
            let mounts = format!("x / ext4 rw 0 0\nproc /proc proc {options} 0 0\n");
            assert_eq!(hidepid(&mounts).as_deref(), how, "{options}");
        };
        check("rw,nosuid", None);
        check("rw,hidepid=0", None);
        check("rw,hidepid=off,gid=4", None);
        check("rw,hidepid=invisible", Some("invisible"));
        check("rw,gid=4,hidepid=2", Some("2"));
    }

    #[test]
    fn the_maps_of_a_user_namespace_are_told_from_the_hosts() {
        assert!(is_whole("         0          0 4294967295"));
        assert!(!is_whole("0 100000 65536"));
        assert!(!is_whole("0 1000 1\n1 100000 65536"));
        assert!(!is_whole(""));
    }

    #[test]
    fn a_process_with_two_pids_is_in_a_namespace() {
        assert!(is_nested("NSpid:\t4711\t1\n"));
        assert_eq!(field("Seccomp:\t2\nX:\t3", "Seccomp:"), Some("2"));
    }
}
