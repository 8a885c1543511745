//! Facts of this host, this boot and this process: the identifiers that a segment carries.
#![expect(unsafe_code, reason = "sysconf, which no safe crate in use offers")]

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use rustix::process::Pid;

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

/// The calling thread's id.
pub fn gettid() -> Pid {
    rustix::thread::gettid()
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
    use hangwatch_test_children::fork;
    use rustix::process::{Resource, Rlimit};

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
}
