//! The limits and privileges of this process, and how the watchdog changes them for itself.
#![expect(unsafe_code, reason = "sched_setscheduler, which no safe crate in use offers")]

use std::io;
use std::num::NonZeroU64;

use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

/// Whether this thread may signal processes of any user (`CAP_KILL`, which root has).
pub fn may_signal_anybody() -> bool {
    // Where the kernel does not say, the more careful answer.
    let sets = rustix::thread::capabilities(None);
    sets.map_or(true, |sets| sets.effective.contains(CapabilitySet::KILL))
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

#[cfg(test)]
mod tests {
    use hangwatch_test_children::{become_user, fork};

    use super::*;

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
