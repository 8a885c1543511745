//! One of a worker's descendants: opened anew for each thing that is done to it, and told by its identity.

use std::io;

use crate::pidfd::{Pidfd, SignalError, Signalled};
use crate::proc::State;
use crate::proc::standing;
use rustix::process::Signal;

use super::Rights;
use crate::lineage::{self, Identity, Sight, Stat};

/// One of a worker's descendants.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) identity: Identity,
    /// Its inode on pidfs, where the kernel has that: unique for the boot.
    inode: Option<u64>,
    /// The place of the member it was found through.
    pub(super) parent: usize,
    pub(super) fate: Fate,
    pub(super) is_dead: bool,
    /// Looks at it, since it was sent SIGSTOP, that found it running or asleep.
    pub(super) restless_looks: usize,
}

/// What was done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing.
    Found,
    /// It was sent SIGSTOP.
    Stopped,
    /// As [`Fate::Stopped`]; it was stopped before.
    WasStopped,
    /// It was sent SIGKILL.
    Killed,
    /// It may not be signalled.
    Refused,
    /// It is another worker, or descends from one.
    Excluded,
}

/// What was found behind a pid.
pub(super) enum Opened {
    /// The process that was meant.
    Alive(Pidfd),
    /// `/proc` hides the process that has its pid: nothing shows which one that is.
    Hidden,
    /// It is dead.
    Dead,
}

impl Member {
    pub(super) fn new(identity: Identity, parent: usize) -> Member {
        let (inode, fate, is_dead, restless_looks) = (None, Fate::Found, false, 0);
        Member { identity, inode, parent, fate, is_dead, restless_looks }
    }

    /// Opens it. The handle refers to this very process, and to no later one of its pid.
    ///
    /// # Errors
    /// Where `/proc` refuses or no descriptor is left.
    pub(super) fn open(&mut self) -> io::Result<Opened> {
        if self.is_dead {
            return Ok(Opened::Dead);
        }
        let Some(pidfd) = lineage::open_living(self.identity.pid)? else {
            return Ok(Opened::Dead);
        };
        let inode = pidfd.inode();
        let is_same = if self.inode.is_some() {
            self.inode == inode
        } else {
            match Sight::of(self.identity.pid)? {
                Sight::Seen(stat) => stat.identity == self.identity,
                Sight::Hidden if !pidfd.is_dead() => return Ok(Opened::Hidden),
                Sight::Hidden | Sight::Gone => false,
            }
        };
        // Asked last: alive, it had its pid while its start was read.
        if !is_same || pidfd.is_dead() {
            return Ok(Opened::Dead);
        }
        self.inode = inode;
        Ok(Opened::Alive(pidfd))
    }

    /// Whether it may be signalled, as the user it is now.
    pub(super) fn may_be_signalled(&self, rights: Rights) -> io::Result<bool> {
        Ok(match rights {
            Rights::Own => true,
            Rights::Of(None) => false,
            Rights::Of(Some(users)) => {
                standing(self.identity.pid)?.is_some_and(|seen| users.may_signal(seen.users))
            }
        })
    }

    /// Stops it, unless that was done before. Whether it was told to just now.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub(super) fn stop(&mut self, pidfd: &Pidfd, rights: Rights) -> io::Result<bool> {
        if self.fate != Fate::Found {
            return Ok(false);
        }
        let was_stopped = Stat::read(self.identity.pid)?
            .is_some_and(|stat| matches!(stat.state, State::Stopped | State::Traced));
        if !self.may_be_signalled(rights)? {
            self.fate = Fate::Refused;
            return Ok(false);
        }
        self.fate = match pidfd.signal(Signal::STOP) {
            Ok(_) if was_stopped => Fate::WasStopped,
            Ok(_) => Fate::Stopped,
            Err(SignalError::Denied { .. } | SignalError::Io { .. }) => Fate::Refused,
        };
        Ok(self.fate != Fate::Refused)
    }

    /// Stops it once more: somebody may have let it go on.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub(super) fn stop_again(&mut self, pidfd: &Pidfd, rights: Rights) -> io::Result<()> {
        self.check(pidfd, rights)?;
        if self.fate != Fate::Refused && pidfd.signal(Signal::STOP).is_err() {
            self.let_go(pidfd, Fate::Refused);
        }
        Ok(())
    }

    /// Refuses it if it may not be signalled.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub(super) fn check(&mut self, pidfd: &Pidfd, rights: Rights) -> io::Result<()> {
        if self.fate != Fate::Refused && !self.may_be_signalled(rights)? {
            self.let_go(pidfd, Fate::Refused);
        }
        Ok(())
    }

    /// Takes note that it was killed by its cgroup.
    pub(super) fn was_killed(&mut self) {
        if !self.is_dead && matches!(self.fate, Fate::Stopped | Fate::WasStopped) {
            self.fate = Fate::Killed;
        }
    }

    /// Lets it run again, as far as it was this that stopped it, and leaves it so.
    pub(super) fn let_go(&mut self, pidfd: &Pidfd, fate: Fate) {
        if self.fate == Fate::Stopped {
            // Refused, it was not stopped either.
            let _ = pidfd.signal(Signal::CONT);
        }
        self.fate = fate;
    }

    /// Kills it. Stopped, it stays the user that it is here.
    ///
    /// # Errors
    /// Where `/proc` refuses.
    pub(super) fn kill(&mut self, pidfd: &Pidfd, rights: Rights) -> io::Result<()> {
        self.check(pidfd, rights)?;
        if self.fate == Fate::Refused {
            return Ok(());
        }
        match pidfd.signal(Signal::KILL) {
            Ok(Signalled::Sent | Signalled::Gone) => self.fate = Fate::Killed,
            Err(SignalError::Denied { .. } | SignalError::Io { .. }) => {
                self.let_go(pidfd, Fate::Refused);
            }
        }
        Ok(())
    }
}
