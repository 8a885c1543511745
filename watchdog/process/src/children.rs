//! The helpers among the children of this process, for whoever looks after its children: they are
//! nobody's descendants but this process's own.
//!
//! A helper is a child from its fork on, and known by its pid only when it has been started. So it is
//! announced first ([`starting`]); whoever looks in between is told that it cannot tell.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::lineage::{self, Identity, Stat};

static CHILDREN: Mutex<Children> =
    Mutex::new(Children { starting: 0, starts: 0, helpers: BTreeMap::new() });

struct Children {
    /// Helpers that are being started.
    starting: usize,
    /// How many have been, or are.
    starts: u64,
    /// Those that are not waited for yet, by their pids; `None` where `/proc` did not say more.
    helpers: BTreeMap<u32, Option<Identity>>,
}

/// What a child of this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A helper.
    Helper,
    /// One is being started: it may be that, or something else.
    Unsure,
    /// None.
    Other,
}

/// A helper that is being started; dropped, it is none.
pub struct Starting(());

/// Announces a helper, before it is there.
pub fn starting() -> Starting {
    let mut children = children();
    children.starting += 1;
    children.starts += 1;
    Starting(())
}

impl Starting {
    /// It has been started, and is not waited for yet.
    pub fn has_begun(self, pid: u32) {
        // Not waited for, it is there to be read.
        let own = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let stat = own.and_then(|pid| Stat::read(pid).ok().flatten());
        children().helpers.insert(pid, stat.map(|stat| stat.identity));
        drop(self); // known, it is not being started any more
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        children().starting -= 1;
    }
}

/// It is dead and has been waited for.
pub fn ended(pid: u32) {
    children().helpers.remove(&pid);
}

/// What a child of this process is.
pub fn kind_of(child: Identity) -> Kind {
    let children = children();
    let number = child.pid.as_raw_pid().unsigned_abs();
    let helper = children.helpers.get(&number);
    if helper.is_some_and(|helper| helper.is_none_or(|helper| helper == child)) {
        Kind::Helper
    } else if children.starting > 0 {
        Kind::Unsure
    } else {
        Kind::Other
    }
}

/// As [`kind_of`], of a living child of which `/proc` says nothing.
pub fn kind_of_pid(child: Pid) -> Kind {
    let children = children();
    if children.helpers.contains_key(&child.as_raw_pid().unsigned_abs()) {
        Kind::Helper
    } else if children.starting > 0 {
        Kind::Unsure
    } else {
        Kind::Other
    }
}

/// Waits for every dead child of this process that is no helper, so that none stays a zombie: as PID 1,
/// or as a subreaper, it is given the orphans of its command. `spare` is the command, which has somebody
/// else to wait for it. How many there were.
///
/// A helper's status is left to whoever started it: no helper is started while this looks.
///
/// # Errors
/// `waitid(2)` fails other than for want of a child.
pub fn reap_orphans(spare: Option<Pid>) -> io::Result<usize> {
    // Asked first, one call: mostly there is none.
    let any = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::All, any) {
        Ok(Some(_)) => {}
        Ok(None) | Err(Errno::CHILD | Errno::INTR) => return Ok(0),
        Err(error) => return Err(error.into()),
    }
    let mut reaped = 0;
    for pid in lineage::own_children()? {
        let children = children();
        let number = pid.as_raw_pid().unsigned_abs();
        if children.starting > 0 {
            break; // the next look is soon
        }
        if Some(pid) == spare || children.helpers.contains_key(&number) {
            continue;
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        reaped += usize::from(waitid(WaitId::Pid(pid), options).is_ok_and(|it| it.is_some()));
    }
    Ok(reaped)
}

/// How many helpers have been started so far; `None` while one is. Twice the same, and between the two
/// everybody's kind was sure.
pub fn starts() -> Option<u64> {
    let children = children();
    (children.starting == 0).then_some(children.starts)
}

fn children() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_between_two_looks_is_seen_however_short() {
        let before = starts();
        let starting = starting();
        assert_eq!(starts(), None);
        drop(starting);
        assert!(before.is_none() || starts() != before);
    }

    #[test]
    fn a_helper_is_known_from_its_fork_to_its_wait() {
        let starting = starting();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let identity = Stat::read(Pid::from_child(&child)).unwrap().unwrap().identity;
        assert_eq!(kind_of(identity), Kind::Unsure);
        starting.has_begun(child.id());
        assert_eq!(kind_of(identity), Kind::Helper);
        child.kill().unwrap();
        assert_eq!(kind_of(identity), Kind::Helper, "dead, it is a child still");
        child.wait().unwrap();
        ended(child.id());
        assert_ne!(kind_of(identity), Kind::Helper);
    }
}
