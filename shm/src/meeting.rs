//! Meetings: scopes in which the ranks of a group wait for each other, such as a collective or a barrier.

use std::time::Duration;

use hangwatch_core::wire::lane::{AllowedBy, TimerKind};
use hangwatch_core::wire::meeting::{GroupId, MAX_SEQUENCE, Meeting, Members};

use crate::error::AcquireError;
use crate::guard::Guard;
use crate::lane::timeout_ns;
use crate::scope::Scope;
use crate::thread;
use crate::worker::Worker;

/// A group of ranks that meet: its name and members, interned once for the hot path.
///
/// Each member gives the same meeting the same number. So the watchdog knows which rank the others
/// wait for: the one that has not entered the meeting they are in, by the rank of its labels.
///
/// ```
/// use std::time::Duration;
/// # let name = format!("doc-meeting-{}", std::process::id());
/// # hangwatch::Segment::create(&name, hangwatch::CreateOptions::default())?;
/// let worker = hangwatch::Worker::attach(name.as_str())?;
/// let group = worker.group("data parallel", &[0, 2, 4, 6])?;
/// let all_reduce = worker.scope("all_reduce")?;
/// for sequence in 1..=100 {
///     let _guard = group.meeting(&all_reduce, sequence, Duration::from_secs(600))?;
///     // ... the collective ...
/// }
/// # hangwatch::Segment::remove(&name)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Group {
    worker: Worker,
    /// `None` where the segment has no room for it: its meetings are ordinary scopes.
    id: Option<GroupId>,
}

impl Group {
    /// Begins a meeting; it must end within `timeout`.
    ///
    /// `scope` names what the group does there. `sequence` is the meeting's number in the group,
    /// counted over all that the group does; at most 2^48 - 1, what is larger counts as that. It
    /// should grow with each meeting: a rank that has entered a later one is never taken for behind.
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn meeting(
        &self,
        scope: &Scope,
        sequence: u64,
        timeout: Duration,
    ) -> Result<Guard, AcquireError> {
        self.arm(scope, sequence, timeout_ns(timeout)?, AllowedBy::Acquire)
    }

    /// Begins a meeting that must end within the time that the watchdog's deadlines file gives `scope`.
    ///
    /// # Errors
    /// [`AcquireError::NoDeadline`] where it gives none; otherwise as [`Group::meeting`].
    pub fn meeting_default(&self, scope: &Scope, sequence: u64) -> Result<Guard, AcquireError> {
        let timeout_ns = timeout_ns(scope.learned()?)?;
        self.arm(scope, sequence, timeout_ns, AllowedBy::Scope)
    }

    fn arm(
        &self,
        scope: &Scope,
        sequence: u64,
        timeout_ns: u64,
        allowed_by: AllowedBy,
    ) -> Result<Guard, AcquireError> {
        let here = self.worker.attachment.lanes.here().map_err(|error| Box::new(error.into()))?;
        let options = self.worker.options;
        let subject = scope.subject().of_kind(TimerKind::Guard).allowed_by(allowed_by);
        let armed = match self.id {
            Some(group) => {
                let meeting = Meeting { group, sequence: sequence.min(MAX_SEQUENCE) };
                thread::arm_meeting(here, options, subject, meeting, timeout_ns)?
            }
            None => thread::arm(here, options, subject, timeout_ns, None)?,
        };
        Ok(Guard::new(options, armed))
    }
}

impl Worker {
    /// Interns a group: its name and the ranks of its members, in any order; an empty list means all
    /// ranks of the job. Groups of the same name with other members are other groups.
    ///
    /// A segment has room for at most 256 groups. The meetings of a group beyond that are ordinary
    /// scopes: their deadlines hold, but nobody is found behind in them.
    ///
    /// # Errors
    /// [`AcquireError::EmptyScope`]; in a forked child, where the segment cannot be mapped anew.
    pub fn group(&self, name: &str, members: &[u32]) -> Result<Group, AcquireError> {
        if name.is_empty() {
            return Err(AcquireError::EmptyScope);
        }
        let here = self.attachment.here().map_err(|error| Box::new(error.into()))?;
        let id = here.mapped().words.groups().intern(name, Members::of(members));
        Ok(Group { worker: *self, id })
    }

    /// Begins a meeting, as [`Group::meeting`], by the names of its scope and its group. For a hot path
    /// intern both once, by [`Worker::scope`] and [`Worker::group`].
    ///
    /// # Errors
    /// [`AcquireError`].
    pub fn meeting(
        &self,
        name: &str,
        group: &str,
        members: &[u32],
        sequence: u64,
        timeout: Duration,
    ) -> Result<Guard, AcquireError> {
        self.group(group, members)?.meeting(&self.scope(name)?, sequence, timeout)
    }
}
