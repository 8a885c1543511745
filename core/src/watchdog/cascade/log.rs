//! Who was suspected, kept in the segment: a watchdog that comes after must not reap a second worker
//! for the same wait.

use super::Member;
use crate::atomic::{AtomicU64, Ordering};
use crate::crash;
use crate::wire::lane::{JobLabel, OwnerWord};
use crate::wire::layout::{CASCADE_WORDS, SUSPECT_WORDS, SUSPECTS_KEPT};
use crate::wire::scope::ScopeId;
use crate::wire::segment::{CASCADES, Segment};
use crate::wire::time::Nanos;

/// A worker that was to be reaped before those that waited for it. A claim, as all that stands in a
/// segment: it can hold workers back until their own bound, and name nobody who is not the suspect
/// anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspected {
    /// When that was decided.
    pub at: Nanos,
    /// The scope the others waited in.
    pub scope: ScopeId,
    /// [`JobLabel::hash`] of the job.
    pub job: u64,
    /// A lane of the suspect.
    pub lane: u32,
    /// That lane's owner word.
    pub owner: OwnerWord,
}

impl Suspected {
    /// Whether `member` is that worker.
    pub fn is(&self, member: &Member) -> bool {
        self.lane == member.lane && self.owner == member.owner
    }
}

/// The suspects of a segment, read into private memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct SuspectLog([Option<Suspected>; SUSPECTS_KEPT]);

impl SuspectLog {
    /// The last one in this scope and job.
    pub fn last(&self, scope: ScopeId, job: &JobLabel) -> Option<&Suspected> {
        let job = job.hash();
        let here = self.0.iter().flatten().filter(|one| one.scope == scope && one.job == job);
        here.max_by_key(|one| one.at)
    }

    /// The scope whose workers waited for the owner of this lane, if they did.
    pub fn scope_of(&self, lane: u32, owner: OwnerWord) -> Option<ScopeId> {
        let mut all = self.0.iter().flatten();
        all.find(|one| one.lane == lane && one.owner == owner).map(|one| one.scope)
    }
}

impl Segment<'_> {
    /// Remembers a suspect, before anything is done to it. The watchdog's alone.
    pub fn log_suspect(&self, suspected: &Suspected) {
        let log: &[AtomicU64; CASCADE_WORDS] = self.block(CASCADES);
        let count = log[0].load(Ordering::Relaxed);
        let [at, what, job, owner] = entry(log, count as usize % SUSPECTS_KEPT);
        // Without a time it is none: a watchdog that dies before the last line has done nothing yet.
        at.store(0, Ordering::Relaxed);
        what.store(
            u64::from(suspected.scope.0) | u64::from(suspected.lane) << 32,
            Ordering::Release,
        );
        job.store(suspected.job, Ordering::Relaxed);
        owner.store(suspected.owner.0, Ordering::Relaxed);
        log[0].store(count.wrapping_add(1), Ordering::Relaxed);
        // Release: the entry is whole before it has a time.
        at.store(suspected.at.0, Ordering::Release);
        crash::point("suspected");
    }

    /// Reads the log. What is from the future is inconsistent and ignored.
    pub fn suspects(&self, now: Nanos) -> SuspectLog {
        let log: &[AtomicU64; CASCADE_WORDS] = self.block(CASCADES);
        SuspectLog(core::array::from_fn(|index| {
            let [at, what, job, owner] = entry(log, index);
            let at = Nanos(at.load(Ordering::Acquire));
            let what = what.load(Ordering::Relaxed);
            (at > Nanos(0) && at <= now).then(|| Suspected {
                at,
                scope: ScopeId(what as u16),
                job: job.load(Ordering::Relaxed),
                lane: (what >> 32) as u32,
                owner: OwnerWord(owner.load(Ordering::Relaxed)),
            })
        }))
    }
}

fn entry(log: &[AtomicU64; CASCADE_WORDS], index: usize) -> &[AtomicU64; SUSPECT_WORDS] {
    log[1 + index * SUSPECT_WORDS..].first_chunk().expect("the log has room for them all")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::lane::LaneState;
    use crate::wire::segment::tests::tiny_segment;

    fn suspected(at: u64, scope: u16) -> Suspected {
        let owner = OwnerWord::new(LaneState::Attached, 3, 77);
        let job = JobLabel::default().hash();
        Suspected { at: Nanos(at), scope: ScopeId(scope), job, lane: 2, owner }
    }

    #[test]
    fn the_last_suspect_of_a_scope_is_remembered() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        let last = |scope| {
            segment.suspects(Nanos(1000)).last(ScopeId(scope), &JobLabel::default()).copied()
        };
        assert_eq!(last(1), None);
        for at in [10, 20] {
            segment.log_suspect(&suspected(at, 1));
        }
        assert_eq!(last(1), Some(suspected(20, 1)));
        assert_eq!(last(2), None);
        let log = segment.suspects(Nanos(1000));
        assert_eq!(log.scope_of(2, suspected(20, 1).owner), Some(ScopeId(1)));
        assert_eq!(log.scope_of(1, suspected(20, 1).owner), None);
        for at in 100..100 + SUSPECTS_KEPT as u64 {
            segment.log_suspect(&suspected(at, 3));
        }
        assert_eq!(last(1), None, "overwritten");
    }

    #[test]
    fn an_inconsistent_log_names_nobody_from_the_future() {
        let words = tiny_segment();
        let segment = Segment::open(&words).unwrap();
        for word in &words[CASCADES..CASCADES + CASCADE_WORDS] {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(segment.suspects(Nanos(500)).last(ScopeId(7), &JobLabel::default()), None);
        segment.log_suspect(&suspected(20, 7));
        assert!(segment.suspects(Nanos(500)).last(ScopeId(7), &JobLabel::default()).is_some());
    }
}
