//! The cascade: where one worker holds up the others of its job, it is reaped before them.
//!
//! When a rank hangs, all the others run out of time in the same collective. [`find`] looks at the
//! workers of a job from one scope ([`Member`]) and says, by the rule of [`odd`](crate::watchdog::culprit), whether
//! exactly one is not in it: the suspect.
//! Nothing here asks or does anything; [`reap`](crate::watchdog::reap) acts on it.
//!
//! A suspect may be within its own deadlines, or have none. So much is asked before it is reaped:
//!
//! * at least two workers are in the scope, and every worker of the job but the suspect;
//! * each of them has run out of time in that scope. That one has is reason enough to hold it back,
//!   but says nothing yet about who hangs: the others may be about to go on;
//! * the suspect has not been in the scope since the last of them entered it ([`has_been_in`]). Who
//!   was there with them and has left it holds nobody up;
//! * no other suspect was reaped for them before: [`log_suspect`](crate::wire::segment::Segment::log_suspect) remembers, beyond this
//!   watchdog's death.

//!
//! Times of several workers are compared for that, and each worker's clock may be off by
//! [`ClockKind::tolerance_ns`](crate::wire::clock::ClockKind::tolerance_ns). So each comparison takes a
//! slack ([`Expiry::clock_slack_ns`](crate::watchdog::expiry::Expiry::clock_slack_ns)), in the direction in which
//! fewer are reaped. A time that a caller passes in (`release_at`) may be older than any slack.

mod log;

use crate::shared::flight;
use crate::watchdog::culprit::{Culprit, Place, Wait, find_culprit};
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::{Lane, OwnerWord};
use crate::wire::record::Operation;
use crate::wire::scope::ScopeId;
use crate::wire::time::Nanos;

pub use log::{SuspectLog, Suspected};

/// A worker of a job as it stands to one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which; `None` where the kernel has not said.
    pub worker: Option<WorkerId>,
    /// A lane of its.
    pub lane: u32,
    /// That lane's owner word.
    pub owner: OwnerWord,
    /// Where it is.
    pub stands: Stands,
}

/// Where a worker is, seen from a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// In it.
    Inside {
        /// Since when.
        entered_at: Nanos,
        /// Whether it has run out of time there.
        overdue: Overdue,
    },
    /// Not in it.
    Outside,
    /// Not in it, and the kernel has not answered yet who it is: as after a watchdog's start.
    Unheard,
    /// Not in it, and about to be removed: its reap is under way, or due for reasons of its own.
    Leaving,
}

/// Whether a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// It has not.
    No,
    /// It has.
    Yes,
}

/// What a scope shows about the workers of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The scope.
    pub scope: ScopeId,
    /// How many workers are in it.
    pub inside: u32,
    /// How many of them have run out of time there.
    pub overdue: u32,
    /// How many are not in it.
    pub outside: u32,
    /// When the last of those inside entered.
    pub entered_at: Nanos,
}

/// What follows from a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nobody shares the scope: it hangs by itself.
    Alone,
    /// All are in it.
    NobodyOutside,
    /// More than one is not in it.
    SeveralOutside,
    /// One is not in it, and the kernel does not vouch for it.
    Unproved,
    /// Who is not in it is about to be removed already.
    Leaving,
    /// One was reaped for these before.
    ReapedBefore,
    /// This one is not in it; not all the others have run out of time yet, or the kernel has not
    /// answered yet who it is.
    NotYet(Member),
    /// This one is not in it, and all the others have run out of time.
    Suspect(Member),
}

/// Looks at the workers of a job, seen from `scope`. `before` says who was suspected there earlier,
/// `slack_ns` how far two of their times may be apart that are the same.
pub fn find(
    scope: ScopeId,
    members: &[Member],
    before: Option<&Suspected>,
    slack_ns: u64,
) -> (Scene, Finding) {
    let mut scene =
        Scene { scope, inside: 0, overdue: 0, outside: 0, entered_at: Nanos::default() };
    let mut first_entered_at = Nanos::NEVER;
    for member in members {
        match member.stands {
            Stands::Inside { entered_at, overdue } => {
                scene.inside += 1;
                scene.overdue += u32::from(overdue == Overdue::Yes);
                scene.entered_at = scene.entered_at.max(entered_at);
                first_entered_at = first_entered_at.min(entered_at);
            }
            Stands::Outside | Stands::Unheard => scene.outside += 1,
            Stands::Leaving => {}
        }
    }
    let odd =
        find_culprit(members.iter().filter_map(|member| Some((*member, member.stands.place()?))));
    // Whoever entered before a suspect was named for this scope waited for that one.
    let named = before.filter(|before| first_entered_at <= before.at.plus(slack_ns));
    let is_another = |named: &Suspected| match odd {
        Culprit::NotYet(member) | Culprit::One(member) => !named.is(&member),
        Culprit::Alone | Culprit::Nobody | Culprit::Several => true,
    };
    let finding = match odd {
        _ if named.is_some_and(is_another) => Finding::ReapedBefore,
        Culprit::Alone => Finding::Alone,
        Culprit::Several => Finding::SeveralOutside,
        Culprit::Nobody if members.iter().any(|member| member.stands == Stands::Leaving) => {
            Finding::Leaving
        }
        Culprit::Nobody => Finding::NobodyOutside,
        Culprit::NotYet(member) | Culprit::One(member) if member.stands == Stands::Unheard => {
            Finding::NotYet(member)
        }
        Culprit::NotYet(member) | Culprit::One(member) if member.worker.is_none() => {
            Finding::Unproved
        }
        Culprit::NotYet(member) => Finding::NotYet(member),
        Culprit::One(member) => Finding::Suspect(member),
    };
    (scene, finding)
}

