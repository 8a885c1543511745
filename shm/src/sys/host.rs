//! Facts of this host, this boot and this process: identifiers that a segment
//! carries, and the limits that the watchdog asks to have changed.
#![expect(unsafe_code, reason = "sysconf, which no safe crate in use offers")]

use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use rustix::mm::MlockAllFlags;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::thread::CapabilitySet;

use super::name::SEGMENT_DIR;
use super::proc_file;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why a fact of the host could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel's file could not be read.
    #[error("cannot read {path}: {source}; {}", advice(source, "check that /proc is mounted"))]
    Read {
        /// Which file.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel's file holds something else.
    #[error("cannot make sense of {path}: it reads {text:?}; check what is mounted there")]
    Parse {
        /// Which file.
        path: &'static str,
        /// What it holds.
        text: String,
    },
}

/// The host's name, as this process's namespace has it: in a container, usually the pod's.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What to do about a refusal: `otherwise`, unless this process has used up its descriptors.
pub(crate) fn advice(refusal: &io::Error, otherwise: &'static str) -> &'static str {
    match rustix::io::Errno::from_io_error(refusal) {
        Some(rustix::io::Errno::MFILE) => "raise the limit of open files (ulimit -n)",
        Some(rustix::io::Errno::NFILE) => "this machine has too many files open (fs.file-max)",
        _ => otherwise,
    }
}

/// This boot's identity, as the two halves of a UUID. Times and pids of
/// another boot mean nothing in this one.
///
/// # Errors
/// [`HostError`] where `/proc` is not what it should be.
pub fn boot_id() -> Result<[u64; 2], HostError> {
    let text =
        proc_file::text(BOOT_ID).map_err(|source| HostError::Read { path: BOOT_ID, source })?;
    parse_uuid(&text).ok_or(HostError::Parse { path: BOOT_ID, text })
}

/// The inode of this process's time namespace; 0 where the kernel has none
/// (before Linux 5.6). Monotonic times of two namespaces do not compare.
///
/// # Errors
/// [`HostError`] where `/proc` cannot be read.
pub fn time_namespace() -> Result<u64, HostError> {
    match namespace("/proc/self/ns/time") {
        Err(HostError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(0),
        other => other,
    }
}

/// The inode of this process's PID namespace. Pids of two namespaces do not
/// compare.
///
/// # Errors
/// [`HostError`] where `/proc` cannot be read.
pub fn pid_namespace() -> Result<u64, HostError> {
    namespace("/proc/self/ns/pid")
}

/// The size of a page in bytes.
pub fn page_size() -> u64 {
    static PAGE_BYTES: OnceLock<u64> = OnceLock::new();
    *PAGE_BYTES.get_or_init(|| {
        // SAFETY: reads a constant of the system.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        u64::try_from(bytes).expect("every Linux has a page size")
    })
}

/// What `/dev/shm` has left for this user, in bytes.
///
/// # Errors
/// Where it is not there.
pub fn shm_free_bytes() -> io::Result<u64> {
    let fs = rustix::fs::statvfs(SEGMENT_DIR)?;
    Ok(fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// Whether this thread may signal processes of any user (`CAP_KILL`, which root has).
pub fn may_signal_anybody() -> bool {
    // Where the kernel does not say, the more careful answer.
    let sets = rustix::thread::capabilities(None);
    sets.map_or(true, |sets| sets.effective.contains(CapabilitySet::KILL))
}

/// The calling thread's id.
pub fn gettid() -> Pid {
    rustix::thread::gettid()
}

/// Lets the kernel wake the calling thread up to this much late; 1 ns is as
/// punctual as it gets.
///
/// # Errors
/// Where the kernel refuses; real-time threads have no slack to set.
pub fn set_timer_slack(slack_ns: NonZeroU64) -> io::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(Some(slack_ns))?)
}

/// Runs the calling thread at a real-time priority (`SCHED_FIFO`, 1 to 99); what it forks does not.
///
/// # Errors
/// EPERM without `CAP_SYS_NICE` beyond `RLIMIT_RTPRIO`.
pub fn run_realtime(priority: u8) -> io::Result<()> {
    let param = libc::sched_param { sched_priority: priority.into() };
    let class = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` is read only; 0 is the calling thread.
    let rc = unsafe { libc::sched_setscheduler(0, class, &raw const param) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The host's name, as the kernel has it: a container's own, where it has one.
pub fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Keeps all of this process's memory from being swapped out, what it maps
/// later included: each page from when it is first touched, so that stacks and
/// segments that are mapped large and used little cost no more than they use.
///
/// # Errors
/// `ENOMEM` or `EPERM` where `RLIMIT_MEMLOCK` forbids it.
pub fn lock_all_memory() -> io::Result<()> {
    Ok(rustix::mm::mlockall(
        MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT,
    )?)
}

/// Why fewer descriptors are allowed than wanted.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorLimitError {
    /// The hard limit is in the way. The soft limit has been raised up to it.
    #[error(
        "{wanted} open files are wanted and {now} allowed, which is the hard limit; \
         raise it (ulimit -Hn, LimitNOFILE= or --ulimit nofile), or ask for fewer lanes"
    )]
    Hard {
        /// How many were asked for.
        wanted: u64,
        /// How many are allowed now.
        now: u64,
    },
    /// The kernel refused to raise the soft limit.
    #[error("cannot raise the limit of open files from {now} to {wanted}: {source}")]
    Refused {
        /// How many were asked for.
        wanted: u64,
        /// How many are allowed, as before.
        now: u64,
        /// What the kernel said.
        source: io::Error,
    },
}

impl DescriptorLimitError {
    /// How many are allowed now.
    pub fn allowed(&self) -> u64 {
        match self {
            DescriptorLimitError::Hard { now, .. } | DescriptorLimitError::Refused { now, .. } => {
                *now
            }
        }
    }
}

/// Raises this process's soft limit of open files to `wanted`, and its hard
/// limit too if that is in the way and we are allowed. Never lowers it.
///
/// Gives the limit as it is now, which may be more than `wanted`.
///
/// # Errors
/// [`DescriptorLimitError`]; it too says what is allowed now.
pub fn raise_descriptor_limit(wanted: u64) -> Result<u64, DescriptorLimitError> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // None is no limit at all.
    let Some(now) = limit.current.filter(|&now| now < wanted) else {
        return Ok(limit.current.unwrap_or(u64::MAX));
    };
    let set = |soft, hard| {
        let new = Rlimit { current: Some(soft), maximum: hard };
        rustix::process::setrlimit(Resource::Nofile, new)
            .map_err(|errno| DescriptorLimitError::Refused { wanted, now, source: errno.into() })
    };
    match limit.maximum {
        Some(hard) if hard < wanted => {
            if set(wanted, Some(wanted)).is_ok() {
                return Ok(wanted);
            }
            set(hard, Some(hard))?;
            Err(DescriptorLimitError::Hard { wanted, now: hard })
        }
        hard => set(wanted, hard).map(|()| wanted),
    }
}

fn namespace(path: &'static str) -> Result<u64, HostError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.ino()),
        Err(source) => Err(HostError::Read { path, source }),
    }
}

/// The two halves of a UUID in its usual text form.
fn parse_uuid(text: &str) -> Option<[u64; 2]> {
    let digits: String = text.trim_end().split('-').collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (high, low) = digits.split_at(16);
    Some([u64::from_str_radix(high, 16).ok()?, u64::from_str_radix(low, 16).ok()?])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{become_user, fork};
    use super::*;

    #[test]
    fn the_boot_has_one_identity() {
        let id = boot_id().unwrap();
        assert_eq!(id, boot_id().unwrap());
        assert_ne!(id, [0, 0]);
    }

    #[test]
    fn a_uuid_is_read_whole_or_not_at_all() {
        assert_eq!(
            parse_uuid("01234567-89ab-cdef-fedc-ba9876543210\n"),
            Some([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210])
        );
        for bad in ["", "0123", "01234567-89ab-cdef-fedc-ba987654321g", "+1234567-89ab-cdef-fedc-"]
        {
            assert_eq!(parse_uuid(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn namespaces_are_those_of_this_process() {
        assert_ne!(pid_namespace().unwrap(), 0);
        assert_eq!(time_namespace().unwrap(), time_namespace().unwrap());
        assert_ne!(pid_namespace().unwrap(), time_namespace().unwrap());
        assert!(matches!(namespace("/proc/self/ns/none"), Err(HostError::Read { .. })));
    }

    #[test]
    fn sizes_and_ids_are_sane() {
        assert!(page_size().is_power_of_two() && page_size() >= 4096);
        assert!(shm_free_bytes().unwrap() > 0);
        let other = std::thread::spawn(gettid).join().unwrap();
        assert_ne!(gettid(), other);
    }

    #[test]
    fn a_lack_of_descriptors_is_not_taken_for_a_lack_of_proc() {
        let child = fork(|| {
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::setrlimit(Resource::Nofile, none).unwrap();
            i32::from(!boot_id().unwrap_err().to_string().contains("ulimit -n"))
        });
        assert_eq!(child.exit_status(), 0);
    }

    #[test]
    fn timer_slack_is_set_for_this_thread() {
        set_timer_slack(NonZeroU64::MIN).unwrap();
        assert_eq!(rustix::thread::current_timer_slack().unwrap(), 1);
    }

    #[test]
    fn memory_is_locked_or_the_refusal_is_told() {
        let child = fork(|| {
            if rustix::process::geteuid().is_root() {
                become_user(4002);
            }
            let none = Rlimit { current: Some(0), maximum: Some(0) };
            rustix::process::setrlimit(Resource::Memlock, none).unwrap();
            i32::from(lock_all_memory().is_ok())
        });
        assert_eq!(child.exit_status(), 0);
    }

    #[test]
    fn the_descriptor_limit_rises_to_the_hard_limit_and_no_further() {
        let child = fork(|| {
            if rustix::process::geteuid().is_root() {
                become_user(4002);
            }
            let low = Rlimit { current: Some(50), maximum: Some(100) };
            rustix::process::setrlimit(Resource::Nofile, low).unwrap();
            assert_eq!(raise_descriptor_limit(40).unwrap(), 50, "enough already");
            assert_eq!(raise_descriptor_limit(80).unwrap(), 80);
            let error = raise_descriptor_limit(101).unwrap_err();
            assert!(matches!(error, DescriptorLimitError::Hard { wanted: 101, now: 100 }));
            assert_eq!(error.allowed(), 100);
            i32::from(rustix::process::getrlimit(Resource::Nofile).current != Some(100))
        });
        assert_eq!(child.exit_status(), 0);
    }
}
