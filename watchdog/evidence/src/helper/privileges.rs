//! Privileges: the helper becomes the worker's user before it parses anything of the worker's.
//!
//! A root watchdog's helper needs root to read another user's `/proc` and to stop its threads. What comes
//! after parses what the worker controls: its files, its interpreter's memory, its debug information. That
//! is done with the worker's own users, groups and capabilities, so whoever breaks a parser gains nothing.
//! Reading another process's memory, as `py-spy` does, needs no privilege between processes of one user,
//! unless the target is not dumpable, a security module forbids it, or it is in another user namespace.

use std::io::IoSliceMut;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::target::{Target, why_io};
use super::teller::Why;

/// Groups of a worker at most, as the kernel's own `NGROUPS_MAX`.
const GROUPS: usize = 65_536;

/// The users, groups and capabilities of a worker.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    /// Real, effective and saved.
    uids: [u32; 3],
    gids: [u32; 3],
    groups: Vec<u32>,
    permitted: CapabilitySet,
}

impl Standing {
    /// The worker's, as the kernel tells it.
    pub(super) fn of(target: &Target) -> Result<Standing, Why> {
        let status = target.read("status").map_err(|error| why_io(&error))?;
        Standing::from_status(&status)
            .ok_or_else(|| "which user it runs as cannot be read".to_owned())
    }

    fn from_status(status: &str) -> Option<Standing> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let numbers = |name: &str| {
            let words = field(name)?.split_whitespace();
            words.take(GROUPS).map(|word| word.parse().ok()).collect::<Option<Vec<u32>>>()
        };
        let three = |name: &str| numbers(name)?.get(..3)?.try_into().ok();
        let permitted = u64::from_str_radix(field("CapPrm:")?.trim(), 16).ok()?;
        Some(Standing {
            uids: three("Uid:")?,
            gids: three("Gid:")?,
            groups: numbers("Groups:")?,
            permitted: CapabilitySet::from_bits_retain(permitted),
        })
    }

    /// Whether a thread with these privileges may stop the worker and read its memory. The kernel is asked,
    /// by a thread that takes them and ends.
    pub(super) fn suffices(&self, target: &Target) -> bool {
        let asked = || self.take_for_this_thread().is_ok() && may_read(target.tid);
        std::thread::scope(|scope| scope.spawn(asked).join().unwrap_or(false))
    }

    /// Takes these privileges, and no more, for the whole process and for good.
    ///
    /// # Errors
    /// Why not. Then nothing of the worker's may be parsed.
    pub(super) fn take(&self) -> Result<(), Why> {
        let failed = |errno: Errno| {
            let [_, uid, _] = self.uids;
            format!(
                "not captured: the helper cannot become the worker's user {uid} ({errno}); run the \
                 watchdog as that user, or give it CAP_SETUID and CAP_SETGID"
            )
        };
        let is_same_user = self.uids == [rustix::process::getuid().as_raw(); 3]
            && self.uids == [rustix::process::geteuid().as_raw(); 3];
        let (gid, uid) = (nix::unistd::Gid::from_raw, nix::unistd::Uid::from_raw);
        let groups: Vec<_> = self.groups.iter().copied().map(gid).collect();
        // These three are the C library's: they reach every thread of the process, and abort where one
        // thread may and another may not.
        let grouped = nix::unistd::setgroups(&groups).and_then(|()| {
            let [real, effective, saved] = self.gids.map(gid);
            nix::unistd::setresgid(real, effective, saved)
        });
        match grouped {
            // One without privilege has none to lose; its groups are its user's.
            Err(Errno::EPERM) if is_same_user => {}
            grouped => grouped.map_err(failed)?,
        }
        let [real, effective, saved] = self.uids.map(uid);
        nix::unistd::setresuid(real, effective, saved).map_err(failed)?;
        self.take_capabilities()?;
        // The change of user has undone it.
        super::end_with_the_watchdog().map_err(|error| why_io(&error))
    }

    /// Takes the worker's capabilities for this thread alone: a thread that ran before [`take`] keeps its
    /// own where its user stays the same.
    ///
    /// [`take`]: Standing::take
    pub(super) fn take_capabilities(&self) -> Result<(), Why> {
        let own = rustix::thread::capabilities(None).map_err(|error| why_io(&error.into()))?;
        let permitted = own.permitted & self.permitted;
        let sets =
            CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets).map_err(|error| why_io(&error.into()))
    }

    fn take_for_this_thread(&self) -> Result<(), Why> {
        let failed = |error: rustix::io::Errno| why_io(&error.into());
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let is_privileged = rustix::thread::set_thread_groups(&groups).is_ok();
        if is_privileged {
            let [real, effective, saved] = self.gids.map(Gid::from_raw);
            rustix::thread::set_thread_res_gid(real, effective, saved).map_err(failed)?;
        }
        let [real, effective, saved] = self.uids.map(Uid::from_raw);
        rustix::thread::set_thread_res_uid(real, effective, saved).map_err(failed)?;
        self.take_capabilities()
    }
}

/// Whether this thread may read the memory of another process: asked with an address that is none.
pub(super) fn may_read(tid: u32) -> bool {
    let mut byte = [0];
    let mut local = [IoSliceMut::new(&mut byte)];
    let remote = [RemoteIoVec { base: 0, len: 1 }];
    let read = process_vm_readv(Pid::from_raw(tid.cast_signed()), &mut local, &remote);
    !matches!(read, Err(Errno::EPERM | Errno::EACCES | Errno::ENOSYS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_a_process_may_do() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t2\nGid:\t4\t5\t6\t5\nGroups:\t7 8 \nCapPrm:\t0000000000000400\n";
        let standing = Standing::from_status(status).unwrap();
        assert_eq!((standing.uids, standing.gids), ([1, 2, 3], [4, 5, 6]));
        assert_eq!((&*standing.groups, standing.permitted.bits()), (&[7, 8][..], 0x400));
        assert!(Standing::from_status("Uid:\t1\n").is_none());
    }
}
