//! The opposite of a removal: who was stopped to be killed runs again.

use std::io;

use crate::pidfd::Pidfd;
use rustix::process::Signal;

use super::member::Opened;
use super::{Descendants, Excluded, Step};
use crate::lineage::Stat;
use crate::proc::State;

impl Descendants {
    /// Sends SIGCONT to the worker and to all that belong to it and are stopped: a watchdog that died had
    /// stopped them. Returns how many there were. Who was stopped by somebody else runs again, too.
    ///
    /// # Errors
    /// Where `/proc` refuses or no descriptor is left: it is to be tried again.
    pub fn resume(&mut self, worker: &Pidfd) -> io::Result<usize> {
        while self.list(worker, &Excluded::default())? != Step::Done {}
        let mut resumed = 0;
        // Children first: their parents fork none meanwhile.
        for place in (0..self.members.len()).rev() {
            let Opened::Alive(pidfd) = self.open(place)? else { continue };
            let member = &self.members[place];
            // Of a process whose first thread has ended, the state says nothing of the others.
            let may_be_stopped = Stat::read(member.identity.pid)?
                .is_some_and(|stat| matches!(stat.state, State::Stopped | State::Zombie));
            if may_be_stopped && member.may_be_signalled(self.rights)? {
                // Refused, it was not stopped by a watchdog either.
                resumed += usize::from(pidfd.signal(Signal::CONT).is_ok());
            }
        }
        Ok(resumed)
    }
}