impl Stands {
    /// As the rule sees it; `None` of one that is no part of it any more. Reaping is no small thing:
    /// only who has run out of time in the scope has waited for long enough.
    fn place(self) -> Option<Place> {
        match self {
            Stands::Inside { overdue: Overdue::Yes, .. } => Some(Place::Inside(Wait::Long)),
            Stands::Inside { overdue: Overdue::No, .. } => Some(Place::Inside(Wait::Short)),
            Stands::Outside | Stands::Unheard => Some(Place::Outside),
            Stands::Leaving => None,
        }
    }
}

/// What the flight records of a worker's lanes say about whether it was in a scope lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It was not.
    None,
    /// It was.
    Lately,
    /// It has recorded so much since that nobody can say: it is at work.
    Overwritten,
}

/// Whether the owner of `lane` has been in `scope` since `since`, by its flight record.
pub fn has_been_in(lane: Lane<'_>, scope: ScopeId, since: Nanos) -> Visit {
    let capacity = lane.ring().len();
    let records = flight::latest(lane, capacity);
    let is_visit = |operation| operation != Operation::Pause; // its scope is the reason
    let mut recent = records.iter().filter(|record| record.at >= since);
    if recent.any(|record| ScopeId(record.scope) == scope && is_visit(record.operation)) {
        return Visit::Lately;
    }
    // What was lost is older than what is there.
    let reaches_back = records.first().is_none_or(|first| first.at < since);
    if reaches_back || records.len() < capacity { Visit::None } else { Visit::Overwritten }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::lane::LaneState;

    const SCOPE: ScopeId = ScopeId(3);
    const SLACK_NS: u64 = 5;

    fn member(number: u32, stands: Stands) -> Member {
        let owner = OwnerWord::new(LaneState::Attached, 1, number);
        Member { worker: Some(WorkerId(number.into())), lane: number, owner, stands }
    }

    fn inside(number: u32, entered_at: u64, overdue: Overdue) -> Member {
        member(number, Stands::Inside { entered_at: Nanos(entered_at), overdue })
    }

    fn waits(number: u32) -> Member {
        inside(number, 100, Overdue::Yes)
    }

    fn outside(number: u32) -> Member {
        member(number, Stands::Outside)
    }

    fn check(members: &[Member], before: Option<Suspected>, expected: Finding) {
        assert_eq!(
            find(SCOPE, members, before.as_ref(), SLACK_NS).1,
            expected,
            "{members:?} {before:?}"
        );
    }

    #[test]
    fn the_one_who_is_not_where_all_others_ran_out_of_time_is_the_suspect() {
        check(&[waits(1), waits(2), outside(3)], None, Finding::Suspect(outside(3)));
        let arriving = inside(2, 150, Overdue::No);
        check(&[waits(1), arriving, outside(3)], None, Finding::NotYet(outside(3)));
        let (scene, _) = find(SCOPE, &[waits(1), arriving, outside(3)], None, SLACK_NS);
        let expected =
            Scene { scope: SCOPE, inside: 2, overdue: 1, outside: 1, entered_at: Nanos(150) };
        assert_eq!(scene, expected);
    }

    #[test]
    fn no_suspect_is_named_where_there_is_not_exactly_one() {
        check(&[waits(1), outside(2)], None, Finding::Alone);
        check(&[waits(1), outside(2), outside(3)], None, Finding::Alone);
        check(&[waits(1), waits(2)], None, Finding::NobodyOutside);
        check(&[waits(1), waits(2), outside(3), outside(4)], None, Finding::SeveralOutside);
        let unproved = Member { worker: None, ..outside(3) };
        check(&[waits(1), waits(2), unproved], None, Finding::Unproved);
        let unheard = Member { stands: Stands::Unheard, ..unproved };
        check(&[waits(1), waits(2), unheard], None, Finding::NotYet(unheard));
        check(&[waits(1), waits(2), unproved, outside(4)], None, Finding::SeveralOutside);
        let leaving = member(3, Stands::Leaving);
        check(&[waits(1), waits(2), leaving], None, Finding::Leaving);
        check(&[waits(1), waits(2), leaving, outside(4)], None, Finding::Suspect(outside(4)));
    }

    #[test]
    fn for_one_wait_no_second_suspect_is_named() {
        let named = |at| {
            let suspect = outside(3);
            let (lane, owner) = (suspect.lane, suspect.owner);
            Some(Suspected { at: Nanos(at), scope: SCOPE, job: 0, lane, owner })
        };
        check(&[waits(1), waits(2), outside(4)], named(200), Finding::ReapedBefore);
        check(&[waits(1), waits(2)], named(200), Finding::ReapedBefore);
        check(&[waits(1), outside(4)], named(200), Finding::ReapedBefore);
        check(&[waits(1), outside(4), outside(5)], named(200), Finding::ReapedBefore);
        check(&[waits(1), waits(2), outside(3)], named(200), Finding::Suspect(outside(3)));
        let another_owner = Member { owner: OwnerWord(9), ..outside(3) };
        check(&[waits(1), waits(2), another_owner], named(200), Finding::ReapedBefore);
        // All entered after that one was reaped: another wait. Not where their clocks leave that open.
        check(&[waits(1), waits(2), outside(4)], named(94), Finding::Suspect(outside(4)));
        check(&[waits(1), waits(2), outside(4)], named(95), Finding::ReapedBefore);
    }
}
