//! The culprit: the one of a job that is not where all the others wait.
//!
//! One rule, for whoever asks: [`cascade`](crate::watchdog::cascade), which has it reaped, the suspect of an
//! incident, and the fleet's view. Seen from one scope, [`find_culprit`] names somebody only where
//!
//! * two at least are in the scope: of two ranks each is where the other is not, and nothing here says
//!   which of them waits;
//! * exactly one is not;
//! * each of those inside has waited there for long enough: who passes through waits for nobody.
//!
//! What is long enough, each who asks says for itself, by what follows from it: a cascade kills, so
//! only who has run out of time in the scope has waited; who names a suspect to people is content with
//! less.

/// Where one of a job is, seen from a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In it.
    Inside(Wait),
    /// Not in it.
    Outside,
}

/// Whether somebody has waited for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It has.
    Long,
    /// It has not: it may be about to go on.
    Short,
}

/// What is seen from a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit<T> {
    /// Fewer than two are in it.
    Alone,
    /// All are in it.
    Nobody,
    /// More than one is not in it.
    Several,
    /// This one is not in it, but not all the others have waited for long enough.
    NotYet(T),
    /// This one is not in it, and all the others wait.
    One(T),
}

/// Who of these is the culprit, seen from one scope.
///
/// ```
/// use hangwatch_core::watchdog::culprit::{Culprit, Place, Wait, find_culprit};
///
/// let waits = Place::Inside(Wait::Long);
/// let ranks = [(0, waits), (1, Place::Outside), (2, waits)];
/// assert_eq!(find_culprit(ranks), Culprit::One(1));
/// assert_eq!(find_culprit([ranks[0], ranks[1]]), Culprit::Alone);
/// ```
pub fn find_culprit<T>(members: impl IntoIterator<Item = (T, Place)>) -> Culprit<T> {
    let (mut inside, mut outside, mut all_wait, mut odd) = (0_usize, 0_usize, true, None);
    for (member, place) in members {
        match place {
            Place::Inside(wait) => {
                inside += 1;
                all_wait &= wait == Wait::Long;
            }
            Place::Outside => {
                outside += 1;
                odd = Some(member);
            }
        }
    }
    match odd {
        _ if inside < 2 => Culprit::Alone,
        None => Culprit::Nobody,
        Some(_) if outside > 1 => Culprit::Several,
        Some(member) if all_wait => Culprit::One(member),
        Some(member) => Culprit::NotYet(member),
    }
}
